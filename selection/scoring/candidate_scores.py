"""Scores of a super-batch: what the function needs of the model is computed, and no more."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.stream import SuperBatch
from rhostream.selection.scoring.cache import ScoreCache
from rhostream.selection.scoring.candidates import ScoredCandidates
from rhostream.selection.scoring.functions import SelectionFunction
from rhostream.selection.scoring.meter import Meter
from rhostream.selection.scoring.scorer import Scorer
from rhostream.selection.tasks import logits_of


class CandidateScores:
    """Scores candidates by a selection function, charging the passes to `score`.

    Args:
        cache: re-uses losses of the last steps, for functions that read the loss alone; or None.
    """

    def __init__(self, scorer: Scorer, cache: ScoreCache | None, meter: Meter) -> None:
        self._scorer, self._cache, self._meter = scorer, cache, meter

    def score(
        self, super_batch: SuperBatch, function: SelectionFunction, step: int
    ) -> tuple[ScoredCandidates | None, Tensor | None]:
        """What is known of the candidates, and float32 (n,) scores; None, None for uniform sampling.

        Args:
            super_batch: on the model's device.
            step: gradient steps so far.

        Raises:
            ConfigError: the function needs irreducible losses, and the stream joins none.
            RhostreamError: a score is not finite.
        """
        if function.score is None:
            return None, None
        self._require(function, super_batch)
        task = self._scorer.task
        scored = ScoredCandidates(labels=super_batch.labels, il=super_batch.il)
        if self._cache is not None and function.loss_suffices:
            scored = replace(scored, losses=self._losses(super_batch, self._cache, step))
        elif function.needs - {"il"}:
            batch = super_batch.normalized()
            if "logits" in function.needs:
                outputs = self._metered("outputs", batch)
                scored = replace(
                    scored,
                    losses=task.losses(outputs, batch),
                    correct=task.correct(outputs, batch),
                    logits=logits_of(outputs) if task.gives_logits else None,
                )
            if "draws" in function.needs:
                scored = replace(scored, draws=self._metered("draws", batch))
        score = function.score(scored)
        finite = int(torch.isfinite(score).sum())
        if finite < len(score):
            raise RhostreamError(
                f"after step {step}: {len(score) - finite} of {len(score)} scores are not finite "
                f"({function.name}): the training has diverged; lower the learning rate, or train in float32"
            )
        return scored, score

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must carry: tensors and plain values."""
        return {"scorer": self._scorer.state_dict(), "cache": self._cache.state_dict() if self._cache else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._scorer.load_state_dict(state["scorer"])
        if self._cache is not None and state["cache"] is not None:
            self._cache.load_state_dict(state["cache"])

    def _losses(self, super_batch: SuperBatch, cache: ScoreCache, step: int) -> Tensor:
        """Losses of all candidates, those of recent steps from the cache."""
        split = cache.split(super_batch.keys, step)
        fresh = torch.empty(0, device=super_batch.labels.device)
        if len(split.fresh):
            batch = super_batch.take(split.fresh.numpy()).normalized()
            fresh = self._scorer.task.losses(self._metered("outputs", batch), batch)
            cache.remember(batch.keys, fresh, step)
        return split.merged(fresh)

    def _require(self, function: SelectionFunction, super_batch: SuperBatch) -> None:
        """Raises ConfigError where the stream or the task does not give what the function needs."""
        if "il" in function.needs and super_batch.il is None:
            raise ConfigError(
                f"selection function {function.name!r} needs irreducible losses, and the stream joins "
                'none: name an IL table, CandidateStream(…, il="small_cnn")'
            )
        task = self._scorer.task
        if function.reads_logits and not task.gives_logits:
            own = " with a criterion of its own" if task.criterion is not None else ""
            raise ConfigError(
                f"selection function {function.name!r} reads logits over classes, which the task {type(task).__name__}"
                f"{own} does not give: use one that reads the loss alone (rho_loss, train_loss; one of your own is "
                "registered with loss_suffices=True)"
            )

    def _metered(self, what: str, batch: SuperBatch) -> Any:
        work = self._scorer.outputs if what == "outputs" else self._scorer.draws
        shapes = tuple(tuple(field.shape) for field in batch.fields.values())
        return self._meter.flops("score", (what, *shapes), lambda: work(batch))
