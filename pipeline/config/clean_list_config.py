"""The settings of `rho export list`."""

from dataclasses import dataclass

from rhostream.errors import ConfigError
from rhostream.pipeline.config.definition import StageConfig, setting
from rhostream.pipeline.config.shared import IL_NAME


@dataclass(frozen=True, kw_only=True)
class CleanListConfig(StageConfig):
    """What becomes of which samples.

    With a run, a label that the run's model has come to predict is no issue.

    Raises:
        ConfigError: a value that its setting does not allow, or a reason that only a run can tell without one.
    """

    run: str | None = setting(
        None, metavar="RUN", help="Use the reasons of this run; without it the IL model alone decides."
    )
    il: str | None = setting(None, **IL_NAME, unset="the run's, or the only one", help="The IL model that is meant.")
    drop: tuple[str, ...] = setting(
        ("mislabeled",),
        metavar="REASON",
        help="Leave out samples with this reason; may be repeated. All but mislabeled need --run.",
    )
    relabel: float | None = setting(
        None,
        minimum=0,
        maximum=1,
        metavar="P",
        unset="off",
        help="Relabel likely wrong labels where the IL model is at least this confident.",
    )

    max_drop_share: float = setting(
        0.5,
        minimum=0,
        maximum=1,
        metavar="X",
        help="A list that drops a larger share of the training samples, of all or of any class, is refused.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run is None and (of_runs := sorted(set(self.drop) - {"mislabeled"})):
            raise ConfigError(f"--drop {of_runs[0]}: only a run can tell, name one with --run")
