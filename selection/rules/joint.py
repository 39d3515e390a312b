"""Image-text pairs chosen together: what a pair teaches depends on the others of its batch (JEST: arXiv 2406.17711).

Legend: n pairs, z_ij the logit of image i with text j; S a sum of losses over models, of the learner, say, less that of
the reference.
"""

from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.reference import ContrastiveLoss
from rhostream.selection.rules.rule import Chosen, Rule, unweighted
from rhostream.selection.tasks import PairEmbeddings

#: Chunks of a batch: the paper's, by the loss.
_CHUNKS: Final[dict[ContrastiveLoss, int]] = {"sigmoid": 16, "softmax": 2}


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """What n pairs are worth, alone and together.

    Attributes:
        loss: that the learner is trained with.
        terms: weights and embeddings of the models whose losses are summed: (1, the learner's) and (-1, the
            reference's), say. At least one.
    """

    loss: ContrastiveLoss
    terms: tuple[tuple[float, PairEmbeddings], ...]

    def __len__(self) -> int:
        return len(self.terms[0][1])

    def alone(self) -> Tensor:
        """float32 (n,), nats: of each pair in the batch of all n."""
        return torch.stack([weight * pairs.losses(self.loss) for weight, pairs in self.terms]).sum(0)

    def conditionals(self) -> "Conditionals":
        """Of each pair beside those that are chosen already: none yet."""
        return Conditionals(self)


@dataclass
class Conditionals:
    """What each pair adds to a batch to which others are `add`ed chunk by chunk.

    Sigmoid: S_ii + Σ_{k in batch} (S_ki + S_ik), by which the sum of S over the batch grows. Softmax: the sum over the
    models of weight · (−z_ii + ½ LSE_{j in batch} z_ij + ½ LSE_{j in batch} z_ji), without the two where the batch is
    empty. Memory: (n, chunk) numbers, never (n, n).
    """

    scores: PairScores
    _sums: Tensor = field(init=False)
    _log_sums: list[Tensor] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        sigmoid = self.scores.loss == "sigmoid"
        terms = [(weight, -pairs.own()) for weight, pairs in self.scores.terms]
        self._sums = torch.stack([weight * (F.softplus(own) if sigmoid else own) for weight, own in terms]).sum(0)

    def __call__(self) -> Tensor:
        """float32 (n,), nats. Of a pair in the batch it means nothing."""
        if self._log_sums is None:
            return self._sums
        together = [weight * each for (weight, _), each in zip(self.scores.terms, self._log_sums, strict=True)]
        return self._sums + torch.stack(together).sum((0, 1)) / 2

    def add(self, positions: Tensor) -> None:
        """Add the pairs at these positions, int64, to the batch."""
        by_model = [
            (weight, pairs.logits(texts=positions), pairs.logits(images=positions).T)
            for weight, pairs in self.scores.terms
        ]
        if self.scores.loss == "sigmoid":
            for weight, with_texts, with_images in by_model:
                self._sums = self._sums + weight * (F.softplus(with_texts) + F.softplus(with_images)).sum(1)
            return
        new = [torch.stack([each.logsumexp(1) for each in both]) for _, *both in by_model]
        before = self._log_sums
        self._log_sums = new if before is None else [torch.logaddexp(*each) for each in zip(before, new, strict=True)]


class Joint(Rule):
    """n_b pairs chosen jointly, without replacement, in chunks (arXiv 2406.17711, Algorithm 1).

    A chunk is drawn in proportion to exp of what each pair adds to the chunks before it (`Conditionals`), the first one
    by the pairs alone. Adding Gumbel noise and taking the highest is the same (Kool et al., 2019), and never leaves
    log space. Chosen ones come in the order in which they were drawn.

    Args:
        chunks: of a batch; 0 takes the paper's, 16 for the sigmoid loss and 2 for the softmax.

    Raises:
        ConfigError: less than none.
    """

    def __init__(self, chunks: int = 0) -> None:
        if chunks < 0:
            raise ConfigError(f"chunks {chunks}: give 1 or more, or 0 for the paper's")
        self.chunks = chunks

    def choose(self, score: Tensor, labels: Tensor, at_most: int, generator: torch.Generator) -> Chosen:
        """Raises ConfigError: see `choose_pairs`."""
        raise ConfigError(
            "the rule joint chooses image-text pairs by what they are worth together: use it with learnability, "
            "easy_reference or hard_learner, and no floor"
        )

    def choose_pairs(self, scores: PairScores, at_most: int, generator: torch.Generator) -> Chosen:
        """Choose `at_most` pairs, or fewer where there are fewer."""
        size, chunks = min(at_most, len(scores)), self.chunks or _CHUNKS[scores.loss]
        conditionals, chosen = scores.conditionals(), torch.empty(0, dtype=torch.int64, device="cpu")
        for number in range(1, chunks + 1):
            wanted = size * number // chunks - len(chosen)
            if not wanted:
                continue
            keys = conditionals().cpu().double()
            keys += torch.empty_like(keys).exponential_(generator=generator).log().neg()
            keys[chosen] = -torch.inf
            chunk = torch.argsort(keys, descending=True, stable=True)[:wanted]
            chosen = torch.cat([chosen, chunk])
            if len(chosen) < size:
                conditionals.add(chunk.to(scores.terms[0][1].images.device))
        return unweighted(chosen.to(scores.terms[0][1].images.device))
