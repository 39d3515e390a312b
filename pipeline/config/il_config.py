"""The settings of `rho il train` and `rho il score`."""

import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from rhostream.errors import ConfigError
from rhostream.pipeline.config.choices import BUILT_IN_MODELS, Augmentation, Precision
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import DEVICE, NAME, NAME_FORM, WORKERS

#: Settings that do not bear on the result, and those that the metadata holds elsewhere.
_NOT_OF_RESULT: Final = ("name", "model", "image_size", "device", "threads")

_WARM_UP: Final = 0.3  # of a cycle, during which the rate rises to its peak
_FIRST_RATE: Final = 1 / 25  # of the peak

#: With fewer, the lowest validation loss is a matter of luck.
_FEWEST_SAMPLES: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class ILTrainConfig(StageConfig):
    """How the IL model is trained: AdamW with PyTorch's defaults, as in arXiv 2206.07137.

    "one_cycle" raises the rate over the first 30 % of all steps and lets it fall to 0 along a cosine (Smith and Topin,
    arXiv 1708.07120), by which few epochs suffice.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "IL "
    VARIABLES: ClassVar[str] = "RHO_IL_"

    # No path: `rho train --il` tells a table of the workspace from a Parquet file by its name.
    name: str = setting(
        "", metavar="NAME", pattern=NAME, form=NAME_FORM, unset="the model's", help="Name of the IL model."
    )
    model: str = setting(
        "small_cnn",
        group="Model",
        metavar="MODEL",
        help=f"One of {', '.join(BUILT_IN_MODELS)}, a classifier of torchvision by its name, or timm/NAME.",
    )
    weights: str | None = setting(
        None, group="Model", metavar="FILE", help="Local .safetensors or .pt weights to start from."
    )
    epochs: int = setting(
        5,
        group="Budget",
        minimum=1,
        metavar="N",
        help="At most so many; with one cycle, its length. Fewer than some 3,000 samples want more of them.",
    )
    patience: int = setting(
        3,
        group="Budget",
        minimum=0,
        metavar="N",
        help="Stop after N epochs without a lower validation loss; 0 for never.",
    )
    batch_size: int = setting(128, group="Model", minimum=1, metavar="N", help="Samples of a gradient step.")
    learning_rate: float = setting(
        3e-3, group="Model", above=0, metavar="X", help="Of AdamW; with one cycle, the peak."
    )
    schedule: Literal["one_cycle", "constant"] = setting(
        "one_cycle",
        group="Model",
        help="one_cycle rises for 30% of the steps and falls to 0 with the last; few epochs suffice.",
    )
    weight_decay: float = setting(0.01, group="Model", minimum=0, metavar="X", help="Of AdamW.")
    validation_share: float = setting(
        0.1,
        group="Budget",
        above=0,
        maximum=1,
        metavar="X",
        help="Share of the train split that chooses the epoch, though 1,000 samples where there are so many.",
    )
    validation_samples: int = setting(2_000, group="Budget", minimum=1, metavar="N", help="At most so many of them.")
    image_size: int = setting(
        0,
        group="Reading",
        minimum=0,
        metavar="PIXELS",
        unset="the manifest's",
        help="Side of the images that the model sees.",
    )
    augmentation: Augmentation = setting("none", group="Model", help="Random changes of the images trained on.")
    seed: int = setting(0, group="Model", metavar="N", help="Of the model, the order and the augmentation.")
    device: str = setting("auto", group="Model", **DEVICE)
    precision: Precision = setting(
        "auto", group="Model", help="Of the passes; auto takes bfloat16 on GPUs that compute in it."
    )
    threads: int = setting(0, group="Reading", minimum=0, metavar="N", unset="one a core", help="Decoding threads.")

    @property
    def resolved_name(self) -> str:
        return self.name or self.model.replace("/", "-")

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
            from rhostream.loaders.storage import UnreadableError, read_file  # here: the help needs none of it

            try:
                digest = hashlib.sha256(read_file(path)).hexdigest()
            except FileNotFoundError as error:
                raise ConfigError(f"weights {self.weights!r}: no such file; give a local file") from error
            except UnreadableError as error:
                raise ConfigError(f"weights {self.weights!r} {error.cause}: give a local file") from error
            values["weights"] = {"file": path.name, "sha256": digest}
        return values


@dataclass(frozen=True, kw_only=True)
class ILScoreConfig(StageConfig):
    """Which shards are scored by which IL model, and how.

    Raises:
        ConfigError: a value that its setting does not allow.
    """

    STAGE: ClassVar[str] = "IL scoring "
    VARIABLES: ClassVar[str] = "RHO_IL_SCORE_"

    name: str = setting(
        "", metavar="NAME", variable="RHO_IL_NAME", unset="the only one", help="IL model to score with."
    )
    splits: tuple[str, ...] = setting(
        ("train",), flag="--split", metavar="SPLIT", help="Split to score; may be repeated."
    )
    only: tuple[str, ...] = setting(
        (), metavar="SHARD", help="Score this shard alone, whatever its split; may be repeated."
    )
    batch_size: int = setting(
        0,
        minimum=0,
        metavar="N",
        unset="as many as have 2 million values, 200 at least",
        help="Samples of one forward pass.",
    )
    device: str = setting("auto", **DEVICE)
    precision: Precision = setting("float32", help="Of the passes; auto takes bfloat16 on GPUs that compute in it.")
    workers: int = setting(0, **WORKERS)
    threads: int = setting(
        0,
        variable="RHO_IL_THREADS",
        minimum=0,
        metavar="N",
        unset="one a core",
        help="Decoding threads, of each process.",
    )
    overwrite: bool = setting(False, hidden=True, help="Score again what is already scored.")
