"""Properties of what was selected, beside those of all candidates (arXiv 2206.07137, Fig. 3)."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rhostream.loaders.stream import Exchange, SuperBatch
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Task

PASSED_OVER = ("filtered", "il_missing", "not_in_core_set", "validation", "unreadable")


class Properties:
    """Counts over the steps since the last report; shares are None where nothing is known.

    Args:
        task: says which samples the training pass predicts, where no scoring pass did.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._loss, self._steps = 0.0, 0
        self._candidates, self._selected, self._left_over = 0, 0, 0
        self._passed_over: Counter[str] = Counter()
        self._mislabeled = {"candidates": _Share(), "selected": _Share()}
        self._correct = {"candidates": _Share(), "selected": _Share()}

    @property
    def train_loss(self) -> float:
        """Mean over the steps, nats."""
        return self._loss / self._steps

    def add(self, batch: SelectedBatch, logits: Tensor, loss: Tensor) -> None:
        """Count one step.

        Args:
            logits: (n_b, classes) of the training pass, in place of a scoring pass where there was none.
            loss: scalar, nats.
        """
        self._loss += float(loss)
        self._steps += 1
        self._selected += len(batch)
        for super_batch in batch.considered:
            self._add_candidates(super_batch)
        self._passed_over["unreadable"] += batch.unreadable
        wrong = _wrong(batch.extra, batch.labels.cpu().numpy())
        if wrong is not None:
            self._mislabeled["selected"].add(wrong)
        correct = batch.correct if batch.correct is not None else self._task.correct(logits, batch)
        if correct is not None:
            self._correct["selected"].add(correct.cpu().numpy())

    def _add_candidates(self, super_batch: SuperBatch) -> None:
        self._candidates += super_batch.candidate_count
        self._left_over += super_batch.left_over
        passed_over = super_batch.passed_over
        if passed_over.reasons is not None:
            self._passed_over.update(passed_over.reasons.tolist())
        for table in (super_batch.candidates, passed_over):
            wrong = _wrong(table.extra, table.labels)
            if wrong is not None:
                self._mislabeled["candidates"].add(wrong)
        if super_batch.correct is not None:
            self._correct["candidates"].add(super_batch.correct.cpu().numpy())

    @property
    def note(self) -> str:
        """The loss and the shares of right predictions so far, in words that say what they are of."""
        of = {name: share.value for name, share in self._correct.items()}
        if of["candidates"] is None:
            return f"loss {self.train_loss:.3f}, {of['selected'] or 0:.0%} correct"
        return (
            f"selected, hard by choice: loss {self.train_loss:.3f}, {of['selected'] or 0:.0%} correct; "
            f"candidates: {of['candidates']:.0%} correct"
        )

    def over_ranks(self, exchange: Exchange) -> "Properties":
        """Those of a job: each process counts its share of what was selected, and all candidates."""
        if exchange.size == 1:
            return self
        together = Properties(self._task)
        together.load_state_dict(self.state_dict())
        mislabeled, correct = self._mislabeled["selected"].counts, self._correct["selected"].counts
        loss, *counts = exchange.sums([self._loss / exchange.size, self._selected, *mislabeled, *correct])
        selected, *others = map(int, counts)
        together._loss, together._selected = loss, selected
        together._mislabeled["selected"].counts = (others[0], others[1])
        together._correct["selected"].counts = (others[2], others[3])
        return together

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint between two reports: plain values."""
        shares = {"mislabeled": self._mislabeled, "correct": self._correct}
        return {
            "loss": self._loss,
            "steps": self._steps,
            "candidates": self._candidates,
            "selected": self._selected,
            "left_over": self._left_over,
            "passed_over": dict(self._passed_over),
            **{name: {of: share.counts for of, share in each.items()} for name, each in shares.items()},
        }

    def load_state_dict(self, state: dict[str, Any], *, first: bool = True) -> None:
        """The inverse of `state_dict`; the first process of a job goes on with the shares of all."""
        self._loss, self._steps = state["loss"], state["steps"]
        self._candidates, self._selected = state["candidates"], state["selected"]
        self._left_over = state["left_over"]
        self._passed_over = Counter(state["passed_over"])
        for name, shares in (("mislabeled", self._mislabeled), ("correct", self._correct)):
            for of, share in shares.items():
                share.counts = state[name][of]
        if not first:
            self._selected = 0
            self._mislabeled["selected"].counts = self._correct["selected"].counts = (0, 0)

    def metrics(self) -> dict[str, Any]:
        """Columns of `rhostream.schema.METRICS`."""
        return {
            "train_loss": self.train_loss if self._steps else None,
            "candidates": self._candidates,
            "selected": self._selected,
            "left_over": self._left_over,
            **{reason: self._passed_over[reason] for reason in PASSED_OVER},
            **{f"{of}_mislabeled": share.value for of, share in self._mislabeled.items()},
            **{f"{of}_correct": share.value for of, share in self._correct.items()},
        }


def _wrong(extra: Mapping[str, npt.NDArray[Any]], labels: Any) -> npt.NDArray[np.bool_] | None:
    """bool (m,), of the samples of which the truth is known: is the label, or of pairs the caption, a wrong one?"""
    if "mismatched" in extra:
        moved = extra["mismatched"]
        known = np.array([each is not None and each == each for each in moved], bool)  # no None and no NaN
        found: npt.NDArray[np.bool_] = moved[known].astype(bool)
        return found
    clean = extra.get("clean_label")
    if clean is None:
        return None
    wrong: npt.NDArray[np.bool_] = (clean != labels)[~np.isnan(clean.astype(np.float64))]
    return wrong


class _Share:
    """The share of true values; zeros count, unknown ones do not."""

    def __init__(self) -> None:
        self.counts = (0, 0)  # of true values, and of all

    def add(self, values: npt.NDArray[np.bool_]) -> None:
        true, total = self.counts
        self.counts = (true + int(values.sum()), total + len(values))

    @property
    def value(self) -> float | None:
        true, total = self.counts
        return true / total if total else None
