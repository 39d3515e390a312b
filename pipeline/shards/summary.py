"""What the units of `rho shards` add up to, and `corpus.json`, which says so."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import CorpusError
from rhostream.loaders.index import METADATA_NAME, Shard, fingerprint_of, read_index
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.shards.unit import UnitRecord


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Groups of byte-identical images: how many, with unlike labels, and on both sides of an official split."""

    groups: int = 0
    labels_differ: int = 0
    across_official_splits: int = 0


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts over all units.

    Attributes:
        samples: by split: "train", "holdout", "val", "test"; with folds "train-fold0" and so on.
        rejects: by reason.
        examples: an example of each reason.
        classes: samples by class, in the order of the labels; a multi-label sample counts in each of its classes.
        without_class: samples of a multi-label corpus that have none.
    """

    samples: dict[str, int]
    rejects: dict[str, int]
    classes: dict[str, int]
    without_class: int
    shards: int
    duplicates: Duplicates
    examples: dict[str, str]


def tally(workspace: Workspace, classes: Sequence[str], manifest: Manifest, units: Sequence[UnitRecord]) -> Tally:
    """Raises CorpusError where a split that training needs has no sample."""
    shards = _shards(units)
    samples: Counter[str] = Counter()
    for shard in shards:
        samples[shard.split if shard.fold < 0 else f"{shard.split}-fold{shard.fold}"] += shard.rows
    needed = [f"train-fold{fold}" for fold in range(manifest.folds)] or ["train", "holdout"]
    if empty := [split for split in needed if not samples[split]]:
        trainable = sum(count for split, count in samples.items() if split not in ("val", "test"))
        raise CorpusError(
            f"no sample is in {', '.join(empty)}: the corpus at {manifest.root!r} has {trainable} to train on; set "
            "another holdout or fewer folds, or bring more samples"
        )
    rejects: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for unit in units:
        for reason, (count, shown) in unit.rejects.items():
            rejects[reason] += count
            examples.setdefault(reason, shown)
    column = "labels" if manifest.task == "multi_label" else "label"
    rows = pa.concat_tables(
        read_index(workspace, shard, ["content_hash", "split", column]).replace_schema_metadata() for shard in shards
    )
    label, without_class = rows.column(column), 0
    if manifest.task == "multi_label":
        without_class = int(pc.sum(pc.equal(pc.list_value_length(label), 0)).as_py() or 0)
        rows = rows.append_column("label", _numbered(label))
        label = pc.list_flatten(label)
    labels = {count["values"]: count["counts"] for count in pc.value_counts(label).to_pylist()}
    return Tally(
        samples=dict(sorted(samples.items())),
        rejects=dict(sorted(rejects.items())),
        classes={name: labels.get(label, 0) for label, name in enumerate(classes)},
        without_class=without_class,
        shards=len(shards),
        duplicates=_duplicates(rows),
        examples=examples,
    )


def write_metadata(
    workspace: Workspace, classes: Sequence[str], manifest: Manifest, units: Sequence[UnitRecord], counts: Tally
) -> None:
    """Write `corpus.json`: `rhostream.loaders.index.corpus_metadata.CorpusMetadata` reads it."""
    shards = _shards(units)
    samples, rejects = sum(counts.samples.values()), sum(counts.rejects.values())
    corpus = {
        "manifest": manifest.to_dict(),
        "task": manifest.task,
        "classes": list(classes),
        "counts": {
            "entries": samples + rejects,
            "samples": samples,
            "rejects": rejects,
            "splits": counts.samples,
            "reasons": counts.rejects,
            "classes": counts.classes,
            **({"without_class": counts.without_class} if manifest.task == "multi_label" else {}),
            "duplicates": asdict(counts.duplicates),
        },
        "shards": [asdict(shard) for shard in shards],
        "fingerprint": fingerprint_of(shards),
    }
    workspace.write_json(METADATA_NAME, corpus)


def _shards(units: Sequence[UnitRecord]) -> list[Shard]:
    return sorted((shard for unit in units for shard, _, _ in unit.shards), key=lambda shard: shard.name)


def _numbered(lists: pa.ChunkedArray) -> pa.Array:
    """Equal lists of labels have equal numbers."""
    texts = pc.binary_join(lists.cast(pa.list_(pa.string())), ",")
    return texts.combine_chunks().dictionary_encode().indices


def _duplicates(rows: pa.Table) -> Duplicates:
    official = pc.is_in(rows.column("split"), pa.array(["val", "test"])).cast(pa.int8())
    groups = (
        rows.append_column("official", official)
        .group_by("content_hash")
        .aggregate([("label", "count"), ("label", "min"), ("label", "max"), ("official", "min"), ("official", "max")])
    )
    groups = groups.filter(pc.greater(groups.column("label_count"), 1))

    def unlike(column: str) -> int:
        differs = pc.not_equal(groups.column(f"{column}_min"), groups.column(f"{column}_max"))
        return int(pc.sum(differs).as_py() or 0)

    return Duplicates(groups=groups.num_rows, labels_differ=unlike("label"), across_official_splits=unlike("official"))
