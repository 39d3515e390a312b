"""What the selection of a run needs, and whether its settings go together: known before anything is read."""

from dataclasses import dataclass

from rhostream.errors import ConfigError
from rhostream.pipeline.config import AUTO, TrainConfig
from rhostream.selection.policies import SelectionConfig, require_comparison
from rhostream.selection.scoring import selection_function, selection_functions
from rhostream.selection.tasks import MultiLabel, Pairs, Task


@dataclass(frozen=True, kw_only=True)
class SelectionPlan:
    """What follows from the settings of the selection.

    Attributes:
        config: how batches are chosen, where one selection is in force all the time; None under `auto` and in a replay.
        scores: is there a scoring pass, at least at times?
        needs_il: is an IL table joined?
        drawn_at_once: candidates of a super-batch: n_B; what leaves none out draws no more than it trains on.
        candidates_per_step: on average; None where it is not known beforehand.
    """

    config: SelectionConfig | None
    scores: bool
    needs_il: bool
    drawn_at_once: int
    candidates_per_step: float | None


def require_selection(name: str) -> None:
    """Raises ConfigError where this is neither a selection function nor `auto`."""
    if name not in (*selection_functions(), AUTO):
        raise ConfigError(f"select {name!r}: known are {', '.join((AUTO, *selection_functions()))}")


def plan_selection(config: TrainConfig) -> SelectionPlan:
    """The selection that the settings ask for.

    Raises:
        ConfigError: an unknown function, or settings that do not go with it.
    """
    if config.replay:
        size = config.batch_size
        return SelectionPlan(config=None, scores=False, needs_il=False, drawn_at_once=size, candidates_per_step=None)
    require_selection(config.select)
    by_il = bool(config.prefilter) or config.proxy or config.live_il
    if config.select == AUTO:
        return SelectionPlan(
            config=None, scores=True, needs_il=True, drawn_at_once=config.super_batch_size, candidates_per_step=None
        )
    function = selection_function(config.select)
    scores = function.score is not None
    selection = SelectionConfig(
        function=config.select,
        batch_size=config.batch_size,
        share=config.share,
        rule=config.rule,
        temperature=config.temperature,
        chunks=config.chunks,
        class_floor=config.class_floor,
        cluster_floor=config.cluster_floor,
        score_floor=config.score_floor,
        # What the stream passes over would leave short batches.
        full=not scores and bool(config.prefilter or config.core_set),
    )
    if not scores and (given := config.given_of_scores):
        raise ConfigError(f"{', '.join(given)} with select {config.select!r}, which scores nothing: leave it out")
    if not scores and config.share:
        raise ConfigError(f"share {config.share} with select {config.select!r}, which trains on all that it draws")
    if config.hands_over:
        require_comparison(selection)
    if config.score_ahead and "draws" in function.needs:
        raise ConfigError(
            f"score_ahead with select {config.select!r}, whose random numbers the training would meet: "
            "leave score_ahead out"
        )
    if config.scorers and "draws" in function.needs:
        raise ConfigError(
            f"scorers with select {config.select!r}, whose random numbers follow the calls of one process: leave "
            "scorers out"
        )
    drawn_at_once = config.batch_size if selection.takes_all else config.super_batch_size
    varies = config.hands_over or config.select == "grad_norm_is" or selection.full or selection.make_rule().falls_short
    return SelectionPlan(
        config=selection,
        scores=scores,
        needs_il=by_il or bool(function.needs & {"il", "reference"}),
        drawn_at_once=drawn_at_once,
        candidates_per_step=None if varies else config.batch_size / config.share if config.share else drawn_at_once,
    )


def require_task(config: TrainConfig, task: Task) -> None:
    """Raises ConfigError for settings that ask for the one class of each sample, where it has a list of them or none.

    And for selections of image-text pairs where there are none, or others where there are.
    """
    function = None if config.select == AUTO else selection_function(config.select)
    of_pairs = function is not None and function.of_pairs
    if config.metric in ("mcc", "f1") and isinstance(task, (MultiLabel, Pairs)):
        raise ConfigError(
            f"metric {config.metric!r} is of one class a sample, and the corpus "
            f"{'has image-text pairs' if isinstance(task, Pairs) else 'is multi-label'}: leave it out"
        )
    if config.zero_shot and not isinstance(task, Pairs):
        raise ConfigError(
            f"zero_shot {config.zero_shot!r} is for image-text pairs, which the corpus has not: leave it out"
        )
    if isinstance(task, Pairs):
        if not (config.replay or of_pairs or (function is not None and function.score is None)):
            raise ConfigError(
                f"select {config.select!r}, and the corpus has image-text pairs: choose learnability, jest, "
                "drrho, easy_reference, hard_learner or uniform"
            )
        unfit = ("replay", "prefilter", "class_floor", "live_il", "scorers")
        if asked := [name for name in unfit if getattr(config, name)]:
            raise ConfigError(f"{asked[0]} is not for image-text pairs, which the corpus has: leave it out")
        return
    if config.contrastive_loss != "softmax":
        raise ConfigError("contrastive_loss is for image-text pairs, which the corpus does not have: leave it out")
    if config.mixed_resolution:
        raise ConfigError("mixed_resolution is for image-text pairs, which the corpus does not have: leave it out")
    if of_pairs:
        raise ConfigError(
            f"select {config.select!r} scores image-text pairs, which the corpus does not have: choose "
            "another selection, learnable for instance"
        )
    if not isinstance(task, MultiLabel):
        return
    auto = config.select == AUTO
    settings = {
        f"select {config.select!r}": auto or selection_function(config.select).reads_logits,
        "prefilter": bool(config.prefilter),
        "class_floor": config.class_floor > 0,
    }
    if asked := [name for name, given in settings.items() if given]:
        raise ConfigError(
            f"{asked[0]} asks for the one class of each sample, and the corpus is multi-label: choose a selection "
            "function that reads the loss alone (learnable, rho_loss, train_loss, irreducible_loss, "
            "selective_backprop, uniform), and leave prefilter and class_floor out"
        )
