"""The settings of `rho il train`."""

import hashlib
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from rhostream.errors import ConfigError
from rhostream.loaders.decode import Augmentation
from rhostream.pipeline.models import Precision

#: Settings that do not bear on the result, and those that the metadata holds elsewhere.
_NOT_OF_RESULT: Final = ("name", "model", "image_size", "device", "threads")

#: No path: `rho train --il` tells a table of the workspace from a Parquet file by its name.
_NAME: Final = re.compile(r"(?!\.)(?!.*\.parquet$)[A-Za-z0-9._-]+")

Schedule = Literal["one_cycle", "constant"]

_WARM_UP: Final = 0.3  # of a cycle, during which the rate rises to its peak
_FIRST_RATE: Final = 1 / 25  # of the peak

#: With fewer, the lowest validation loss is a matter of luck.
_FEWEST_SAMPLES: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class ILTrainConfig:
    """How the IL model is trained: AdamW with PyTorch's defaults, as in arXiv 2206.07137.

    Attributes:
        name: of the IL model in the workspace; the architecture's where empty.
        model: see `rhostream.pipeline.models.registry.build_model`.
        weights: a local file of initial weights, or None.
        epochs: at most this many; with one cycle, its length. Fewer than some 3,000 samples want more of them.
        patience: stop after so many epochs without a lower validation loss; 0 for never.
        validation_share, validation_samples: the part of D that chooses the epoch: this share, though 1,000 samples
            where D has them, and at most this many.
        learning_rate: the peak, where the schedule changes it.
        schedule: "one_cycle" raises the rate over the first 30 % of all steps and lets it fall to 0 along a cosine
            (Smith and Topin, arXiv 1708.07120), by which few epochs suffice; "constant" leaves it.
        image_size: side in pixels of what the model sees; 0 for the manifest's.
        augmentation: see `rhostream.loaders.decode.augmentation`.
        threads: that decode images; 0 for one a core.
    """

    name: str = ""
    model: str = "small_cnn"
    weights: str | None = None
    epochs: int = 5
    patience: int = 3
    batch_size: int = 128
    learning_rate: float = 3e-3
    schedule: Schedule = "one_cycle"
    weight_decay: float = 0.01
    validation_share: float = 0.1
    validation_samples: int = 2_000
    image_size: int = 0
    augmentation: Augmentation = "none"
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validation_samples", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"IL {name} {getattr(self, name)}: give a number above 0")
        for name in ("patience", "weight_decay", "threads", "image_size"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"IL {name} {getattr(self, name)}: give 0 or more")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"IL schedule {self.schedule!r}: choose {' or '.join(get_args(Schedule))}")
        if not 0 < self.validation_share <= 1:
            raise ConfigError(f"IL validation_share {self.validation_share}: give a share above 0 and at most 1")
        if not _NAME.fullmatch(self.resolved_name):
            raise ConfigError(
                f"IL name {self.resolved_name!r}: use letters, digits, '.', '_' and '-', without a dot in front or "
                "'.parquet' at the end"
            )

    @property
    def resolved_name(self) -> str:
        return self.name or self.model

    def validation_size(self, available: int) -> int:
        """How many of `available` samples choose the epoch."""
        wanted = max(round(self.validation_share * available), _FEWEST_SAMPLES)
        return min(wanted, self.validation_samples, available)

    def rate_at(self, progress: float) -> float:
        """The learning rate when this share, in [0, 1), of the steps of all epochs has been taken."""
        if self.schedule == "constant":
            return self.learning_rate
        if progress < _WARM_UP:
            return self.learning_rate * (_FIRST_RATE + (1 - _FIRST_RATE) * progress / _WARM_UP)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))

    def of_result(self) -> dict[str, Any]:
        """The settings that the result depends on, as JSON values; a weights file by its name and SHA-256.

        Raises:
            ConfigError: the weights file cannot be read.
        """
        values = {name: value for name, value in asdict(self).items() if name not in _NOT_OF_RESULT}
        if self.weights is not None:
            path = Path(self.weights)
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise ConfigError(f"weights {self.weights!r}: {error.strerror}; give a local file") from error
            values["weights"] = {"file": path.name, "sha256": digest}
        return values
