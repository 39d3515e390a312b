"""What `--select auto` measures its progress on: a few samples of the training split, kept from training."""

from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.held_back import held_back
from rhostream.loaders.index import CorpusCard, ShardRows
from rhostream.loaders.join import Prefilter, open_il_table
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.evaluate import EvaluationSet

SAMPLES: Final = 512  # held back, about; fewer of a small corpus
_SHARE: Final = 0.05  # of the corpus, at most


def held_back_share(samples: int) -> float:
    """The share of a training split of so many samples that a run under `auto` does not train on."""
    return min(_SHARE, SAMPLES / samples)


def held_back_set(
    workspace: Workspace, card: CorpusCard, il: str, prefilter: Prefilter, view: View, *, threads: int
) -> EvaluationSet:
    """The samples held back, but for those whose labels the prefilter holds for wrong.

    A model that does not learn the wrong labels would look bad on them, and one that does would look good.

    Raises:
        ConfigError: none is left, in a corpus that is too small.
    """
    shards = card.split("train")
    share = held_back_share(sum(shard.rows for shard in shards))
    table = open_il_table(workspace, card, il)

    def trusted(rows: ShardRows) -> npt.NDArray[np.bool_]:
        held = held_back(rows.keys.to_pylist(), share)
        joined = table.join(rows)
        return held & np.isfinite(joined.il) & ~prefilter.rules_out(joined, rows.labels, len(card.classes))

    found = EvaluationSet(workspace, shards, view, among=trusted, threads=threads)
    if len(found) < 2:
        raise ConfigError(
            f"select 'auto': {len(found)} of {sum(shard.rows for shard in shards)} training samples can be held back "
            "to measure progress on: the corpus is too small, name a selection function"
        )
    return found
