"""The settings of `rho train`."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from rhostream.errors import ConfigError
from rhostream.loaders.augmentation import AUGMENTATIONS, Augmentation
from rhostream.pipeline.device import Precision
from rhostream.selection.functions import selection_function
from rhostream.selection.scorer import BatchNormPolicy

Schedule = Literal["cosine", "constant"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run. The paper's, where it fixes one (section 4 and appendix B).

    Attributes:
        name: of the run; the selection function's name where empty.
        il: name (or Parquet path) of the IL table; "" takes the only one of the workspace.
        batch_size, super_batch_size: n_b and n_B.
        steps, epochs, candidates: the budget, in one of three units: gradient steps, passes over the training split,
            or candidates drawn; `epochs` or `candidates` replace `steps` where above 0.
        schedule: of the learning rate; "cosine" falls to 0 at the end of the budget.
        image_size: side in pixels of what the model sees; 0 for the manifest's.
        scoring_view: name of the scoring view that candidates are scored on; "none" scores the images that are trained
            on; "auto" takes the workspace's largest one that is smaller than these, if there is one.
        score_ahead: with a scoring view, score the next super-batch while the full images of the selected are read: its
            scores are one step old, which costs accuracy (README).
        prefilter: rules candidates out by IL before they are read; 0 is off, see `rhostream.loaders.join.Prefilter`.
        on_missing: "drop" passes over samples without a finite irreducible loss.
        threads, workers: of decoding, see `rhostream.loaders.reading.Reading`.
        evaluate_every: steps between evaluations, at each of which a checkpoint is written; 0 for a twentieth.
        il_runs: number of runs that share the IL model, over which its cost is spread.
        tensorboard: whether to write its event files; None where the package is installed.
        wandb: project of Weights & Biases to log to; "" for none.
    """

    name: str = ""
    il: str = ""
    model: str = "bn_cnn"
    weights: str = ""
    select: str = "rho_loss"
    batch_size: int = 32
    super_batch_size: int = 320
    steps: int = 1000
    epochs: float = 0.0
    candidates: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Schedule = "cosine"
    image_size: int = 0
    augmentation: Augmentation = "none"
    batchnorm: BatchNormPolicy = "batch"
    scoring_view: str = "auto"
    score_ahead: bool = False
    prefilter: float = 0.0
    on_missing: Literal["error", "drop"] = "error"
    evaluate_every: int = 0
    il_runs: int = 1
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0
    workers: str = "auto"
    tensorboard: bool | None = None
    wandb: str = ""

    def __post_init__(self) -> None:
        if self.batch_size > self.super_batch_size:
            raise ConfigError(
                f"batch size {self.batch_size} exceeds the super-batch size {self.super_batch_size}: there must be at "
                "least as many candidates as are chosen"
            )
        if self.epochs and self.candidates:
            raise ConfigError(f"epochs {self.epochs} and candidates {self.candidates}: give the budget in one unit")
        for name in ("steps", "batch_size", "il_runs", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give a number above 0")
        for name in ("epochs", "candidates", "weight_decay", "prefilter", "evaluate_every", "image_size", "threads"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give 0 or more")
        selection_function(self.select)  # raises for an unknown one
        for name, known in (
            ("augmentation", AUGMENTATIONS),
            ("schedule", SCHEDULES),
            ("on_missing", ("error", "drop")),
            ("batchnorm", get_args(BatchNormPolicy)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        if self.workers != "auto" and not self.workers.isdecimal():
            raise ConfigError(f"workers {self.workers!r}: give a number of decoding processes, or auto")
        if self.prefilter and selection_function(self.select).score is None:
            raise ConfigError(
                f"prefilter {self.prefilter} with select {self.select!r}: what is ruled out would leave short batches; "
                "use a selection function that chooses from super-batches"
            )

    @property
    def needs_il(self) -> bool:
        return "il" in selection_function(self.select).needs or self.prefilter > 0

    def budget(self, samples: int) -> int:
        """Gradient steps, for a training split of this many samples: the one place where units are converted."""
        drawn = self.candidates or self.epochs * samples
        return math.ceil(drawn / self.drawn_per_step) if drawn else self.steps

    @property
    def drawn_per_step(self) -> int:
        """n_B; uniform sampling draws no more than it trains on."""
        return self.batch_size if selection_function(self.select).score is None else self.super_batch_size
