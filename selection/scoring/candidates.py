"""What is known of the candidates of a super-batch when a selection function scores them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.reference import ContrastiveLoss
from rhostream.loaders.stream import SuperBatch
from rhostream.selection.rules import PairScores
from rhostream.selection.tasks import PairEmbeddings

Need = Literal["il", "logits", "draws", "pairs", "reference"]


@dataclass(frozen=True, kw_only=True)
class ScoredPairs:
    """Embeddings of the candidates, of a corpus of image-text pairs.

    Attributes:
        loss: that the learner is trained with.
        learner: by the model in training; None where the function has not asked for it.
        reference: by the reference model; None where the stream joins no table of it.
    """

    loss: ContrastiveLoss
    learner: PairEmbeddings | None = None
    reference: PairEmbeddings | None = None

    def scores(self, *, learner: float = 0.0, reference: float = 0.0) -> PairScores:
        """The losses of the two models, each times its number; one at 0 is left out."""
        both = ((learner, self.learner), (reference, self.reference))
        return PairScores(loss=self.loss, terms=tuple((weight, pairs) for weight, pairs in both if weight and pairs))


@dataclass(frozen=True, kw_only=True)
class ScoredCandidates:
    """n candidates of C classes. What a function has not asked for may be None.

    Attributes:
        labels: as of the batch.
        il: float32 (n,), irreducible loss in nats; None where the stream joins no IL table.
        losses: float32 (n,), of each candidate under the model in training, as the task says.
        correct: bool (n,), does that model predict the label already?
        logits: float32 (n, C) of that model; None for a task that does not give them.
        draws: float32 (k, n, C), logits of k passes with dropout on (`Scorer.draws`).
        pairs: embeddings; None where the candidates are no image-text pairs.
    """

    labels: Tensor
    il: Tensor | None = None
    losses: Tensor | None = None
    correct: Tensor | None = None
    logits: Tensor | None = None
    draws: Tensor | None = None
    pairs: ScoredPairs | None = None

    @property
    def loss(self) -> Tensor:
        """float32 (n,). Raises ConfigError where there is none, as the other three do."""
        if self.losses is None:
            raise ConfigError("this selection function reads the model's losses: register it with needs={'logits'}")
        return self.losses

    def require_logits(self) -> Tensor:
        if self.logits is None:
            raise ConfigError("this selection function reads the model's outputs: register it with needs={'logits'}")
        return self.logits

    def require_il(self) -> Tensor:
        if self.il is None:
            raise ConfigError("this selection function reads irreducible losses: give the stream an IL table (il=…)")
        return self.il

    def require_draws(self) -> Tensor:
        if self.draws is None:
            raise ConfigError("this selection function reads MC-dropout draws: register it with needs={'draws'}")
        return self.draws

    def require_pairs(self) -> ScoredPairs:
        if self.pairs is None:
            raise ConfigError("this selection function reads embeddings of pairs: register it with needs={'pairs'}")
        return self.pairs


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is known of the candidates of a super-batch, the same on all ranks.

    Attributes:
        super_batch: of the whole job, on the model's device; with no rows in its fields where it is shared out.
        scored: None for uniform sampling.
        score: float32 (n,); None as `scored`.
        positions: int64 (n,), of its candidates in `Part.whole`, where it is shared out.
    """

    super_batch: SuperBatch
    scored: ScoredCandidates | None = None
    score: Tensor | None = None
    positions: npt.NDArray[np.int64] | None = None
