"""A shard, and the list of them: columns in memory and on the disk, so that a million shards are opened at once."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import Remedy, Stage
from rhostream.loaders.index.columns import as_arrow, texts_as_arrow, values
from rhostream.loaders.storage import Workspace
from rhostream.schema import SHARDS

#: Of the lists of a workspace whose card does not hold its shards itself.
LISTS: Final = "shard_lists"

_MOST_IN_CARD: Final = 1000  # shards, which a card lists itself
_AT_ONCE: Final = 1 << 16  # shards


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Samples of one tar, and their index.

    Attributes:
        fold: -1 where the corpus has no folds.
        digest: identifies keys, labels and contents.
        source: path or URL of a tar that was indexed where it lies; "" for one in the workspace.
            Several shards may share such a tar: one for each split.
    """

    name: str
    split: str
    fold: int
    rows: int
    digest: str
    source: str = ""

    @property
    def split_and_fold(self) -> str:
        """For instance "train", or "train-fold0"."""
        return self.split if self.fold < 0 else f"{self.split}-fold{self.fold}"

    @property
    def tar(self) -> str:
        """Name of the tar in the workspace, or the absolute path or URL of one outside it."""
        return self.source or f"shards/{self.name}.tar"

    def remedy(self, workspace: Workspace, *, overwrite: bool = False) -> Remedy:
        """What makes it and its index again."""
        settings = {"overwrite": True} if overwrite else {}
        return Remedy(Stage.INDEX if self.source else Stage.SHARDS, workspace.location, settings)

    @property
    def index(self) -> str:
        return f"index/{self.name}.parquet"

    def scores(self, il_name: str) -> str:
        return f"il/{il_name}/scores/{self.name}.parquet"


class ShardList(Sequence[Shard]):
    """Shards in order. Held as columns, some 0.1 kB each; a `Shard` is made when it is asked for.

    Args:
        table: columns of `rhostream.schema.SHARDS`.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table.select(SHARDS.names).combine_chunks()

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> "ShardList":
        if isinstance(shards, ShardList):
            return shards
        shards = list(shards)
        columns = []
        for field in SHARDS:
            of_all = [getattr(shard, field.name) for shard in shards]
            is_text = pa.types.is_string(field.type)
            columns.append(texts_as_arrow(of_all) if is_text else as_arrow(np.array(of_all, np.int64)).cast(field.type))
        return cls(pa.Table.from_arrays(columns, schema=SHARDS))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, which: int) -> Shard: ...

    @overload
    def __getitem__(self, which: slice) -> "ShardList": ...

    def __getitem__(self, which: int | slice) -> "Shard | ShardList":
        if isinstance(which, slice):
            return ShardList(self._table.take(as_arrow(np.arange(len(self))[which])))
        (row,) = self._table.slice(range(len(self))[which], 1).to_pylist()
        return Shard(**row)

    def __iter__(self) -> Iterator[Shard]:
        for start in range(0, len(self), _AT_ONCE):
            for row in self._table.slice(start, _AT_ONCE).to_pylist():
                yield Shard(**row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._table.equals(ShardList.of(cast("Sequence[Shard]", other))._table)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.names[:3])}{', …' if len(self) > 3 else ''}; {len(self)} shards)"

    @property
    def names(self) -> list[str]:
        return cast("list[str]", self._table["name"].to_pylist())

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Of each shard, int64 (n,)."""
        return cast("npt.NDArray[np.int64]", values(self._table["rows"]))

    @property
    def samples(self) -> int:
        """Of all shards."""
        return int(self.rows.sum())

    @property
    def splits(self) -> list[str]:
        """That have a shard, in the order of their first ones."""
        return cast("list[str]", pc.unique(self._table["split"]).to_pylist())

    def of_splits(self, *splits: str) -> "ShardList":
        """Those of some splits, in their order."""
        return ShardList(self._table.filter(pc.is_in(self._table["split"], texts_as_arrow(splits))))

    def strange_name(self, safe: str) -> str | None:
        """The first name that does not match a regular expression as a whole; None where all do."""
        strange = self._table["name"].filter(pc.invert(pc.match_substring_regex(self._table["name"], f"^(?:{safe})$")))
        return cast("str", strange[0].as_py()) if len(strange) else None

    def fingerprint(self) -> str:
        """SHA-256 of the names and digests of all shards."""
        return self._hash("", ("name", " ", "digest", "\n"), "")

    def order_digest(self, settings: Sequence[Any]) -> str:
        """SHA-256 of the JSON list of some settings (an integer, strings) and of each shard's [name, rows, digest]."""
        head = "[" + ", ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in settings)
        return self._hash(head, (', ["', "name", '", ', "rows", ', "', "digest", '"]'), "]")

    def _hash(self, head: str, of_each: Sequence[str], tail: str) -> str:
        """SHA-256 of a text: `of_each` names columns, or is what stands between them."""
        found, nothing = hashlib.sha256(head.encode()), texts_as_arrow([""])[0]
        for start in range(0, len(self), _AT_ONCE):
            part = self._table.slice(start, _AT_ONCE)
            texts = [
                part[each].cast(pa.string()) if each in SHARDS.names else texts_as_arrow([each])[0] for each in of_each
            ]
            joined = pc.binary_join_element_wise(*texts, nothing)
            for chunk in joined.chunks:  # computed just now, so its characters begin the buffer that holds them
                _, ends, characters = chunk.buffers()
                found.update(memoryview(characters)[: np.frombuffer(ends, np.int32)[len(chunk)]])
        found.update(tail.encode())
        return found.hexdigest()

    def table(self) -> pa.Table:
        """Columns of `rhostream.schema.SHARDS`."""
        return self._table


def list_in_card(workspace: Workspace, shards: ShardList) -> list[dict[str, Any]] | str:
    """What `corpus.json` says of its shards: a few themselves, of many the name of the Parquet that lists them.

    That is written here, under a name of its own: the card that is there keeps its list.
    """
    if len(shards) <= _MOST_IN_CARD:
        return [asdict(shard) for shard in shards]
    name = list_name(shards.fingerprint())
    workspace.write_table(name, shards.table())
    return name


def list_name(fingerprint: str) -> str:
    """Of the Parquet that lists the shards of a corpus with this fingerprint."""
    return f"{LISTS}/{fingerprint[:16]}.parquet"


def remove_other_lists(workspace: Workspace, told: list[dict[str, Any]] | str) -> None:
    """Remove the lists of former cards, once the one that tells `told` is there."""
    for name in workspace.names(LISTS, ".parquet"):
        if f"{LISTS}/{name}" != told:
            workspace.remove(f"{LISTS}/{name}")
