"""What `--select auto` measures its progress on: a few samples of the training split, kept from training."""

from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode import InputSpec
from rhostream.loaders.index import CorpusMetadata, ShardRows, is_validation_sample
from rhostream.loaders.reference import open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.il import ILQuality
from rhostream.pipeline.models import EvaluationSet

SAMPLES: Final = 512  # kept for validation, about; fewer of a small corpus
_SHARE: Final = 0.05  # of the corpus, at most


def validation_share_of(samples: int) -> float:
    """The share of a training split of so many samples that a run under `auto` does not train on."""
    return min(_SHARE, SAMPLES / samples)


def validation_samples(
    workspace: Workspace,
    corpus: CorpusMetadata,
    il: str,
    quality: ILQuality,
    spec: InputSpec,
    *,
    threads: int,
    exchange: Exchange | None = None,
) -> EvaluationSet:
    """The samples kept for validation; without those that the prefilter rules out, if it is mostly right about them.

    A model that does not learn the wrong labels would look bad on them, and one that does would look good.

    Raises:
        ConfigError: none is left: the corpus is too small, or the prefilter rules out too much.
    """
    shards, classes = corpus.split("train"), len(corpus.classes)
    samples = shards.samples
    share = validation_share_of(samples)
    table = open_il_table(workspace, corpus, il)

    def measured_on(rows: ShardRows) -> npt.NDArray[np.bool_]:
        kept = is_validation_sample(rows.keys.to_pylist(), share)
        if not kept.any():
            return kept
        part = table.join(rows)
        kept &= np.isfinite(part.il)
        if quality.filters:
            kept &= ~quality.prefilter.rules_out(part, rows.labels, classes)
        return kept

    found = EvaluationSet(workspace, shards, spec, among=measured_on, threads=threads, exchange=exchange)
    if len(found) < 2:
        raise ConfigError(
            f"select 'auto': {len(found)} of {samples} training samples can be kept for validation to measure progress "
            f"on: the corpus is too small, or the prefilter rules out too much ({quality.ruled_out:.0%}); name a "
            "selection function"
        )
    return found
