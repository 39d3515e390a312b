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

#: The model's predictions that are taken at their word: this share, and so many at the least.
MOST_CERTAIN: Final = 0.05
FEWEST_CERTAIN: Final = 100
#: By what `il_quality` chooses a prefilter. Raised when it would choose another one: a run goes on under its own alone.
PREFILTER_RULE: Final = 1

_ENOUGH: Final = 100_000  # samples, to estimate shares from
_MOST_SHARDS: Final = 2_000  # to read for that: opening one takes longer than a thousand samples
_RULED_OUT: Final = 2.0  # samples for each label that looks wrong: with it may go as many that are right
_MOST_RULED_OUT: Final = 0.75  # of a class: the likeliest quarter of its samples stays
# Share of the labels' entropy: selecting by tables below it lost steps, by those above it won some. Where wrong labels
# leave little to explain, less is asked for.
_WEAK: Final = 0.08
_WEAK_OF_EXPLAINABLE: Final = 0.25
# Of the labels, drawn anew by the classes' shares: a model that contradicts more of them rather knows nothing itself.
_NOISIEST: Final = 0.8
_HIGHEST: Final = 100.0  # nats; a probability that is not 0 in float64
_MARGIN: Final = 1e-6  # by which the loss that is just kept stays below the threshold, through rounding


@dataclass(frozen=True, kw_only=True)
class ILQuality:
    """What an IL table tells of a corpus.

    Attributes:
        samples: that it was looked at.
        accuracy: share of the labels, right or wrong, that the IL model predicts.
        explained: share of the labels' entropy that it takes away: 1 - mean IL / entropy of the classes' shares. 0 is
            what a guess by these shares would reach.
        explainable: share of that entropy which a model that knows all right labels would take away, where `wrong` of
            the labels are wrong.
        overconfidence: mean confidence less accuracy.
        wrong: share of the labels that are wrong, about; None where the table does not tell how certain its model is.
        prefilter: that the rest is of: the one that was asked about, or the one that this table asks for.
        ruled_out: share of the samples that it rules out.
    """

    samples: int
    accuracy: float
    explained: float
    explainable: float
    overconfidence: float | None
    wrong: float | None
    prefilter: Prefilter
    ruled_out: float

    @property
    def filters(self) -> bool:
        """Is the prefilter at least as often right as not? It rules out wrong labels first, then hard samples."""
        return not self.weak and self.wrong is not None and self.ruled_out <= _RULED_OUT * self.wrong

    @property
    def error(self) -> float:
        """Share of the right labels that the IL model does not predict, about."""
        wrong = self.wrong or 0.0
        return max(0.0, 1 - self.accuracy - wrong) / (1 - wrong) if wrong < 1 else 0.0

    @property
    def lost(self) -> float | None:
        """Share of the right labels that the prefilter rules out, at the least."""
        if self.wrong is None:
            return None
        return max(0.0, self.ruled_out - self.wrong) / (1 - self.wrong) if self.wrong < 1 else 0.0

    @property
    def weak(self) -> bool:
        """Does it know too little of the labels to select by?"""
        return self.explained < self._enough

    @property
    def _enough(self) -> float:
        return min(_WEAK, _WEAK_OF_EXPLAINABLE * self.explainable)

    @property
    def warnings(self) -> list[str]:
        """What would do harm, one sentence each."""
        found = []
        if self.weak:
            found.append(
                f"the IL model is too weak to select by: it explains {max(0.0, self.explained):.1%} of the labels' "
                f"entropy (under {self._enough:.1%}). More held-out data help most (five folds train each model on "
                "four fifths of all), then a larger model or augmentation"
            )
        elif not self.filters:
            found.append(
                f"what its filter rules out, {self.ruled_out:.0%}, is mostly not mislabeled"
                + (f" (about {self.wrong:.0%} of the labels are)" if self.wrong is not None else "")
                + ": don't filter or clean by it"
            )
        return found


def il_quality(
    workspace: Workspace, corpus: CorpusMetadata, il: str, prefilter: Prefilter | None = None
) -> ILQuality | None:
    """Judged by some 100,000 training samples from all over the split.

    Args:
        prefilter: None for the one that this table asks for, by what of it looks wrong. In each class it rules out
            twice the share of labels that look wrong, the least likely first, as far as the IL model predicts another
            class: where few labels are wrong that is little, and where 40% are nearly all that it contradicts.

    Returns:
        None where no sample has a finite IL, of a table that does not tell what its model predicts, and of a
        multi-label corpus.

    Raises:
        IrreducibleLossError: the table does not serve these shards.
    """
    if corpus.task != "classification":
        return None
    table = open_il_table(workspace, corpus, il)
    some = [read_shard_rows(workspace, shard) for shard in _spread(corpus.split("train"))]
    joined = [table.join(rows) for rows in some]
    losses = np.concatenate([part.il for part in joined]).astype(np.float64)
    labels = np.asarray(concat_labels([rows.labels for rows in some]))
    predicted = np.concatenate([part.predicted for part in joined])
    finite = np.isfinite(losses)
    if not finite.any() or (predicted < 0).all():
        return None
    right = predicted == labels
    confidence = _confidence(workspace, some, il)
    wrong = None if confidence is None else _contradicted(right, confidence)
    if prefilter is None:
        prefilter = Prefilter() if wrong is None else _by_class(losses, labels, right, wrong, len(corpus.classes))
    out = np.concatenate(
        [prefilter.rules_out(part, rows.labels, len(corpus.classes)) for rows, part in zip(some, joined, strict=True)]
    )
    counts = np.bincount(labels, minlength=len(corpus.classes))
    shares = counts[counts > 0] / len(labels)
    entropy = float(_entropies(shares).sum())
    return ILQuality(
        samples=len(labels),
        accuracy=float(right.mean()),
        explained=1 - float(losses[finite].mean()) / entropy if entropy else 0.0,
        explainable=1 - _noise_entropy(shares, wrong or 0.0) / entropy if entropy else 0.0,
        overconfidence=None if confidence is None else float(confidence.mean() - right.mean()),
        wrong=wrong,
        prefilter=prefilter,
        ruled_out=float(out.mean()),
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
    """Share of the labels that the IL model contradicts where it is most certain: there few are errors of its own."""
    count = min(len(confidence), max(FEWEST_CERTAIN, round(MOST_CERTAIN * len(confidence))))
    certain = np.argsort(-confidence, kind="stable")[:count]
    return float((~right[certain]).mean())


def _noise_entropy(shares: npt.NDArray[np.float64], wrong: float) -> float:
    """Nats of a label whose right class is known, where so many are drawn anew by the shares that `wrong` are wrong."""
    drawn = min(_NOISIEST, wrong / float(1 - (shares**2).sum()))
    others = _entropies(drawn * shares)
    of_class = others.sum() - others + _entropies(1 - drawn + drawn * shares)
    return float((shares * of_class).sum())


def _entropies(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What each of these probabilities adds to an entropy, in nats."""
    return -shares * np.log(np.maximum(shares, np.finfo(np.float64).tiny))


def _by_class(
    losses: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int32],
    right: npt.NDArray[np.bool_],
    wrong: float,
    classes: int,
) -> Prefilter:
    """Of each class the share that the labels which look wrong ask for; of those never seen, what a guess beats.

    One threshold for all classes would rule out fewer right labels, but most of a rare class, and models learnt slower
    from what it left of the product photographs of benchmarks/unseen_corpora.py.
    """
    share = min(_RULED_OUT * wrong, _MOST_RULED_OUT)
    contradicted = np.where(right | ~np.isfinite(losses), 0.0, losses)
    chance = np.ones(classes)
    for label in np.unique(labels):
        own = np.sort(contradicted[labels == label])[::-1]
        highest_kept = own[min(int(share * len(own)), len(own) - 1)]
        chance[label] = (1 - _MARGIN) * classes * np.exp(-min(highest_kept, _HIGHEST))
    return Prefilter(chance=tuple(chance.tolist()))
