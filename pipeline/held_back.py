"""What `--select auto` measures its progress on: a few samples of the training split, kept from training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.held_back import held_back
from rhostream.loaders.index import CorpusCard, ShardRows, read_shard_rows
from rhostream.loaders.join import ILTable, Prefilter, open_il_table
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.evaluate import EvaluationSet

SAMPLES: Final = 512  # held back, about; fewer of a small corpus
_SHARE: Final = 0.05  # of the corpus, at most
_ENOUGH: Final = 100_000  # samples, to estimate shares from
_MOST_CERTAIN: Final = 0.25  # share of the IL model's predictions that is taken at its word


def held_back_share(samples: int) -> float:
    """The share of a training split of so many samples that a run under `auto` does not train on."""
    return min(_SHARE, SAMPLES / samples)


@dataclass(frozen=True, kw_only=True)
class HeldBack:
    """What is held back, and what the IL table says of the corpus.

    Attributes:
        samples: to measure the loss on.
        ruled_out: share of the training samples whose labels the prefilter holds for wrong.
        wrong: share of the labels that are wrong, about.
    """

    samples: EvaluationSet
    ruled_out: float
    wrong: float


def held_back_set(
    workspace: Workspace, card: CorpusCard, il: str, prefilter: Prefilter, view: View, *, threads: int
) -> HeldBack:
    """The samples held back; without those that the prefilter rules out, if it is mostly right about them.

    A model that does not learn the wrong labels would look bad on them, and one that does would look good.

    Raises:
        ConfigError: none is left, in a corpus that is too small.
    """
    shards = card.split("train")
    share = held_back_share(sum(shard.rows for shard in shards))
    table = open_il_table(workspace, card, il)

    def ruled_out(rows: ShardRows) -> npt.NDArray[np.bool_]:
        return prefilter.rules_out(table.join(rows), rows.labels, len(card.classes))

    before = np.cumsum([0, *(shard.rows for shard in shards)])
    some = [read_shard_rows(workspace, shard) for shard, rows in zip(shards, before, strict=False) if rows < _ENOUGH]
    out = float(np.concatenate([ruled_out(rows) for rows in some]).mean())
    wrong = _wrong_share(workspace, table, some, il)
    right = out if wrong is None else wrong

    def measured_on(rows: ShardRows) -> npt.NDArray[np.bool_]:
        held = held_back(rows.keys.to_pylist(), share) & np.isfinite(table.join(rows).il)
        return held & ~ruled_out(rows) if right > out / 2 else held

    found = EvaluationSet(workspace, shards, view, among=measured_on, threads=threads)
    if len(found) < 2:
        raise ConfigError(
            f"select 'auto': {len(found)} of {sum(shard.rows for shard in shards)} training samples can be held back "
            "to measure progress on: the corpus is too small, name a selection function"
        )
    return HeldBack(samples=found, ruled_out=out, wrong=right)


def _wrong_share(workspace: Workspace, table: ILTable, some: Sequence[ShardRows], il: str) -> float | None:
    """Share of the labels that the IL model contradicts where it is most certain: in a quarter of these rows.

    There, hardly any is an error of its own. None where the table does not tell how certain its model is.
    """
    if not all(workspace.exists(rows.shard.scores(il)) for rows in some):
        return None  # made elsewhere
    confidence = np.concatenate(
        [workspace.read_table(rows.shard.scores(il), ["confidence"])["confidence"].to_numpy() for rows in some]
    )
    contradicted = np.concatenate([table.join(rows).predicted != rows.labels for rows in some])
    return float(contradicted[confidence >= np.quantile(confidence, 1 - _MOST_CERTAIN)].mean())
