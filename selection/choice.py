"""A super-batch on its way through the selector: being scored, then chosen from."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.loaders.stream import SuperBatch
from rhostream.selection.full_images import PendingFields
from rhostream.selection.policies import SelectionConfig
from rhostream.selection.scoring import ScoredCandidates, ScoredPairs, Scores
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import PairEmbeddings


@dataclass(frozen=True, kw_only=True)
class PendingScores:
    """A super-batch that is being scored.

    Attributes:
        super_batch: this rank's part of it, on the model's device.
        scores: waits for them; None where it has too few candidates to choose from.
    """

    super_batch: SuperBatch
    selection: SelectionConfig
    scores: Callable[[], Scores] | None

    def state_dict(self) -> dict[str, Any]:
        """What cannot be computed again once the model has taken a step: tensors and plain values, of all ranks."""
        found = Scores(super_batch=self.super_batch) if self.scores is None else self.scores()
        tensors = {"il": found.super_batch.il, "score": found.score}
        pairs = None
        if found.scored is not None:
            tensors |= {"losses": found.scored.losses, "correct": found.scored.correct}
            pairs = found.scored.pairs
        learner = None if pairs is None else pairs.learner
        return {
            "keys": list(found.super_batch.keys),
            "selection": asdict(self.selection),
            "begun": self.scores is not None,
            "scored": found.scored is not None,
            "tensors": {name: tensor.cpu() for name, tensor in tensors.items() if tensor is not None},
            "contrastive": None if pairs is None else pairs.loss,
            "learner": {} if learner is None else {name: tensor.cpu() for name, tensor in vars(learner).items()},
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], super_batch: SuperBatch, selection: SelectionConfig) -> Self | None:
        """The same, for the super-batch read again; None where it is another one."""
        whole, positions, part = super_batch, None, super_batch.part
        if part is not None:
            readable = set(state["keys"])
            positions = np.array([at for at, key in enumerate(part.whole.keys) if key in readable], np.int64)
            whole = part.whole.without_unreadable(positions).to(super_batch.labels.device)
        if list(whole.keys) != state["keys"]:
            return None
        tensors = {name: tensor.to(super_batch.labels.device) for name, tensor in state["tensors"].items()}
        il, score = tensors.pop("il", None), tensors.pop("score", None)
        whole = replace(whole, il=il)
        pairs, loss = None, state.get("contrastive")
        if loss is not None:
            told = {name: tensor.to(super_batch.labels.device) for name, tensor in state["learner"].items()}
            learner = PairEmbeddings(**told) if told else None
            pairs = ScoredPairs(loss=loss, learner=learner, reference=PairEmbeddings.of_reference(whole))
        scored = ScoredCandidates(labels=whole.labels, il=il, pairs=pairs, **tensors) if state["scored"] else None
        found = Scores(super_batch=whole, scored=scored, score=score, positions=positions)
        return cls(super_batch=super_batch, selection=selection, scores=(lambda: found) if state["begun"] else None)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen from a super-batch, full images maybe still being read.

    Attributes:
        super_batch: of all ranks, on the model's device, with what is known to be predicted correctly.
        local: this rank's part of it.
        selection: what was chosen by.
        positions: int64 (m,), of the chosen candidates, on the CPU; weights on the device.
        owners: int64 (m,), the rank that trains on each.
        scored, score: as of `Scores`.
        reading: the fields of those of this rank.
    """

    super_batch: SuperBatch
    local: SuperBatch
    selection: SelectionConfig
    positions: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    weights: Tensor
    scored: ScoredCandidates | None
    score: Tensor | None
    reading: PendingFields

    @property
    def loss(self) -> Tensor | None:
        return None if self.scored is None else self.scored.losses

    def batch(self, fields: dict[str, Tensor], mine: npt.NDArray[np.bool_]) -> SelectedBatch:
        """Those of the chosen at `mine`, bool (m,), this rank's, whose fields these are."""
        whole, positions, specs = self.super_batch, self.positions[mine], self.local.specs
        at = torch.from_numpy(positions).to(whole.labels.device)
        if self.local.full is not None:
            specs = specs | {"image": self.local.full.spec, "thumbnail": specs["image"]}
        elif "thumbnail" in fields:
            specs = specs | {"thumbnail": specs["image"]}
        return SelectedBatch(
            fields=fields,
            labels=whole.labels[at],
            weights=self.weights[torch.from_numpy(mine).to(self.weights.device)],
            il=None if whole.il is None else whole.il[at],
            correct=None if whole.correct is None else whole.correct[at],
            candidates=whole.candidates.take(positions),
            specs={name: specs[name] for name in fields},
            epoch=whole.epoch,
            state=whole.state,
        )
