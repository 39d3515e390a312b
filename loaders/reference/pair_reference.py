"""What a reference table of image-text pairs says of all its embeddings."""

from dataclasses import dataclass
from typing import Literal, get_args

from rhostream.errors import ConfigError

ContrastiveLoss = Literal["sigmoid", "softmax"]


def require_contrastive(loss: str) -> None:
    """Raises ConfigError where this is no contrastive loss."""
    if loss not in get_args(ContrastiveLoss):
        raise ConfigError(f"contrastive loss {loss!r}: choose {' or '.join(get_args(ContrastiveLoss))}")


@dataclass(frozen=True, kw_only=True)
class PairReference:
    """How the reference model's loss of any batch follows from its stored embeddings.

    Attributes:
        loss: that it was trained with: "sigmoid" (SigLIP) or "softmax" (CLIP).
        scale: what the cosine of an image and a text is multiplied by, above 0: one over the temperature.
        bias: what is added to it.

    Raises:
        ConfigError: another loss, or a scale that is not above 0.
    """

    loss: ContrastiveLoss
    scale: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        require_contrastive(self.loss)
        if not self.scale > 0:
            raise ConfigError(f"scale {self.scale} of the reference's similarities: give a number above 0")
