"""The samples of a subset, read one by one: in this process or in workers, which need no DuckDB for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from rhostream.errors import ShardError, UndecodableError, WorkspaceError
from rhostream.loaders.decode import read_stored
from rhostream.loaders.index import CorpusMetadata, is_safe_name
from rhostream.loaders.storage import ShardReader, Workspace

#: What the index says is to be learnt of a sample, by task: labels and the names of classes, or the caption.
LABEL_COLUMNS: Final = {
    "classification": ("label", "class"),
    "multi_label": ("labels", "classes"),
    "pairs": ("text",),
}


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One sample.

    Attributes:
        label, class_name: lists in a multi-label corpus; None of pairs.
        caption: of a pair; else None.
        image: the stored bytes; of a corpus of texts the text's.
        facts: what the choice told of it beside its key.
    """

    key: str
    ext: str
    label: int | list[int] | None
    class_name: str | list[str] | None
    source: str
    image: bytes
    facts: Mapping[str, Any]
    caption: str | None = None


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
                label, class_name = self._label(row, facts)
                yield Picked(
                    key=row["key"],
                    ext=row["ext"],
                    label=label,
                    class_name=class_name,
                    source=row["source"],
                    image=image,
                    facts=facts,
                    caption=row.get("text"),
                )

    def _label(self, row: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[Any, Any]:
        """Label and name of the class: those that a clean list gives, else the index's; None of pairs."""
        if self.corpus.task == "pairs":
            return None, None
        if facts.get("action") == "relabel":
            return self.corpus.classes.index(facts["class"]), facts["class"]
        label, class_name = LABEL_COLUMNS[self.corpus.task]
        return row[label], row[class_name]
