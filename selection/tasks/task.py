"""What every task says of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Batch

#: Runs a model on a batch whose fields are normalized: (model, batch) -> outputs. It calls the model that it is given,
#: which may be a copy of the one in training, or a compiled one.
Forward = Callable[[Callable[..., Any], Batch], Any]
#: The loss of each sample: (outputs, batch) -> float32 (n,).
Criterion = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What of a batch goes into a model, and what each sample's loss and correctness is.

    Attributes:
        forward: where None `model(batch.images)`, of texts `model(input_ids=…, attention_mask=…)`.
        criterion: the task's own loss where None. It is given the outputs as the model made them.
    """

    forward: Forward | None = None
    criterion: Criterion | None = None

    def using(self, *, forward: Forward | None = None, criterion: Criterion | None = None) -> Self:
        """The same task with these functions, where they are given."""
        return replace(self, forward=forward or self.forward, criterion=criterion or self.criterion)

    def outputs(self, model: Callable[..., Any], batch: Batch) -> Any:
        """What the model makes of a batch whose fields are normalized."""
        return _given(model, batch) if self.forward is None else self.forward(model, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """float32 (n,), the loss of each sample.

        Raises:
            ConfigError: the criterion does not give one number a sample.
        """
        if self.criterion is None:
            return self._losses(outputs, batch)
        losses = self.criterion(outputs, batch)
        if losses.shape != (len(batch),):
            raise ConfigError(
                f"the criterion gave losses of shape {tuple(losses.shape)} for {len(batch)} samples: it must give one "
                'number a sample, as torch\'s criteria do with reduction="none"'
            )
        return losses.float()

    @property
    def gives_logits(self) -> bool:
        """Are the outputs logits over classes that exclude each other, of which the loss is the cross-entropy?"""
        return False

    @property
    def gives_rows(self) -> bool:
        """Are the outputs logits of the task's own, a row for each sample?"""
        return self.forward is None and self.criterion is None

    @abstractmethod
    def guess(self, classes: int) -> float:
        """The loss of a sample, nats, under a model that knows nothing."""

    @abstractmethod
    def correct(self, outputs: Any, batch: Batch) -> Tensor | None:
        """bool (n,), whether the model predicts the label already; None where the outputs do not tell."""

    @abstractmethod
    def _losses(self, outputs: Any, batch: Batch) -> Tensor:
        """float32 (n,): the task's own."""


def _given(model: Callable[..., Any], batch: Batch) -> Any:
    """A model takes images as its one argument, all else by name, as those of Hugging Face do."""
    return model(batch.images) if "image" in batch.fields else model(**batch.fields)


def logits_of(outputs: Any) -> Tensor:
    """float32: the outputs, or their `logits`.

    Raises:
        ConfigError: they are several, or of another kind.
    """
    if not tells_logits(outputs):
        several = f" of {len(outputs)}" if isinstance(outputs, (tuple, list, Mapping)) else ""
        raise ConfigError(
            f"the model gave a {type(outputs).__name__}{several} in place of logits: say which output they are with "
            "OnlineSelector(…, forward=lambda model, batch: model(batch.images)[0]), or give a criterion"
        )
    logits: Tensor = outputs["logits"] if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    return logits.float()


def tells_logits(outputs: Any) -> bool:
    """Are the outputs a tensor, or do they hold `logits`?"""
    return (
        isinstance(outputs, Tensor)
        or hasattr(outputs, "logits")
        or (isinstance(outputs, Mapping) and "logits" in outputs)
    )
