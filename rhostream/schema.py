"""The columns of every table in a workspace: what other people's tools may rely on.

All tables are flat, typed Parquet with zstd (`metrics` is JSON lines), readable by DuckDB on its own.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

#: One row per sample of a shard, in shard order: `index/<shard>.parquet`. The manifest's extra columns follow.
SAMPLES: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train | holdout | val | test
        pa.field("fold", pa.int16(), nullable=False),  # -1 where the corpus has no folds
        pa.field("shard", pa.string(), nullable=False),  # "train-000000"
        pa.field("row", pa.int32(), nullable=False),  # position in the shard
        pa.field("offset", pa.int64(), nullable=False),  # first byte of the image (or text) inside the tar
        pa.field("size", pa.int64(), nullable=False),  # its bytes
        pa.field("ext", pa.string(), nullable=False),  # "jpg", of the real format, no dot
        pa.field("label", pa.int32(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # the source's own name of the sample
        pa.field("content_hash", pa.string(), nullable=False),  # `content_hash` of what is stored
        pa.field("width", pa.int32(), nullable=False),  # pixels, as shown (after EXIF rotation)
        pa.field("height", pa.int32(), nullable=False),
    ]
)

#: In every table of a multi-label corpus, what stands for a column of one label: a list, empty where there is none.
#: What a model predicts of one class is left out.
MULTI_LABEL: Final[dict[str, pa.Field | None]] = {
    "label": pa.field("labels", pa.list_(pa.int32()), nullable=False),  # ascending
    "class": pa.field("classes", pa.list_(pa.string()), nullable=False),  # in the order of `labels`
    "predicted": None,
    "confidence": None,
}


#: In the index of a corpus of image-text pairs, beside the columns of the image; there is no label.
PAIR: Final[tuple[pa.Field, ...]] = (
    pa.field("text", pa.string(), nullable=False),  # the caption, as found
    pa.field("text_hash", pa.string(), nullable=False),  # of the caption without regard to white space and case
)

#: The columns of tables that tell of labels, and what a model predicts: a corpus of pairs has none of them.
_LABELED: Final = ("label", "class", "predicted", "confidence", "entropy")

#: What a reference model says of a pair, in the place of what an IL model predicts. The embeddings are normalized.
_REFERENCE: Final[tuple[pa.Field, ...]] = (
    pa.field("similarity", pa.float32(), nullable=False),  # cosine of the pair's two embeddings
    pa.field("rank", pa.int32(), nullable=False),  # of the own caption among those compared with; 1 is the best
    pa.field("compared", pa.int32(), nullable=False),  # other captions that it was compared with
    pa.field("image_embedding", pa.list_(pa.float16()), nullable=False),
    pa.field("text_embedding", pa.list_(pa.float16()), nullable=False),
)


#: In the index of a corpus of texts, what stands for `width` and `height`. `offset` to `content_hash` are the text's.
TEXT: Final[tuple[pa.Field, ...]] = (
    pa.field("characters", pa.int32(), nullable=False),
    pa.field("excerpt", pa.string(), nullable=False),  # how it begins, on one line
    pa.field("normalized_hash", pa.string(), nullable=False),  # of the text without regard to white space and case
)


def samples_of(fields: Sequence[str], task: str = "classification") -> pa.Schema:
    """The columns of the index of a corpus whose samples have these fields: the first one's, and those of all."""
    table = of_task(SAMPLES, task)
    if "text" in fields[1:]:
        return pa.schema([*table, *PAIR])
    if fields[0] != "text":
        return table
    return pa.schema([*(field for field in table if field.name not in ("width", "height")), *TEXT])


def of_task(table: pa.Schema, task: str) -> pa.Schema:
    """The columns of a table of this module in a corpus of this task: "classification", "multi_label" or "pairs"."""
    if task == "pairs" and "selected" not in table.names:  # what a run records has a label of 0
        kept = [field for field in table if field.name not in _LABELED]
        return pa.schema([*kept, *(_REFERENCE if "il" in table.names and "entropy" in table.names else ())])
    if task != "multi_label":
        return table
    fields = (MULTI_LABEL.get(field.name, field) for field in table)
    return pa.schema([field for field in fields if field is not None])


#: One row per shard, in name order: what `corpus.json` names as its list of shards, where there are many.
SHARDS: Final = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("fold", pa.int16(), nullable=False),  # -1 where the corpus has no folds
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # identifies keys, labels and contents
        pa.field("source", pa.string(), nullable=False),  # of a tar that lies elsewhere; "" of one in the workspace
    ]
)

#: One row per refused entry of a slice of the listing: `rejects/<unit>.parquet`.
REJECTS: Final = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

#: Every value of `rejects.reason`, and what it means.
REJECT_REASONS: Final[dict[str, str]] = {
    "missing": "the entry is listed, its file (or text) is not there",
    "unreadable": "the file is there and cannot be read (permissions, I/O error)",
    "empty": "zero bytes, or a text of nothing but white space",
    "truncated": "the image ends, or is damaged, before its last pixel",
    "not_an_image": "no known image format",
    "html": "a web page in place of the image",
    "not_utf8": "a text that is not UTF-8",
    "nul_bytes": "a text with NUL bytes in it",
    "too_long": "a text of more bytes than `max_text_bytes`",
    "decompression_bomb": "more pixels than `max_pixels`, or a JPEG of more than 100 scans",
    "label_missing": "no label for this entry",
    "caption_missing": "an image without a caption; an empty caption is one",
    "label_unknown": "a label that is not among the classes",
    "label_out_of_range": "a label number below 0 or beyond the last class",
    "label_clean_only": "only a clean label, which is never trained on (Clothing-1M)",
    "duplicate_key": "another entry has the same key",
    "excluded": "the manifest's clean list leaves it out",
    "straddling": "a pair whose image, or rare caption, stands on the other side of the split, too",
    "download_failed": "the tool that fetched the corpus reports that this entry failed",
}

#: One row per training sample of a clean list, which a manifest's `clean_list` applies. The columns up to `action` are
#: named and typed as cleanlab has them, where it has them.
CLEAN_LIST: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("is_label_issue", pa.bool_(), nullable=False),
        pa.field("label_quality", pa.float32()),  # the IL model's probability of the given label
        pa.field("given_label", pa.int32(), nullable=False),
        pa.field("predicted_label", pa.int32()),  # null where the IL model has not scored it
        pa.field("given_class", pa.string(), nullable=False),
        pa.field("predicted_class", pa.string()),
        pa.field("confidence", pa.float32()),  # probability of `predicted_label`
        pa.field("il", pa.float32()),  # nats
        pa.field("reason", pa.string()),  # see `rhostream.pipeline.explain.reasons`; null where no run was named
        pa.field("action", pa.string(), nullable=False),  # one of CLEAN_ACTIONS
        pa.field("label", pa.int32(), nullable=False),  # to train with
        pa.field("class", pa.string(), nullable=False),
    ]
)

#: The same of image-text pairs, which have no other class to be given.
CLEAN_LIST_OF_PAIRS: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),  # the caption
        pa.field("is_label_issue", pa.bool_(), nullable=False),  # is it likely another's?
        pa.field("label_quality", pa.float32()),  # probability of the caption, by the reference model among a thousand
        pa.field("similarity", pa.float32()),  # null where the reference model has not scored it, as the next two
        pa.field("beaten_by", pa.float32()),  # share of the other captions that fit the image as well
        pa.field("il", pa.float32()),  # nats
        pa.field("reason", pa.string()),  # as of CLEAN_LIST
        pa.field("action", pa.string(), nullable=False),  # keep or drop
        pa.field("class", pa.string(), nullable=False),  # empty
    ]
)

#: Every value of a clean list's `action`.
CLEAN_ACTIONS: Final[dict[str, str]] = {
    "keep": "as it is",
    "relabel": "with the label of `class`",
    "drop": "becomes a reject with the reason excluded",
}

#: One row per scored sample, row-aligned with the shard: `il/<name>/scores/<shard>.parquet`.
IL: Final = pa.schema(
    [
        pa.field("il_model", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("il", pa.float32(), nullable=False),  # nats
        pa.field("predicted", pa.int32(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),  # probability of `predicted`
        pa.field(
            "entropy", pa.float32(), nullable=False
        ),  # of the scoring model's probabilities, nats; multi-label: mean
        pa.field("in_sample", pa.bool_(), nullable=False),  # was the scoring model trained on this sample?
    ]
)

#: One row per text, row-aligned with the shard: `tokens/<name>/rows/<shard>.parquet`.
TOKENS: Final = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("ids", pa.list_(pa.int32()), nullable=False),  # of its tokens, without padding
    ]
)

#: One row per sample, row-aligned with the shard: `core_sets/<name>/rows/<shard>.parquet`.
CORE_SETS: Final = pa.schema(
    [
        pa.field("core_set", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("entropy", pa.float32(), nullable=False),  # of the proxy, nats
        pa.field("kept", pa.bool_(), nullable=False),
    ]
)

#: One row per training sample, row-aligned with the shard: `clusters/<name>/rows/<shard>.parquet`.
CLUSTERS: Final = pa.schema(
    [
        pa.field("clustering", pa.string(), nullable=False),  # name of the clusters
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),  # 0 is the first
        pa.field("similarity", pa.float32(), nullable=False),  # cosine of the embedding and the cluster's center
    ]
)

#: One row per candidate of a training run: `runs/<run>/ledger/*.parquet`.
LEDGER: Final = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),  # 1 is the first
        pa.field("rank", pa.int16(), nullable=False),  # 0; in older runs that of the process
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("loss", pa.float32()),  # nats; null where the candidate was not scored
        pa.field("il", pa.float32()),  # nats; null where the run joins no IL table
        pa.field("score", pa.float32()),
        pa.field("correct", pa.bool_()),  # did the model in training already predict the label?
        pa.field("selected", pa.bool_(), nullable=False),
        pa.field("selection", pa.string(), nullable=False),  # what was chosen by: "rho_loss", "uniform", …
        pa.field("weight", pa.float32()),  # of a selected one's loss in its batch; null where it was not selected
        # Step that a selected one is trained in: `step`, or a later one where batches fill from several super-batches.
        pa.field("trained", pa.int64()),
        pa.field(
            "reason", pa.string()
        ),  # one of UNSCORED_REASONS where it could not be scored or trained on, else null
    ]
)

#: Every value of `ledger.reason`.
UNSCORED_REASONS: Final[dict[str, str]] = {
    "filtered": "ruled out by its irreducible loss before it was read",
    "il_missing": "no irreducible loss, and the run says on_missing=drop",
    "not_in_core_set": "left out of the core set that the run trains on",
    "validation": "kept for the validation that the run decides by (select=auto)",
    "unreadable": "it could not be read or decoded during training",
    "too_few": "fewer than two candidates of its super-batch could be read: no step was taken",
    "not_needed": "the selection function needs no score (uniform)",
}

#: The ledger rolled up, one row per sample that a run has drawn: `runs/<run>/history/rank<rank>.parquet`.
HISTORY: Final = pa.schema(
    [
        pa.field("run", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("drawn", pa.int32(), nullable=False),  # times a candidate
        pa.field("selected", pa.int32(), nullable=False),  # times
        pa.field("scored", pa.int32(), nullable=False),  # times it had a score
        pa.field("filtered", pa.int32(), nullable=False),  # times, by `ledger.reason`
        pa.field("il_missing", pa.int32(), nullable=False),
        pa.field("set_aside", pa.int32(), nullable=False),  # validation or not_in_core_set
        pa.field("unreadable", pa.int32(), nullable=False),
        pa.field("latest_step", pa.int64(), nullable=False),  # when it was last drawn
        pa.field("scored_step", pa.int64()),  # when it was last scored; null where never
        pa.field("latest_loss", pa.float32()),  # nats, when it was last scored, as the next two
        pa.field("latest_correct", pa.bool_()),
        pa.field("latest_selected", pa.bool_()),
        pa.field("il", pa.float32()),  # nats; null where the run joins no IL table
    ]
)

#: What a run is charged for.
COSTS: Final[dict[str, str]] = {
    "load": "reading and decoding candidates, as far as the training waits for it; decoding processes",
    "score": "the scoring pass, and what is trained for its sake alone",
    "auto": "the validation that `--select auto` decides by",
    "train": "forward and backward pass, and the optimizer",
    "evaluate": "measuring test accuracy for the report: left out of all totals",
    "il_train": "this run's share of training the IL model",
    "il_score": "this run's share of scoring the corpus with it",
}

#: What costs are measured in.
COST_UNITS: Final[dict[str, str]] = {
    "seconds": "wall clock, of each process of a job",
    "cpu_seconds": "of this process, all its threads and the processes that it starts, user and system",
    "flops": "of matrix products, convolutions and attention, counted as executed; the optimizer's are not counted",
}

#: The lines of `runs/<run>/metrics.jsonl`; null where a line does not measure it.
#: The view `metrics` adds METRICS_SO_FAR.
METRICS: Final = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("step", pa.int64()),
        pa.field("epoch", pa.int32()),
        *(pa.field(f"{unit}_{cost}", pa.float64()) for unit in COST_UNITS for cost in COSTS),
        pa.field("il_runs", pa.int64()),  # that share the IL model: il_train and il_score are one part in so many
        pa.field("decision", pa.string()),  # what `--select auto` does and why
        pa.field("learning_rate", pa.float64()),
        pa.field("train_loss", pa.float64()),
        pa.field("test_loss", pa.float64()),
        # Multi-label: share of samples of which every class is right; pairs: recall@10, the mean of both ways.
        pa.field("test_accuracy", pa.float64()),
        pa.field("test_mcc", pa.float64()),  # Matthews correlation, in [-1, 1]; null but for one class a sample
        pa.field("test_f1", pa.float64()),  # mean over the classes of F1; null but for one class a sample
        pa.field(
            "test_map", pa.float64()
        ),  # mean average precision over the classes; null but for a multi-label corpus
        # Of pairs: share of the images that are classified rightly by prompts; null where that was not asked for.
        pa.field("test_zero_shot", pa.float64()),
        *(  # of pairs: share of the images whose caption is among the k most alike, and the other way
            pa.field(f"{way}_r{k}", pa.float64()) for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)
        ),
        pa.field("candidates", pa.int64()),
        pa.field("selected", pa.int64()),
        pa.field("filtered", pa.int64()),  # candidates passed over, by reason
        pa.field("il_missing", pa.int64()),
        pa.field("not_in_core_set", pa.int64()),
        pa.field("validation", pa.int64()),
        pa.field("unreadable", pa.int64()),
        pa.field("left_over", pa.int64()),  # at the ends of epochs, too few for a super-batch: nobody's candidates
        pa.field("candidates_mislabeled", pa.float64()),  # share, where clean_label is known
        pa.field("selected_mislabeled", pa.float64()),
        pa.field("candidates_correct", pa.float64()),  # share already predicted correctly
        pa.field("selected_correct", pa.float64()),
    ]
)

#: The sum of all costs but `evaluate`, by unit.
METRICS_SO_FAR: Final = pa.schema([pa.field(f"{unit}_so_far", pa.float64()) for unit in COST_UNITS])
