"""The settings of `rho train`."""

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from rhostream.errors import ConfigError
from rhostream.loaders.decode import AUGMENTATIONS, Augmentation
from rhostream.pipeline.models import Precision
from rhostream.selection.policies import RULES, RuleName, SelectionConfig
from rhostream.selection.scoring import BatchNormPolicy, selection_function, selection_functions

Schedule = Literal["cosine", "constant"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)
AUTO: Final = "auto"  # in place of a selection function: `rhostream.selection.policies.auto`


def require_selection(name: str) -> None:
    """Raises ConfigError where this is neither a selection function nor `auto`."""
    if name not in (*selection_functions(), AUTO):
        raise ConfigError(f"select {name!r}: known are {', '.join((AUTO, *selection_functions()))}")


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
        thumbnails: name of the thumbnails that candidates are scored on; "none" scores the images that are trained
            on; "auto" takes the workspace's largest one that is smaller than these, if there is one.
        share: of each super-batch that is trained on; more than batch_size / super_batch_size re-uses one scored
            super-batch for several steps. 0 for one batch.
        rule, temperature, class_floor, score_floor: how batches are chosen given the scores, see
            `rhostream.selection.policies.selection_config.SelectionConfig`.
        score_age: steps for which the loss of a candidate is re-used; 1 scores every candidate afresh.
        score_precision, score_size, score_compile: of the scoring pass, see
            `rhostream.selection.scoring.scorer.ScoringOptions`.
        proxy: score by a small model, of the IL model's architecture, that is trained along.
        live_il: the original selection function: the IL model goes on learning (an ablation).
        core_set: name of a core set that `rho coreset` made, to train on alone.
        score_ahead: score the next super-batch while the model is trained on this one: its scores are one step old,
            which costs accuracy (README). Not where batches are filled from more or less than one super-batch each.
        prefilter: rules candidates out by IL before they are read; 0 is off, see `rhostream.loaders.reference.il_table.Prefilter`.
        on_missing: "drop" passes over samples without a finite irreducible loss.
        threads, workers: of decoding, see `rhostream.loaders.decode.read_options.ReadOptions`.
        evaluate_every: steps between evaluations, at each of which a checkpoint is written; 0 for a twentieth.
        evaluate_at_most: evaluate on so many samples of the split, the same each time; 0 for all.
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
    thumbnails: str = "auto"
    score_ahead: bool = False
    share: float = 0.0
    rule: RuleName = "default"
    temperature: float = 1.0
    class_floor: float = 0.0
    score_floor: float | None = None
    score_age: int = 1
    score_precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    score_size: int = 0
    score_compile: bool = False
    proxy: bool = False
    live_il: bool = False
    core_set: str = ""
    prefilter: float = 0.0
    on_missing: Literal["error", "drop"] = "error"
    evaluate_every: int = 0
    evaluate_at_most: int = 0
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
        for name in ("steps", "batch_size", "il_runs", "learning_rate", "score_age"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give a number above 0")
        for name in (
            "epochs",
            "candidates",
            "weight_decay",
            "prefilter",
            "evaluate_every",
            "evaluate_at_most",
            "image_size",
            "threads",
            "score_size",
        ):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} {getattr(self, name)}: give 0 or more")
        require_selection(self.select)
        if self.select != AUTO:
            self.selection()  # raises for what does not go together
        elif self.share or self.rule != "default" or self.class_floor or self.score_floor is not None:
            raise ConfigError("select 'auto' decides on share, rule and floors itself: leave them out")
        for name, known in (
            ("augmentation", AUGMENTATIONS),
            ("schedule", SCHEDULES),
            ("on_missing", ("error", "drop")),
            ("rule", RULES),
            ("batchnorm", get_args(BatchNormPolicy)),
            ("precision", get_args(Precision)),
            ("score_precision", ("auto", "float32", "bfloat16", "float16")),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} {getattr(self, name)!r}: choose one of {', '.join(known)}")
        if self.workers != "auto" and not self.workers.isdecimal():
            raise ConfigError(f"workers {self.workers!r}: give a number of decoding processes, or auto")
        if self.proxy and self.live_il:
            raise ConfigError("proxy and live_il: score by the one or the other")
        if (self.proxy or self.live_il or self.score_age > 1 or self.score_size) and not self.scores:
            raise ConfigError(
                f"select {self.select!r} scores nothing: leave proxy, live_il and the score_… settings out"
            )
        if self.score_ahead and self.select != AUTO and "draws" in selection_function(self.select).needs:
            raise ConfigError(
                f"score_ahead with select {self.select!r}, whose random numbers the training would meet: "
                "leave score_ahead out"
            )
        if self.share and not self.scores:
            raise ConfigError(f"share {self.share} with select {self.select!r}, which trains on all that it draws")
        if self.select == AUTO and self.core_set:
            raise ConfigError("select 'auto' with core_set: it judges its filter by the whole corpus; leave one out")
        if self.select == AUTO and self.live_il:
            raise ConfigError("select 'auto' with live_il: it compares selections by one IL table that stays as it is")

    @property
    def scores(self) -> bool:
        """Is there a scoring pass, at least at times?"""
        return self.select == AUTO or selection_function(self.select).score is not None

    @property
    def needs_il(self) -> bool:
        """Is an IL table joined?"""
        by_function = self.select == AUTO or "il" in selection_function(self.select).needs
        return by_function or self.prefilter > 0 or self.proxy or self.live_il

    def selection(self) -> SelectionConfig:
        """How batches are chosen, where one selection is in force all the time."""
        return SelectionConfig(
            function=self.select,
            batch_size=self.batch_size,
            share=self.share,
            rule=self.rule,
            temperature=self.temperature,
            class_floor=self.class_floor,
            score_floor=self.score_floor,
            # What the stream passes over would leave short batches.
            full=not self.scores and bool(self.prefilter or self.core_set),
        )

    @property
    def _draws_as_it_goes(self) -> bool:
        if self.select in (AUTO, "grad_norm_is"):
            return True
        selection = self.selection()
        return selection.full or selection.make_rule().falls_short

    def budget(self, samples: int) -> int:
        """Gradient steps, for a training split of this many samples: the one place where units are converted."""
        drawn = self.candidates or self.epochs * samples
        if drawn and self._draws_as_it_goes:
            unit = "candidates" if self.candidates else "epochs"
            raise ConfigError(
                f"a budget in {unit} with select {self.select!r} as it is set: how many candidates a step takes is not "
                "known beforehand; give it in steps"
            )
        return math.ceil(drawn / self.drawn_per_step) if drawn else self.steps

    @property
    def drawn_per_step(self) -> float:
        """Candidates that a step takes on average: n_B, of which `share` may serve several steps."""
        return self.drawn_at_once if not self.share else self.batch_size / self.share

    @property
    def drawn_at_once(self) -> int:
        """n_B; uniform sampling draws no more than it trains on."""
        return self.super_batch_size if self.scores else self.batch_size
