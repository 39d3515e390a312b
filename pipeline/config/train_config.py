"""The settings of `rho train`."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from rhostream.errors import ConfigError
from rhostream.pipeline.config.choices import (
    AUTO,
    SELECTION_FUNCTIONS,
    Augmentation,
    BatchNormPolicy,
    ContrastiveLoss,
    Metric,
    Precision,
    RuleName,
)
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.schedules import Schedule, require_warmup
from rhostream.pipeline.config.shared import (
    AUGMENTATION,
    CHECKPOINT_MINUTES,
    CLIP_GRAD_NORM,
    CONTRASTIVE_LOSS,
    DEVICE,
    IMAGE_SIZE,
    MODEL,
    PRECISION,
    SEED,
    TEXT_LENGTH,
    TOKENIZER,
    WARMUP,
    WEIGHTS,
)

if TYPE_CHECKING:
    from rhostream.loaders.decode import ImageSpec, TextSpec
    from rhostream.loaders.index import CorpusMetadata

#: What a setting needs beside it to change anything: one of these.
_COMPANIONS: Final = {
    "clusters": ("within_clusters", "cluster_floor"),
    "within_clusters": ("clusters",),
    "cluster_floor": ("clusters",),
    "prompts": ("zero_shot",),
}
#: What changes nothing where nothing is scored.
_OF_SCORES: Final = (
    *("proxy", "live_il", "score_age", "score_size", "score_precision", "score_compile"),
    *("score_ahead", "staleness"),
)
#: What a selection that scores is given beside these, and uniform sampling does not take over from it.
_OF_CHOICE: Final = ("prefilter", "share", "temperature", "chunks")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    """Settings of a run. The paper's, where it fixes one (arXiv 2206.07137, section 4 and appendix B).

    Raises:
        ConfigError: a value that its setting does not allow, or values that do not go together. What depends on the
            selection function, the model or the workspace is checked by `rhostream.pipeline.training.plan_training`.
    """

    name: str = setting("", metavar="RUN", help="Name of the run.", unset="the selection function's, or replay-RUN")

    steps: int = setting(1000, group="Budget", minimum=1, metavar="N", help="Budget in gradient steps.")
    epochs: float = setting(
        0.0, group="Budget", minimum=0, metavar="X", unset="off", help="Budget in passes over the training split."
    )
    candidates: int = setting(0, group="Budget", minimum=0, metavar="N", unset="off", help="Budget in candidates.")
    il_runs: int = setting(
        1, group="Budget", minimum=1, metavar="N", help="Runs among which the cost of the IL model is shared."
    )

    model: str = setting(
        "bn_cnn",
        group="Model",
        **MODEL,
    )
    weights: str = setting("", group="Model", **WEIGHTS)
    optimizer: str = setting("AdamW", group="Model", metavar="NAME", help="Class of torch.optim, as AdamW or SGD.")
    learning_rate: float = setting(
        1e-3, group="Model", above=0, metavar="X", help="Its peak, where a schedule moves it."
    )
    weight_decay: float = setting(0.01, group="Model", minimum=0, metavar="X", help="Of the optimizer.")
    momentum: float = setting(
        0.0, group="Model", minimum=0, below=1, metavar="X", help="Of optimizers such as SGD that have one."
    )
    nesterov: bool = setting(False, group="Model", help="Nesterov's momentum, of SGD.")
    optimizer_options: dict[str, Any] = setting(
        {},
        group="Model",
        flag="--optimizer-option",
        metavar="NAME=VALUE",
        help="A further argument of the optimizer's class, its value as JSON (betas=[0.9,0.98]); may be repeated.",
    )
    schedule: Schedule = setting(
        "constant",
        group="Model",
        help="Of the learning rate. cosine and linear end at 0 with the budget; under constant and inverse_sqrt a "
        "finished run can be extended.",
    )
    warmup: float = setting(0.0, group="Model", unset="off", **WARMUP)
    clip_grad_norm: float = setting(0.0, group="Model", **CLIP_GRAD_NORM)
    average_weights: bool = setting(
        True,
        group="Model",
        help="Evaluate and save an average of the weights over the training, of which the last tenth or so counts "
        "most, in place of the last ones, which go on scoring and choosing.",
    )
    augmentation: Augmentation = setting("none", group="Model", **AUGMENTATION)
    contrastive_loss: ContrastiveLoss = setting("softmax", group="Model", **CONTRASTIVE_LOSS)
    seed: int = setting(0, group="Model", **SEED)
    device: str = setting("auto", group="Model", **DEVICE)
    precision: Precision = setting("auto", group="Model", **PRECISION)
    shard_model: bool = setting(
        False,
        group="Model",
        help="Under torchrun: share out parameters, gradients and the optimizer's state (FSDP2) in place of copying "
        "them to every process (DDP).",
    )
    sync_batchnorm: bool = setting(
        False, group="Model", help="Under torchrun, on GPUs: BatchNorm's statistics over the batch of all processes."
    )

    select: str = setting(
        "learnable",
        group="Selection",
        metavar="FUNCTION",
        help=f"Selection function: {', '.join(SELECTION_FUNCTIONS)}; or auto, which finds out while training.",
    )
    replay: str = setting(
        "",
        group="Selection",
        metavar="RUN",
        unset="off",
        help="Train on the very batches that this earlier run was trained on, for as many steps, straight from its "
        "ledger: no other candidate is read, nothing is scored, and the settings of budget, selection and scoring say "
        "nothing.",
    )
    il: str = setting(
        "",
        group="Selection",
        metavar="NAME",
        unset="the only one",
        help="IL table of the workspace, or a Parquet file with the columns key and il.",
    )
    batch_size: int = setting(
        32, group="Selection", minimum=1, metavar="N", help="n_b, trained on in each step, by all processes together."
    )
    super_batch_size: int = setting(
        320, group="Selection", minimum=1, metavar="N", help="n_B, candidates that are scored in each step."
    )
    share: float = setting(
        0.0,
        group="Selection",
        minimum=0,
        maximum=1,
        metavar="X",
        unset="one batch of it",
        help="Of each super-batch that is trained on; more than n_b/n_B makes several steps of one scoring pass.",
    )
    rule: RuleName = setting(
        "default",
        group="Selection",
        unset="the function's own, mostly top",
        help="How candidates are chosen by their scores.",
    )
    temperature: float = setting(1.0, group="Selection", above=0, metavar="X", help="Of the rules gumbel and weighted.")
    chunks: int = setting(
        0,
        group="Selection",
        minimum=0,
        metavar="N",
        unset="16 for the sigmoid loss, 2 for the softmax",
        help="Of a batch, which the rule joint chooses one after the other.",
    )
    class_floor: float = setting(
        0.0,
        group="Selection",
        minimum=0,
        maximum=1,
        metavar="X",
        unset="off",
        help="Each class gets at least X of what uniform sampling would give it.",
    )
    clusters: str = setting(
        "",
        group="Selection",
        metavar="NAME",
        unset="off",
        help="Clusters of `rho cluster` that candidates are told by.",
    )
    within_clusters: bool = setting(
        False,
        group="Selection",
        help="With clusters: draw each super-batch from one of them, where texts are harder to tell apart.",
    )
    cluster_floor: float = setting(
        0.0,
        group="Selection",
        minimum=0,
        maximum=1,
        metavar="X",
        unset="off",
        help="With clusters: each gets at least X of what uniform sampling would give it.",
    )
    score_floor: float | None = setting(
        None,
        group="Selection",
        metavar="X",
        unset="off",
        help="Train on no candidate with a score of X or less; batches then fill from several super-batches.",
    )
    core_set: str = setting(
        "", group="Selection", metavar="NAME", unset="off", help="Train on a core set of `rho coreset` alone."
    )
    prefilter: float | Literal["auto"] = setting(
        0.0,
        group="Selection",
        minimum=0,
        metavar="auto|X",
        unset="off",
        help="Pass over candidates, unread, whose IL model predicts another class and finds the label less likely than "
        "X times a guess; auto chooses X for each class, by what of the IL table looks wrong.",
    )
    handover: bool | None = setting(
        None,
        group="Selection",
        unset="with learnable",
        help="Stop scoring once the model knows as much as the IL model, and go over to uniform sampling of what the "
        "IL table does not rule out.",
    )
    on_missing: Literal["error", "drop"] = setting(
        "error", group="Selection", help="What becomes of samples without a finite IL."
    )

    thumbnails: str = setting(
        "auto",
        group="Scoring",
        metavar="NAME",
        unset="auto: exact ones, else the largest that are smaller",
        help="Score thumbnails of the candidates (`rho thumbnails`), and read the full images of the selected only; "
        "none scores full images.",
    )
    mixed_resolution: float = setting(
        0.0,
        group="Scoring",
        minimum=0,
        maximum=1,
        metavar="X",
        unset="off",
        help="Of pairs that are scored on thumbnails: train a share of each batch on these, too (Flexi-JEST: 0.5).",
    )
    batchnorm: BatchNormPolicy = setting(
        "batch", group="Scoring", help="Statistics while scoring: of the candidates, or the running ones."
    )
    score_ahead: bool = setting(
        False,
        group="Scoring",
        help="Score the next candidates while the model is trained on these: scores are one step old.",
    )
    staleness: int = setting(
        0,
        group="Scoring",
        minimum=0,
        metavar="N",
        unset="0, fresh",
        help="Score N super-batches ahead of the training: scores are N steps old.",
    )
    scorers: int = setting(
        0,
        group="Scoring",
        minimum=0,
        metavar="N",
        unset="0, every process does both",
        help="Under torchrun: the last N processes only score, in turn, for the others, which only train. The ledger "
        "is the same for any N; a staleness of N or more keeps all of them at work.",
    )
    score_age: int = setting(
        1,
        group="Scoring",
        minimum=1,
        metavar="N",
        unset="1, none",
        help="Re-use losses that were computed fewer than N steps ago.",
    )
    score_precision: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        group="Scoring",
        help="Of the scoring pass; auto takes that of training.",
    )
    score_chunk: int = setting(
        0,
        group="Scoring",
        minimum=0,
        metavar="N",
        unset="all that a process has",
        help="Candidates that are scored in one pass, at most. With the same N the scores are the same under any "
        "number of processes.",
    )
    score_size: int = setting(
        0,
        group="Scoring",
        minimum=0,
        metavar="PIXELS",
        unset="as they are",
        help="Shrink candidates for the scoring pass.",
    )
    score_compile: bool = setting(False, group="Scoring", help="Score by torch.compile.")
    proxy: bool = setting(
        False,
        group="Scoring",
        help="Score by a small model of the IL model's architecture that is trained along.",
    )
    live_il: bool = setting(
        False,
        group="Scoring",
        help="Let the IL model go on learning: the paper's original function, an ablation.",
    )

    last: Literal["drop", "keep"] = setting(
        "drop",
        group="Reading",
        help="Candidates at an epoch's end that do not fill a super-batch: drop leaves them out of this epoch, others "
        "of the next; keep takes a step on a smaller batch.",
    )
    image_size: int = setting(
        0,
        group="Reading",
        **IMAGE_SIZE,
    )
    tokenizer: str = setting("", group="Reading", **TOKENIZER)
    text_length: int = setting(0, group="Reading", **TEXT_LENGTH)
    threads: int = setting(
        0,
        group="Reading",
        minimum=0,
        metavar="N",
        unset="one a core, half of them where the model trains on the CPU",
        help="Decoding threads.",
    )
    workers: str = setting(
        "auto",
        group="Reading",
        metavar="N",
        variable="RHO_DECODE_WORKERS",
        pattern=r"auto|\d+",
        form="give a number of decoding processes, or auto",
        help="Decoding processes; auto starts them once they are worth it.",
    )

    evaluate_every: int = setting(
        0,
        group="Logging",
        minimum=0,
        metavar="N",
        unset="a twentieth of the budget",
        help="Steps between evaluations, each with a checkpoint.",
    )
    checkpoint_minutes: float = setting(10.0, group="Logging", **CHECKPOINT_MINUTES)
    evaluate_at_most: int = setting(
        0, group="Logging", minimum=0, metavar="N", unset="all", help="Samples to evaluate on."
    )
    metric: Metric = setting(
        "auto",
        group="Logging",
        unset="auto: accuracy; of multi-label corpora mean average precision, of pairs recall@10",
        help="What runs are compared by, in tables, charts and reports: accuracy, Matthews correlation (mcc) or the "
        "mean over the classes of F1 (f1), all of which are measured; of pairs recall, or zero_shot.",
    )
    zero_shot: str = setting(
        "",
        group="Logging",
        metavar="COLUMN",
        unset="off",
        help="Of pairs: classify the evaluated images by prompts, too; their classes are the values of this column of "
        "samples.",
    )
    prompts: tuple[str, ...] = setting(
        ("a photo of a {}",),
        group="Logging",
        flag="--prompt",
        metavar="TEXT",
        help="Of zero_shot: what is said of a class, whose name takes the place of {}; several are averaged, so it may "
        "be repeated.",
    )
    tensorboard: bool | None = setting(
        None,
        group="Logging",
        unset="where it is installed",
        help="Write TensorBoard's event files beside the run's metrics.",
    )
    wandb: str = setting(
        "",
        group="Logging",
        metavar="PROJECT",
        unset="off",
        help="Log to this project of Weights & Biases too (`pip install rhostream[wandb]`; its own variables hold, "
        "for instance WANDB_MODE=offline).",
    )

    def input_spec(self, corpus: "CorpusMetadata") -> "ImageSpec | TextSpec":
        """Of the images or texts that the model sees: the manifest's, but for what is set here."""
        return corpus.input_spec(image_size=self.image_size, tokenizer=self.tokenizer, text_length=self.text_length)

    def text_spec(self, corpus: "CorpusMetadata") -> "TextSpec | None":
        """Of the captions of pairs; None of other samples."""
        return corpus.text_spec(self.tokenizer, self.text_length) if corpus.task == "pairs" else None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.super_batch_size:
            raise ConfigError(
                f"batch size {self.batch_size} exceeds the super-batch size {self.super_batch_size}: there must be at "
                "least as many candidates as are chosen"
            )
        if self.epochs and self.candidates:
            raise ConfigError(f"epochs {self.epochs} and candidates {self.candidates}: give the budget in one unit")
        require_warmup(self.warmup)
        self._require_companions()
        if self.within_clusters and self.cluster_floor:
            raise ConfigError("within_clusters with cluster_floor: a super-batch of one cluster has no others to spare")
        if self.metric == "zero_shot" and not self.zero_shot:
            raise ConfigError("metric 'zero_shot' of no classes: name the column that tells them with zero_shot")
        if strange := [prompt for prompt in self.prompts if "{}" not in prompt]:
            raise ConfigError(f"prompt {strange[0]!r}: write {{}} where the name of the class belongs")
        if not self.prompts:
            raise ConfigError("prompts: give one at least")
        if self.score_chunk == 1:
            raise ConfigError("score_chunk 1: BatchNorm has no statistics of one candidate; give 2 or more")
        if self.shard_model and (self.score_ahead or self.score_compile):
            raise ConfigError(
                "shard_model with score_ahead or score_compile: a model whose parameters are shared out is neither "
                "copied nor compiled for scoring; leave one out"
            )
        if self.staleness and self.score_ahead:
            raise ConfigError("staleness with score_ahead, which is a staleness of 1 in a thread: give one of them")
        if self.scorers and (asked := self._unfit_for_scorers()):
            raise ConfigError(f"scorers with {asked}, which the learners decide on or learn along: leave one out")
        if self.proxy and self.live_il:
            raise ConfigError("proxy and live_il: score by the one or the other")
        if self.hands_over and self.live_il:
            raise ConfigError(
                f"live_il with handover, which {self.select!r} has by default: the IL model learns along, and is never "
                "caught up with; give --select rho_loss or --no-handover"
                if self.handover is None
                else "handover with live_il: the IL model learns along, and is never caught up with"
            )
        if self.select == AUTO:
            self._check_auto()

    def with_selection(self, *, select: str, **settings: Any) -> "TrainConfig":
        """These settings under another selection; under uniform sampling without those that are for one that scores.

        Args:
            settings: of the other selection itself.
        """
        left_out = (*_OF_SCORES, *_OF_CHOICE) if select == "uniform" else ()
        changed: dict[str, Any] = {each.name: each.default for each in fields(self) if each.name in left_out} | settings
        return replace(self, select=select, **changed)

    @property
    def given_of_scores(self) -> tuple[str, ...]:
        """Names of the settings that were given, and change nothing where nothing is scored."""
        return self._given(*_OF_SCORES)

    def _given(self, *names: str) -> tuple[str, ...]:
        """Those of these settings that differ from their defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return tuple(name for name in names if getattr(self, name) != defaults[name])

    def _require_companions(self) -> None:
        """Raises ConfigError for a setting that changes nothing without another one, which was not given."""
        for name in self._given(*_COMPANIONS):
            if not self._given(*_COMPANIONS[name]):
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} alone changes nothing: give {' or '.join(_COMPANIONS[name])}, "
                    "too, or leave it out"
                )

    def _unfit_for_scorers(self) -> str | None:
        """The first setting whose scores depend on more than the weights and the candidates."""
        unfit = {
            f"select {self.select!r}": self.select in (AUTO, "uniform", "grad_norm_is"),
            "handover (give --no-handover)": self.hands_over,
            "share": self.share > 0,
            "score_floor": self.score_floor is not None,
            "score_ahead": self.score_ahead,
            "score_age": self.score_age > 1,
            "proxy": self.proxy,
            "live_il": self.live_il,
            "replay": bool(self.replay),
        }
        return next((name for name, given in unfit.items() if given), None)

    def _check_auto(self) -> None:
        if self.handover:
            raise ConfigError("select 'auto' decides itself when to stop scoring: leave handover out")
        if (
            self.share
            or self.rule != "default"
            or self.temperature != 1
            or self.chunks
            or self.class_floor
            or self.cluster_floor
            or self.score_floor is not None
        ):
            raise ConfigError(
                "select 'auto' decides on share, rule (with temperature and chunks) and floors itself: leave them out"
            )
        if self.core_set:
            raise ConfigError("select 'auto' with core_set: it judges its filter by the whole corpus; leave one out")
        if self.live_il:
            raise ConfigError("select 'auto' with live_il: it compares selections by one IL table that stays as it is")

    @property
    def hands_over(self) -> bool:
        return self.select == "learnable" if self.handover is None else self.handover

    @property
    def run_name(self) -> str:
        return self.name or (f"replay-{self.replay}" if self.replay else self.select)

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """Of the optimizer's class, beside the learning rate and the weight decay."""
        given = {"momentum": self.momentum, "nesterov": self.nesterov}
        return {name: value for name, value in given.items() if value} | self.optimizer_options
