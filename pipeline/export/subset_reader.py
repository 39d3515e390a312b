"""The samples of a subset, read one by one: in this process or in workers, which need no DuckDB for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from rhostream.errors import ShardError, UndecodableError, WorkspaceError
from rhostream.loaders.decode import read_stored
from rhostream.loaders.index import CorpusMetadata, is_safe_name
from rhostream.loaders.storage import ShardReader, Workspace

#: Of labels, and of the names of classes, by task.
LABEL_COLUMNS: Final = {"classification": ("label", "class"), "multi_label": ("labels", "classes")}


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One sample: `label` and `class_name` are lists in a multi-label corpus.

    `facts` is what the choice told of it beside its key.
    """

    key: str
    ext: str
    label: int | list[int]
    class_name: str | list[str]
    source: str
    image: bytes
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SubsetReader:
    """Reads chosen samples. It is pickled to workers; rows come with the work."""

    workspace: Workspace
    corpus: CorpusMetadata

    def samples(self, rows: pa.Table, skip: Callable[[str], bool] = lambda _: False) -> Iterator[Picked]:
        """The samples of `Subset.rows`, read as they are asked for.

        Args:
            skip: told a file's name, <key>.<ext>; where it answers true, the image is not read and is empty.

        Raises:
            ShardError: an image cannot be read, or is not the one that was indexed.
            WorkspaceError: a key or an extension of the index would name a file elsewhere.
        """
        label, name_of_class = LABEL_COLUMNS[self.corpus.task]
        shards = {shard.name: shard for shard in self.corpus.shards}
        reader = ShardReader(self.workspace)
        for batch in rows.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                if not is_safe_name(row["key"], row["ext"]):
                    raise WorkspaceError(
                        f"key {row['key']!r} with the extension {row['ext']!r} in the index of {row['shard']} is no "
                        "name that can be written: the workspace was not made by `rho`, do not trust it"
                    )
                tar = shards[row["shard"]].tar
                skipped = skip(f"{row['key']}.{row['ext']}")
                where = (tar, row["offset"], row["size"], row["content_hash"])
                try:
                    image = b"" if skipped else read_stored(reader, *where)
                except UndecodableError as error:
                    raise ShardError(
                        f"sample {row['key']} in {self.workspace.path(tar)} is not the image that was indexed: "
                        "restore the tar, or",
                        shards[row["shard"]].remedy(self.workspace),
                    ) from error
                facts = {
                    name.removeprefix("chosen."): value for name, value in row.items() if name.startswith("chosen.")
                }
                relabeled = facts.get("action") == "relabel"
                yield Picked(
                    key=row["key"],
                    ext=row["ext"],
                    label=self.corpus.classes.index(facts["class"]) if relabeled else row[label],
                    class_name=facts["class"] if relabeled else row[name_of_class],
                    source=row["source"],
                    image=image,
                    facts=facts,
                )
