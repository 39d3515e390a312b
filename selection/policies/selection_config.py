"""The settings of a selector."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

from rhostream.errors import ConfigError
from rhostream.selection.rules import (
    ClassFloor,
    ClusterFloor,
    GumbelTop,
    Importance,
    Joint,
    Rule,
    ScoreFloor,
    Top,
    Weighted,
)
from rhostream.selection.scoring import SelectionFunction, selection_function

RuleName = Literal["default", "top", "gumbel", "importance", "joint", "weighted"]
RULES: tuple[str, ...] = get_args(RuleName)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """How batches of n_b are chosen from super-batches of n_B.

    Attributes:
        function: name of a selection function.
        batch_size: n_b.
        share: of each super-batch that is chosen, in (0, 1]; more than n_b / n_B re-uses one scored super-batch for
            several steps. 0 chooses one batch, n_b.
        prefilter: have the stream rule candidates out by their IL before they are read, if it was given a prefilter.
        rule: "default" is the function's own (`top` for most).
        temperature: of the rules "gumbel" and "weighted".
        chunks: of a batch, which the rule "joint" chooses one after the other; 0 for the paper's number.
        class_floor: no class gets less than this share of what uniform sampling would give it; 0 is off.
        cluster_floor: the same of clusters, where the stream joins them.
        score_floor: candidates whose score is not above it are not chosen; batches are then filled from several
            super-batches. None is off.
        full: take steps on whole batches only: what is chosen beyond them waits for the next super-batch.

    Raises:
        ConfigError: an unknown name, or a number out of its range.
    """

    function: str = "rho_loss"
    batch_size: int = 32
    share: float = 0.0
    prefilter: bool = True
    rule: RuleName = "default"
    temperature: float = 1.0
    chunks: int = 0
    class_floor: float = 0.0
    cluster_floor: float = 0.0
    score_floor: float | None = None
    full: bool = False

    def __post_init__(self) -> None:
        selection_function(self.function)
        if self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size}: a step needs at least one sample")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share {self.share}: give a part of the super-batch between 0 and 1; 0 is one batch")
        if self.rule not in RULES:
            raise ConfigError(f"rule {self.rule!r}: choose one of {', '.join(RULES)}")
        self.make_rule()  # raises for what the rules refuse
        by_score = (
            ("rule", self.rule != "default"),
            ("class_floor", self.class_floor > 0),
            ("cluster_floor", self.cluster_floor > 0),
            ("score_floor", self.score_floor is not None),
        )
        if not self.scores and (given := [name for name, is_given in by_score if is_given]):
            raise ConfigError(f"{', '.join(given)} with {self.function}, which has no scores: use another function")
        rule = self._inner_rule()
        for name, is_given, needs, names in (
            ("temperature", self.temperature != 1, (GumbelTop, Weighted), "rules gumbel and weighted"),
            ("chunks", self.chunks != 0, (Joint,), "rule joint"),
        ):
            if is_given and not isinstance(rule, needs):
                raise ConfigError(
                    f"{name} {getattr(self, name)} alone changes nothing: it is of the {names}; choose "
                    f"{'one of these' if len(needs) > 1 else 'that'}, or leave it out"
                )
        if rule.takes_all and self.share:
            raise ConfigError(f"share {self.share} with the rule weighted, which leaves nothing out: leave share out")
        if self.class_floor and self.cluster_floor:
            raise ConfigError("class_floor and cluster_floor: a batch is shared out by the one or the other")
        self._check_pairs()

    def _check_pairs(self) -> None:
        together, rule = self.chosen_by.together, self._inner_rule()
        if isinstance(rule, Joint) and together is None:
            raise ConfigError(
                f"rule joint with {self.function}, which scores each candidate alone: use learnability, easy_reference "
                "or hard_learner"
            )
        if isinstance(rule, Joint) and (self.class_floor or self.cluster_floor or self.score_floor is not None):
            raise ConfigError("the rule joint with a floor, which would choose each alone: leave one out")
        if together is not None and isinstance(rule, Importance):
            raise ConfigError(f"rule importance with {self.function}, whose scores may be negative: use gumbel")

    @property
    def chosen_by(self) -> SelectionFunction:
        return selection_function(self.function)

    @cached_property
    def scores(self) -> bool:
        """Are candidates scored? Not for uniform sampling."""
        return self.chosen_by.score is not None

    @cached_property
    def queues(self) -> bool:
        """Are batches filled from more or less than one super-batch each?"""
        return self.full or self.share > 0 or self.score_floor is not None or self.make_rule().falls_short

    @cached_property
    def label(self) -> str:
        """What the ledger says of it: the function, and what differs from the defaults ("rho_loss share=0.25")."""
        differing = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if field.name not in ("function", "full") and getattr(self, field.name) != field.default
        ]
        return " ".join([self.function, *differing])

    @property
    def takes_all(self) -> bool:
        """Is every candidate trained on?"""
        return not self.scores or self._inner_rule().takes_all

    def make_rule(self) -> Rule:
        """The rule that chooses, floors around it; a new one for each run."""
        rule = self._inner_rule()
        if self.class_floor:
            rule = ClassFloor(rule, self.class_floor)
        if self.cluster_floor:
            rule = ClusterFloor(rule, self.cluster_floor)
        return rule if self.score_floor is None else ScoreFloor(rule, self.score_floor)

    def _inner_rule(self) -> Rule:
        rules: dict[str, Callable[[], Rule]] = {
            "top": Top,
            "gumbel": lambda: GumbelTop(self.temperature),
            "importance": Importance,
            "joint": lambda: Joint(self.chunks),
            "weighted": lambda: Weighted(self.temperature),
        }
        own = self.chosen_by.rule
        with_settings: dict[Any, Callable[[], Rule]] = {Joint: rules["joint"], Weighted: rules["weighted"]}
        return rules.get(self.rule, with_settings.get(own, own))()

    def quota(self, available: int, size: int) -> int:
        """How many to choose of a super-batch for which `available` candidates were there of the `size` asked for."""
        if self.scores and self.takes_all:
            return available
        if self.share:
            return max(1, round(self.share * available))
        return max(min(2, self.batch_size), round(self.batch_size * min(1.0, available / size)))
