"""What the units of `rho shards` add up to, and `corpus.json`, which says so."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import CorpusError
from rhostream.loaders.decode import TextSpec, keep_tokenizer
from rhostream.loaders.index import (
    METADATA_NAME,
    Appended,
    ShardList,
    list_in_card,
    read_index,
    remove_other_lists,
)
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import PAIRS_MODEL, TEXT_IL_MODEL, TEXT_MODEL, Manifest, TaskName
from rhostream.pipeline.jobs import read_ahead
from rhostream.pipeline.shards.hash_buckets import HASH, bring_together
from rhostream.pipeline.shards.refusals import Refusals, add_refusals
from rhostream.pipeline.shards.scratch import Scratch
from rhostream.pipeline.shards.unit import UnitRecord

_AT_ONCE: Final = 8  # indexes being read


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Groups of equal samples: how many, with unlike labels, and on both sides of an official split.

    Images are equal byte for byte, texts without regard to white space and case. Of pairs, the images are compared, and
    captions take the place of labels.
    """

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
        empty_captions: pairs without a word in their caption.
        common_captions: pairs whose caption so many have that the split does not follow it.
    """

    samples: dict[str, int]
    rejects: dict[str, int]
    classes: dict[str, int]
    without_class: int
    empty_captions: int = 0
    common_captions: int = 0
    shards: int
    duplicates: Duplicates = field(default_factory=Duplicates)
    examples: dict[str, str] = field(default_factory=dict)


def tally(
    workspace: Workspace,
    classes: Sequence[str],
    manifest: Manifest,
    units: Sequence[UnitRecord],
    scratch: Scratch,
    *,
    fields: Sequence[str],
    common_captions: int = 0,
) -> Tally:
    """Read the index of every shard, and count.

    Args:
        scratch: for what does not fit into memory.

    Raises:
        CorpusError: a split that training needs has no sample.
    """
    shards = _shards(units)
    samples: Counter[str] = Counter()
    for shard in shards:
        samples[shard.split_and_fold] += shard.rows
    needed = [f"train-fold{fold}" for fold in range(manifest.folds)] or ["train"]
    if manifest.holdout or not manifest.folds:
        needed.append("holdout")
    if empty := [split for split in needed if not samples[split]]:
        trainable = sum(count for split, count in samples.items() if split not in ("val", "test"))
        raise CorpusError(
            f"no sample is in {', '.join(empty)}: {manifest.place} has {trainable} to train on; set "
            "another holdout or fewer folds, or bring more samples"
        )
    rejects: Refusals = {}
    for unit in units:
        add_refusals(rejects, unit.rejects)
    counted = _Counted(classes=len(classes))
    duplicates = _duplicates(bring_together(_counting(workspace, shards, manifest.task, fields, counted), scratch))
    return Tally(
        samples=dict(sorted(samples.items())),
        rejects={reason: count for reason, (count, _) in sorted(rejects.items())},
        classes=dict(zip(classes, counted.by_class.tolist(), strict=True)),
        without_class=counted.without_class,
        empty_captions=counted.empty_captions,
        common_captions=common_captions,
        shards=len(shards),
        duplicates=duplicates,
        examples={reason: shown for reason, (_, shown) in rejects.items()},
    )


def write_metadata(
    workspace: Workspace,
    classes: Sequence[str],
    manifest: Manifest,
    units: Sequence[UnitRecord],
    counts: Tally,
    appended: Sequence[Appended] = (),
    *,
    fields: Sequence[str],
) -> None:
    """Write `corpus.json`: `rhostream.loaders.index.corpus_metadata.CorpusMetadata` reads it."""
    shards = _shards(units)
    listed = list_in_card(workspace, shards)
    samples, rejects = sum(counts.samples.values()), sum(counts.rejects.values())
    corpus = {
        "manifest": _of_texts(workspace, manifest) if "text" in fields else manifest.to_dict(),
        "task": manifest.task,
        **({} if fields == ("image",) else {"fields": list(fields)}),
        "classes": list(classes),
        "counts": {
            "entries": samples + rejects,
            "samples": samples,
            "rejects": rejects,
            "splits": counts.samples,
            "reasons": counts.rejects,
            "classes": counts.classes,
            **({"without_class": counts.without_class} if manifest.task == "multi_label" else {}),
            **_of_captions(counts, manifest),
            "duplicates": asdict(counts.duplicates),
        },
        **({"appended": [asdict(each) for each in appended]} if appended else {}),
        "shards": listed,
        "fingerprint": shards.fingerprint(),
    }
    workspace.write_json(METADATA_NAME, corpus)
    remove_other_lists(workspace, listed)


def _of_captions(counts: Tally, manifest: Manifest) -> dict[str, int]:
    if manifest.task != "pairs":
        return {}
    return {"empty_captions": counts.empty_captions, "common_captions": counts.common_captions}


def _of_texts(workspace: Workspace, manifest: Manifest) -> dict[str, Any]:
    """The manifest, with models for texts or pairs unless it names others, and its tokenizer in the workspace."""
    values, spec = manifest.to_dict(), TextSpec.from_dict(manifest.text)
    keep_tokenizer(workspace, spec)
    il, target = (PAIRS_MODEL, PAIRS_MODEL) if manifest.task == "pairs" else (TEXT_IL_MODEL, TEXT_MODEL)
    usual = {"il": {"model": il}, "train": {"model": target}}
    return values | {"text": spec.to_dict()} | {table: given | values[table] for table, given in usual.items()}


def _shards(units: Sequence[UnitRecord]) -> ShardList:
    return ShardList.of(sorted((shard for unit in units for shard, _, _ in unit.shards), key=lambda shard: shard.name))


class _Counted:
    """Samples by class, int64 (classes,), those without any, and pairs without a caption."""

    def __init__(self, classes: int) -> None:
        self.by_class = np.zeros(classes, np.int64)
        self.without_class = self.empty_captions = 0

    def add(self, labels: pa.Array) -> None:
        if pa.types.is_string(labels.type):
            self.empty_captions += int(pc.sum(pc.equal(pc.utf8_trim_whitespace(labels), "")).as_py() or 0)
            return
        if pa.types.is_list(labels.type):
            self.without_class += int(pc.sum(pc.equal(pc.list_value_length(labels), 0)).as_py() or 0)
            labels = pc.list_flatten(labels)
        self.by_class += np.bincount(labels.to_numpy(), minlength=len(self.by_class))


def _counting(
    workspace: Workspace, shards: ShardList, task: TaskName, fields: Sequence[str], counted: _Counted
) -> Iterator[pa.Table]:
    """Of each shard what `_duplicates` compares: content hash, label and kind of split, as numbers."""
    column = {"multi_label": "labels", "pairs": "text"}.get(task, "label")
    content = "normalized_hash" if fields[0] == "text" else "content_hash"
    columns = [content, "split", column]
    for rows in read_ahead(partial(read_index, workspace, columns=columns), shards, _AT_ONCE):
        labels = rows[column].combine_chunks()
        counted.add(labels)
        hashes = np.frombuffer(bytes.fromhex("".join(rows[content].to_pylist())), ">u8").astype(np.uint64)
        yield pa.table(
            {
                HASH: hashes[::2],
                "rest": hashes[1::2],
                "label": labels if task == "classification" else _numbered(labels),
                "official": pc.is_in(rows["split"], pa.array(["val", "test"])).cast(pa.int8()),
            }
        )


def _numbered(lists: pa.Array) -> pa.Array:
    """A number for each list of labels, or caption, equal where they are."""
    return pa.array(
        [int.from_bytes(sha256(repr(each).encode()).digest()[:8], "big") >> 1 for each in lists.to_pylist()]
    )


def _duplicates(tables: Iterable[pa.Table]) -> Duplicates:
    found = Duplicates()
    for rows in tables:
        groups = rows.group_by([HASH, "rest"]).aggregate(
            [("label", "count"), ("label", "min"), ("label", "max"), ("official", "min"), ("official", "max")]
        )
        groups = groups.filter(pc.greater(groups.column("label_count"), 1))
        found = Duplicates(
            groups=found.groups + groups.num_rows,
            labels_differ=found.labels_differ + _unlike(groups, "label"),
            across_official_splits=found.across_official_splits + _unlike(groups, "official"),
        )
    return found


def _unlike(groups: pa.Table, column: str) -> int:
    return int(pc.sum(pc.not_equal(groups.column(f"{column}_min"), groups.column(f"{column}_max"))).as_py() or 0)
