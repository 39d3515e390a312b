"""A subset of the samples, with the bytes of their images."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.explain import REASONS, identifier, named_il_model, named_run, sample_reasons
from rhostream.pipeline.export.clean_list import refuse_heavy_drops
from rhostream.pipeline.export.subset_reader import LABEL_COLUMNS, Picked, SubsetReader
from rhostream.pipeline.shards import read_clean_list
from rhostream.pipeline.sql import query, quote

_OWN = ("key", "shard", "row", "offset", "size", "ext", "source", "content_hash")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which samples: exactly one of `reasons`, `sql` and `clean_list` is given.

    Attributes:
        reasons: of `rhostream.pipeline.explain.reasons`, in the run `run`.
        run, il: names; None for the only one.
        sql: a statement that returns a column `key`; its other columns go along.
        clean_list: a file of `rho export list`: all that it does not drop, with the labels that it gives.
        max_drop_share: a clean list that drops more, of all training samples or of any class, is refused.
    """

    reasons: Collection[str] = ()
    run: str | None = None
    il: str | None = None
    sql: str | None = None
    clean_list: str | None = None
    max_drop_share: float = 0.5

    def __post_init__(self) -> None:
        given = [bool(self.reasons), self.sql is not None, self.clean_list is not None]
        if sum(given) != 1:
            raise ConfigError("which samples? give exactly one of --reason, --sql and --clean-list")
        if unknown := sorted(set(self.reasons) - set(REASONS)):
            raise ConfigError(f"--reason {unknown[0]!r}: known reasons are {', '.join(REASONS)}")


class Subset:
    """The chosen samples in the order of the shards.

    Raises:
        ConfigError: nothing is chosen, or keys that are no samples.
    """

    def __init__(self, workspace: Workspace | str, choice: Choice) -> None:
        self._workspace = Workspace(workspace)
        self._corpus = CorpusMetadata.read(self._workspace)
        chosen = self._chosen(choice)
        if "key" not in chosen.column_names:
            raise ConfigError(f"--sql returns {', '.join(chosen.column_names)}: it must return a column `key`")
        if chosen.num_rows == 0:
            raise ConfigError("no sample is chosen: nothing was written")
        columns = (*_OWN, *LABEL_COLUMNS[self._corpus.task])
        own = query(self._workspace, f"SELECT {', '.join(map(identifier, columns))} FROM samples")
        chosen = chosen.rename_columns([name if name == "key" else f"chosen.{name}" for name in chosen.column_names])
        rows = _joined(own, chosen).sort_by([("shard", "ascending"), ("row", "ascending")])
        keys = pc.count_distinct(chosen["key"], mode="all").as_py()
        if rows.num_rows != keys or keys != chosen.num_rows:
            known = set(own["key"].to_pylist())
            strange = [key for key in chosen["key"].to_pylist() if key not in known]
            told = (
                f"{len(strange)} of the keys are no samples, for instance {strange[0]!r}"
                if strange
                else (f"{chosen.num_rows - keys} keys come twice")
            )
            raise ConfigError(f"{told}: choose each sample of this workspace once")
        self._rows = rows

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @property
    def workspace(self) -> Workspace:
        return self._workspace

    @property
    def task(self) -> str:
        """Of the corpus."""
        return self._corpus.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self._corpus.classes

    def identity(self) -> str:
        """SHA-256 of all that the samples are and the choice told of them: equal, so are the files made of them."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for batch in self._rows.to_batches(max_chunksize=1000):
            digest.update(json.dumps(batch.to_pylist(), default=str).encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Picked]:
        return self.reader.samples(self._rows)

    @property
    def reader(self) -> SubsetReader:
        """What reads the samples of some of the rows, in this process or another."""
        return SubsetReader(workspace=self._workspace, corpus=self._corpus)

    def rows(self, start: int, stop: int) -> pa.Table:
        """Those of the samples from `start` to `stop`, for `reader`."""
        return self._rows.slice(start, stop - start)

    def _chosen(self, choice: Choice) -> pa.Table:
        if choice.sql is not None:
            return query(self._workspace, choice.sql)
        if choice.clean_list is not None:
            table = read_clean_list(choice.clean_list)
            if self.task != "classification" and "relabel" in table["action"].to_pylist():
                are = "is multi-label" if self.task == "multi_label" else "has image-text pairs"
                raise ConfigError(f"clean list {choice.clean_list} gives samples another class, and the corpus {are}")
            refuse_heavy_drops(self._workspace, table, choice.max_drop_share)
            return table.filter(pc.not_equal(table["action"], "drop"))
        run = named_run(self._workspace, choice.run)
        model = named_il_model(self._workspace, choice.il, run, required=False)
        listed = ", ".join(quote(reason) for reason in sorted(choice.reasons))
        told = "similarity, beaten_by" if self.task == "pairs" else "predicted, confidence"
        return query(
            self._workspace,
            f"SELECT key, reason, drawn, selected, latest_loss, il, {told}, contradicted "
            f"FROM (\n{sample_reasons(run, model, task=self.task)}\n) WHERE reason IN ({listed})",
        )


def _joined(own: pa.Table, chosen: pa.Table) -> pa.Table:
    """The rows of both tables with equal keys. Arrow's join takes no lists along: it only tells which rows."""
    numbered = (
        pa.table({"key": table["key"], name: pa.array(range(table.num_rows), pa.int64())})
        for name, table in (("own", own), ("chosen", chosen))
    )
    ours, theirs = numbered
    pairs = ours.join(theirs, "key", join_type="inner")
    rows = own.take(pairs["own"])
    for name in chosen.column_names:
        if name != "key":
            rows = rows.append_column(name, chosen[name].take(pairs["chosen"]))
    return rows
