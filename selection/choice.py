"""A super-batch on its way through the selector: being scored, then chosen from."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rhostream.loaders.decode import PendingImages
from rhostream.loaders.stream import SuperBatch
from rhostream.selection.policies import SelectionConfig
from rhostream.selection.scoring import ScoredCandidates, Scores


@dataclass(frozen=True, kw_only=True)
class PendingScores:
    """A super-batch that is being scored.

    Attributes:
        super_batch: on the model's device.
        scores: waits for them; None where it has too few candidates to choose from.
    """

    super_batch: SuperBatch
    selection: SelectionConfig
    scores: Callable[[], Scores] | None

    def state_dict(self) -> dict[str, Any]:
        """What cannot be computed again once the model has taken a step: tensors and plain values."""
        scored, score = (None, None) if self.scores is None else self.scores()
        tensors = {"il": self.super_batch.il, "score": score}
        if scored is not None:
            tensors |= {"losses": scored.losses, "correct": scored.correct}
        return {
            "keys": list(self.super_batch.keys),
            "selection": asdict(self.selection),
            "begun": self.scores is not None,
            "scored": scored is not None,
            "tensors": {name: tensor.cpu() for name, tensor in tensors.items() if tensor is not None},
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], super_batch: SuperBatch, selection: SelectionConfig) -> Self:
        """The same, for the super-batch read again."""
        tensors = {name: tensor.to(super_batch.labels.device) for name, tensor in state["tensors"].items()}
        il, score = tensors.pop("il", None), tensors.pop("score", None)
        super_batch = replace(super_batch, il=il)
        scored = ScoredCandidates(labels=super_batch.labels, il=il, **tensors) if state["scored"] else None
        scores = (lambda: (scored, score)) if state["begun"] else None
        return cls(super_batch=super_batch, selection=selection, scores=scores)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen from a super-batch, full images maybe still being read.

    Attributes:
        super_batch: on the model's device, with what is known to be predicted correctly.
        positions: int64 (m,), of the chosen candidates, on the CPU; weights on the device.
        reading: of their full images; None where the candidates' own images are trained on, or nothing was chosen.
    """

    super_batch: SuperBatch
    selection: SelectionConfig
    positions: npt.NDArray[np.int64]
    weights: Tensor
    scored: ScoredCandidates | None
    score: Tensor | None
    reading: PendingImages | None

    @property
    def loss(self) -> Tensor | None:
        return None if self.scored is None else self.scored.losses
