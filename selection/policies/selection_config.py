"""The settings of a selector."""

from dataclasses import dataclass, fields
from typing import Literal, get_args

from rhostream.errors import ConfigError
from rhostream.selection.rules import ClassFloor, GumbelTop, Importance, Rule, ScoreFloor, Top
from rhostream.selection.scoring import SelectionFunction, selection_function

RuleName = Literal["default", "top", "gumbel", "importance"]
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
        temperature: of the rule "gumbel".
        class_floor: no class gets less than this share of what uniform sampling would give it; 0 is off.
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
    class_floor: float = 0.0
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
            ("score_floor", self.score_floor is not None),
        )
        if not self.scores and (given := [name for name, is_given in by_score if is_given]):
            raise ConfigError(f"{', '.join(given)} with {self.function}, which has no scores: use another function")

    @property
    def chosen_by(self) -> SelectionFunction:
        return selection_function(self.function)

    @property
    def scores(self) -> bool:
        """Are candidates scored? Not for uniform sampling."""
        return self.chosen_by.score is not None

    @property
    def queues(self) -> bool:
        """Are batches filled from more or less than one super-batch each?"""
        return self.full or self.share > 0 or self.score_floor is not None or self.make_rule().falls_short

    @property
    def label(self) -> str:
        """What the ledger says of it: the function, and what differs from the defaults ("rho_loss share=0.25")."""
        differing = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if field.name not in ("function", "full") and getattr(self, field.name) != field.default
        ]
        return " ".join([self.function, *differing])

    def make_rule(self) -> Rule:
        """The rule that chooses, floors around it; a new one for each run."""
        rules = {
            "default": self.chosen_by.rule,
            "top": Top,
            "gumbel": lambda: GumbelTop(self.temperature),
            "importance": Importance,
        }
        rule = rules[self.rule]()
        if self.class_floor:
            rule = ClassFloor(rule, self.class_floor)
        return rule if self.score_floor is None else ScoreFloor(rule, self.score_floor)

    def quota(self, available: int, size: int) -> int:
        """How many to choose of a super-batch for which `available` candidates were there of the `size` asked for."""
        if self.share:
            return max(1, round(self.share * available))
        return max(min(2, self.batch_size), round(self.batch_size * min(1.0, available / size)))
