"""The settings of `rho il train` and `rho il score`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from rhostream.errors import ConfigError
from rhostream.pipeline.config.choices import Augmentation, ContrastiveLoss, EngineName, Precision
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.schedules import rate_share, require_warmup
from rhostream.pipeline.config.shared import (
    AUGMENTATION,
    CHECKPOINT_MINUTES,
    CLIP_GRAD_NORM,
    CONTRASTIVE_LOSS,
    DEVICE,
    ENGINE,
    IMAGE_SIZE,
    MODEL,
    NAME,
    NAME_FORM,
    PRECISION,
    SEED,
    SPLITS,
    TEXT_LENGTH,
    THREADS,
    TOKENIZER,
    WARMUP,
    WEIGHTS,
    WORKERS,
)
from rhostream.pipeline.config.weights import weights_digest

if TYPE_CHECKING:
    from rhostream.loaders.decode import ImageSpec, TextSpec
    from rhostream.loaders.index import CorpusMetadata

#: Settings that do not bear on the result, and those that the metadata holds elsewhere.
_NOT_OF_RESULT: Final = (
    "name",
    "model",
    "image_size",
    "tokenizer",
    "text_length",
    "device",
    "threads",
    "checkpoint_minutes",
)

#: With fewer, the lowest validation loss is a matter of luck.
_FEWEST_SAMPLES: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class ILTrainConfig(StageConfig):
    """How the IL model is trained: AdamW, as in arXiv 2206.07137, for as long as validation loss falls.

    Unless a schedule is asked for, the learning rate is constant, and the weights that are kept are averages over the
    training (see `rhostream.pipeline.il.fit`), so that it may end at any step: nothing has to know its length.

    Attributes:
        UNTOLD: settings that metadata tells where they have other values than these: a former release had none of them.

    Raises:
        ConfigError: a value that its setting does not allow, or values that do not go together.
    """

    STAGE: ClassVar[str] = "IL "
    VARIABLES: ClassVar[str] = "RHO_IL_"
    UNTOLD: ClassVar[dict[str, Any]] = {
        "contrastive_loss": "softmax",
        "schedule": "constant",
        "warmup": 100.0,
        "clip_grad_norm": 0.0,
    }

    # No path: `rho train --il` tells a table of the workspace from a Parquet file by its name.
    name: str = setting(
        "", metavar="NAME", pattern=NAME, form=NAME_FORM, unset="the model's", help="Name of the IL model."
    )
    model: str = setting(
        "strided_cnn",
        group="Model",
        **MODEL,
    )
    weights: str | None = setting(None, group="Model", **WEIGHTS)
    steps: int = setting(
        0,
        group="Budget",
        minimum=0,
        metavar="N",
        unset="until validation loss stops falling, or recall rising",
        help="Gradient steps, at most.",
    )
    least_gain: float = setting(
        0.005,
        group="Budget",
        minimum=0,
        below=1,
        metavar="X",
        help="End where a quarter more steps lower the validation loss (of pairs the misses of recall@10) by less than "
        "this share, twice in a row, or where it rises.",
    )
    batch_size: int = setting(128, group="Model", minimum=1, metavar="N", help="Samples of a gradient step.")
    learning_rate: float = setting(2e-3, group="Model", above=0, metavar="X", help="Of AdamW.")
    weight_decay: float = setting(0.01, group="Model", minimum=0, metavar="X", help="Of AdamW.")
    schedule: Literal["constant", "linear"] = setting(
        "constant",
        group="Model",
        help="Of the learning rate. linear ends at 0 with the steps, all of which are taken.",
    )
    warmup: float = setting(100.0, group="Model", **WARMUP)
    clip_grad_norm: float = setting(0.0, group="Model", **CLIP_GRAD_NORM)
    checkpoint_minutes: float = setting(10.0, group="Budget", **CHECKPOINT_MINUTES)
    validation_share: float = setting(
        0.1,
        group="Budget",
        above=0,
        maximum=1,
        metavar="X",
        help="Share of the train split that chooses the step, though 1,000 samples where there are so many.",
    )
    validation_samples: int = setting(2_000, group="Budget", minimum=1, metavar="N", help="At most so many of them.")
    image_size: int = setting(
        0,
        group="Reading",
        **IMAGE_SIZE,
    )
    tokenizer: str = setting("", group="Reading", **TOKENIZER)
    text_length: int = setting(0, group="Reading", **TEXT_LENGTH)
    augmentation: Augmentation = setting("none", group="Model", **AUGMENTATION)
    contrastive_loss: ContrastiveLoss = setting("softmax", group="Model", **CONTRASTIVE_LOSS)
    cross_fit: int = setting(
        5,
        group="Model",
        minimum=0,
        maximum=20,
        metavar="N",
        help="Parts of the samples to score, for each of which the last layer is fitted to the labels of the others; 0 "
        "for none. Pairs have none, nor has a model that ends in no linear layer.",
    )
    seed: int = setting(0, group="Model", **SEED)
    device: str = setting("auto", group="Model", **DEVICE)
    precision: Precision = setting(
        "auto",
        group="Model",
        help="Of the passes; auto takes bfloat16 on GPUs that compute in it, for convolutions on CPUs with AMX, too.",
    )
    threads: int = setting(0, group="Reading", **THREADS, unset="one a core")

    def input_spec(self, corpus: "CorpusMetadata") -> "ImageSpec | TextSpec":
        """Of the images or texts that the model sees: the manifest's, but for what is set here."""
        return corpus.input_spec(image_size=self.image_size, tokenizer=self.tokenizer, text_length=self.text_length)

    def text_spec(self, corpus: "CorpusMetadata") -> "TextSpec | None":
        """Of the captions of pairs; None of other samples."""
        return corpus.text_spec(self.tokenizer, self.text_length) if corpus.task == "pairs" else None

    @property
    def resolved_name(self) -> str:
        return self.name or self.model.replace("/", "-")

    def validation_size(self, available: int) -> int:
        """How many of `available` samples choose the step."""
        wanted = max(round(self.validation_share * available), _FEWEST_SAMPLES)
        return min(wanted, self.validation_samples, available)

    def rate_at(self, step: int) -> float:
        """The learning rate of a gradient step; 0 is the first."""
        return self.learning_rate * rate_share(self.schedule, self.warmup, step + 1, self.steps)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps and (self.schedule == "linear" or 0 < self.warmup < 1):
            asked = "schedule 'linear'" if self.schedule == "linear" else f"warmup {self.warmup}, a share of the steps,"
            raise ConfigError(f"IL {asked} without steps, which the validation loss would end: give steps")
        require_warmup(self.warmup, self.STAGE)
        if self.cross_fit == 1:
            raise ConfigError("IL cross_fit 1: one part has no others to learn from; give 2 or more, or 0 for none")

    def of_result(self) -> dict[str, Any]:
        """The settings that the result depends on, as JSON values; a weights file by its name and SHA-256.

        Raises:
            ConfigError: the weights file cannot be read.
        """
        values = {name: value for name, value in asdict(self).items() if name not in _NOT_OF_RESULT}
        untold = self.UNTOLD.items()
        values = {name: value for name, value in values.items() if (name, value) not in untold}
        if self.weights is not None:
            values["weights"] = {"file": Path(self.weights).name, "sha256": weights_digest(self.weights)}
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
    splits: tuple[str, ...] = setting(("train",), **SPLITS)
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
    precision: Precision = setting("float32", **PRECISION)
    engine: EngineName = setting("local", **ENGINE)
    workers: int = setting(0, **WORKERS)
    threads: int = setting(
        0,
        variable="RHO_IL_THREADS",
        unset="one a core",
        **THREADS,
    )
    overwrite: bool = setting(False, hidden=True, help="Score again what is already scored.")
