"""How good an IL table is for selection, by its own rows: nobody knows which labels are right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.loaders.index import CorpusMetadata, Shard, ShardRows, concat_labels, read_shard_rows
from rhostream.loaders.reference import Prefilter, open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.schema import IL

_ENOUGH: Final = 100_000  # samples, to estimate shares from
_MOST_SHARDS: Final = 2_000  # to read for that: opening one takes longer than a thousand samples
_MOST_CERTAIN: Final = 0.25  # share of the IL model's predictions that is taken at its word
_WEAK: Final = 0.08  # share of the labels' entropy: selecting by tables below it lost steps, by those above it won some
_STARVED: Final = 0.5  # share of a class


@dataclass(frozen=True, kw_only=True)
class ILQuality:
    """What an IL table tells of a corpus.

    Attributes:
        samples: that it was looked at.
        accuracy: share of the labels, right or wrong, that the IL model predicts.
        explained: share of the labels' entropy that it takes away: 1 - mean IL / entropy of the classes' shares. 0 is
            what a guess by these shares would reach.
        overconfidence: mean confidence less accuracy.
        wrong: share of the labels that are wrong, about; None where the table does not tell how certain its model is.
        ruled_out: share of the samples whose labels the prefilter holds for wrong.
        starved: classes of which it rules out more than half, and how much of each.
    """

    samples: int
    accuracy: float
    explained: float
    overconfidence: float | None
    wrong: float | None
    ruled_out: float
    starved: dict[str, float]

    @property
    def filters(self) -> bool:
        """Is the prefilter mostly right about what it rules out? It rules out wrong labels first, then hard samples."""
        return self.wrong is not None and self.wrong > self.ruled_out / 2

    @property
    def lost(self) -> float | None:
        """Share of the right labels that the prefilter rules out, at the least."""
        if self.wrong is None:
            return None
        return max(0.0, self.ruled_out - self.wrong) / (1 - self.wrong) if self.wrong < 1 else 0.0

    @property
    def weak(self) -> bool:
        """Does it know too little of the labels to select by?"""
        return self.explained < _WEAK

    @property
    def warnings(self) -> list[str]:
        """What would do harm, one sentence each."""
        found = []
        if self.weak:
            found.append(
                f"the IL model is too weak to select by: it explains {max(0.0, self.explained):.0%} of the labels' "
                f"entropy (under {_WEAK:.0%}). More held-out data help most (two folds of the training split train on "
                "all of it), then a larger model or augmentation"
            )
        if not self.filters:
            found.append(
                f"what its filter rules out, {self.ruled_out:.0%}, is mostly not mislabeled"
                + (f" (about {self.wrong:.0%} of the labels are)" if self.wrong is not None else "")
                + ": don't filter or clean by it"
            )
        if self.starved:
            worst = sorted(self.starved.items(), key=lambda item: -item[1])
            named = ", ".join(f"{name} {share:.0%}" for name, share in worst[:3])
            found.append(
                f"its filter rules out more than half of {len(self.starved)} class"
                f"{'es' if len(self.starved) > 1 else ''} ({named}): cleaning by it would lose them"
            )
        return found


def il_quality(
    workspace: Workspace, corpus: CorpusMetadata, il: str, prefilter: Prefilter | None = None
) -> ILQuality | None:
    """Judged by some 100,000 training samples from all over the split.

    Returns:
        None where no sample has a finite IL, of a table that does not tell what its model predicts, and of a
        multi-label corpus.

    Raises:
        IrreducibleLossError: the table does not serve these shards.
    """
    if corpus.task != "classification":
        return None
    prefilter = prefilter or Prefilter()
    table = open_il_table(workspace, corpus, il)
    some = [read_shard_rows(workspace, shard) for shard in _spread(corpus.split("train"))]
    joined = [table.join(rows) for rows in some]
    losses = np.concatenate([part.il for part in joined]).astype(np.float64)
    labels = np.asarray(concat_labels([rows.labels for rows in some]))
    predicted = np.concatenate([part.predicted for part in joined])
    finite = np.isfinite(losses)
    if not finite.any() or (predicted < 0).all():
        return None
    out = np.concatenate(
        [prefilter.rules_out(part, rows.labels, len(corpus.classes)) for rows, part in zip(some, joined, strict=True)]
    )
    counts = np.bincount(labels, minlength=len(corpus.classes))
    shares = counts[counts > 0] / len(labels)
    entropy = float(-(shares * np.log(shares)).sum())
    confidence = _confidence(workspace, some, il)
    right = predicted == labels
    by_class = np.bincount(labels[out], minlength=len(counts)) / np.maximum(counts, 1)
    return ILQuality(
        samples=len(labels),
        accuracy=float(right.mean()),
        explained=1 - float(losses[finite].mean()) / entropy if entropy else 0.0,
        overconfidence=None if confidence is None else float(confidence.mean() - right.mean()),
        wrong=None if confidence is None else _contradicted(right, confidence),
        ruled_out=float(out.mean()),
        starved={corpus.classes[at]: float(by_class[at]) for at in np.flatnonzero(by_class > _STARVED)},
    )


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    """Shards from all over the split, of some 100,000 samples, fewer where thousands of shards hold a few each."""
    samples = sum(shard.rows for shard in shards)
    return list(shards[:: max(1, samples // _ENOUGH, -(-len(shards) // _MOST_SHARDS))])


def _confidence(workspace: Workspace, some: Sequence[ShardRows], il: str) -> npt.NDArray[np.float32] | None:
    """Probability of the class that the IL model predicts; None of a table that was made elsewhere."""
    parts = [rows.shard.scores(il) for rows in some]
    if not all(workspace.exists(part) for part in parts):
        return None
    return np.concatenate([workspace.read_table(part, ["confidence"], IL)["confidence"].to_numpy() for part in parts])


def _contradicted(right: npt.NDArray[np.bool_], confidence: npt.NDArray[np.float32]) -> float:
    """Share of the labels that the IL model contradicts where it is most certain: in a quarter of these rows.

    There, few are errors of its own.
    """
    certain = confidence >= np.quantile(confidence, 1 - _MOST_CERTAIN)
    return float((~right[certain]).mean())
