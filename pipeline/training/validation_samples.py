"""What `--select auto` measures its progress on: a few samples of the training split, kept from training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ImageSpec
from rhostream.loaders.index import CorpusMetadata, Shard, ShardRows, is_validation_sample, read_shard_rows
from rhostream.loaders.reference import Prefilter, open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.models import EvaluationSet
from rhostream.schema import IL

SAMPLES: Final = 512  # kept for validation, about; fewer of a small corpus
_SHARE: Final = 0.05  # of the corpus, at most
_ENOUGH: Final = 100_000  # samples, to estimate shares from
_MOST_CERTAIN: Final = 0.25  # share of the IL model's predictions that is taken at its word


def validation_share_of(samples: int) -> float:
    """The share of a training split of so many samples that a run under `auto` does not train on."""
    return min(_SHARE, SAMPLES / samples)


@dataclass(frozen=True, kw_only=True)
class ValidationSamples:
    """What is kept for validation, and what the IL table says of the corpus.

    Attributes:
        samples: to measure the loss on.
        ruled_out: share of the training samples whose labels the prefilter holds for wrong.
        wrong: share of the labels that are wrong, about.
    """

    samples: EvaluationSet
    ruled_out: float
    wrong: float


def validation_samples(
    workspace: Workspace, corpus: CorpusMetadata, il: str, prefilter: Prefilter, spec: ImageSpec, *, threads: int
) -> ValidationSamples:
    """The samples kept for validation; without those that the prefilter rules out, if it is mostly right about them.

    A model that does not learn the wrong labels would look bad on them, and one that does would look good.

    Raises:
        ConfigError: none is left: the corpus is too small, or the prefilter rules out too much.
    """
    shards, classes = corpus.split("train"), len(corpus.classes)
    share = validation_share_of(sum(shard.rows for shard in shards))
    table = open_il_table(workspace, corpus, il)
    some = [read_shard_rows(workspace, shard) for shard in _spread(shards)]
    joined = [(rows, table.join(rows)) for rows in some]
    out = float(np.concatenate([prefilter.rules_out(part, rows.labels, classes) for rows, part in joined]).mean())
    contradicted = np.concatenate([part.predicted != rows.labels for rows, part in joined])
    wrong = _wrong_share(workspace, some, contradicted, il)
    if wrong is None:
        wrong = out / 2  # of a table that does not tell how certain its model is, half is believed
    filters = wrong > out / 2
    known = {rows.shard.name: part for rows, part in joined}

    def measured_on(rows: ShardRows) -> npt.NDArray[np.bool_]:
        held = is_validation_sample(rows.keys.to_pylist(), share)
        if not held.any():
            return held
        part = known.get(rows.shard.name) or table.join(rows)
        held &= np.isfinite(part.il)
        if filters:
            held &= ~prefilter.rules_out(part, rows.labels, classes)
        return held

    found = EvaluationSet(workspace, shards, spec, among=measured_on, threads=threads)
    if len(found) < 2:
        raise ConfigError(
            f"select 'auto': {len(found)} of {sum(shard.rows for shard in shards)} training samples can be kept for "
            f"validation to measure progress on: the corpus is too small, or the prefilter rules out too much "
            f"({out:.0%}); name a selection function"
        )
    return ValidationSamples(samples=found, ruled_out=out, wrong=wrong)


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    """Shards from all over the split, of some 100,000 samples."""
    return list(shards[:: max(1, sum(shard.rows for shard in shards) // _ENOUGH)])


def _wrong_share(
    workspace: Workspace, some: Sequence[ShardRows], contradicted: npt.NDArray[np.bool_], il: str
) -> float | None:
    """Share of the labels that the IL model contradicts where it is most certain: in a quarter of these rows.

    There, few are errors of its own. None where the table does not tell how certain its model is.
    """
    parts = [rows.shard.scores(il) for rows in some]
    if not all(workspace.exists(part) for part in parts):
        return None  # made elsewhere
    tables = [workspace.read_table(part, ["confidence"], IL) for part in parts]
    confidence = np.concatenate([table["confidence"].to_numpy() for table in tables])
    return float(contradicted[confidence >= np.quantile(confidence, 1 - _MOST_CERTAIN)].mean())
