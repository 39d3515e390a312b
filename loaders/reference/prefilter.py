"""The prefilter: candidates that their irreducible loss rules out before they are read."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.reference.joined_rows import JoinedRows


@dataclass(frozen=True, kw_only=True)
class Prefilter:
    """Rules candidates out by their irreducible loss, before they are read.

    A candidate goes where the IL model predicts another class *and* finds the label less likely than `chance` times
    a guess: IL > -ln(chance / classes). Such a point is mostly mislabeled, and its reducible loss is low.

    Attributes:
        chance: 1 is the probability that guessing gives to the label; smaller rules out fewer. One for all classes, or
            one of each, in their order: `rhostream.pipeline.il.il_quality` chooses these by a table.
    """

    chance: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        each = np.atleast_1d(self.chance)
        if not len(each) or not (each > 0).all() or not np.isfinite(each).all():
            raise ConfigError(
                f"prefilter {self.chance}: give a number above 0 (1 is the probability of a guess), or one a class"
            )

    def rules_out(self, joined: JoinedRows, labels: npt.NDArray[np.int32], classes: int) -> npt.NDArray[np.bool_]:
        """bool (n,): the candidates that need not be read.

        Raises:
            ConfigError: the IL table does not tell what its model predicts, or there are more or fewer classes.
        """
        if isinstance(self.chance, tuple) and len(self.chance) != classes:
            raise ConfigError(f"prefilter: {len(self.chance)} numbers for {classes} classes; give one of each")
        if len(labels) and (joined.predicted < 0).all():
            raise ConfigError(
                "a prefilter (select=auto has one, too) needs the class that the IL model predicts; this IL table has "
                "no column `predicted`: add it, or leave the prefilter out"
            )
        disagrees = (joined.predicted >= 0) & (joined.predicted != labels)
        highest = np.log(classes / np.asarray(self.chance))
        ruled_out: npt.NDArray[np.bool_] = disagrees & (joined.il > (highest[labels] if highest.ndim else highest))
        return ruled_out
