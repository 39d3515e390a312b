"""The ready questions by name, without what answers them: light enough for the command line's help."""

from dataclasses import dataclass
from typing import Final, Literal

Option = Literal["run", "il", "class", "split", "steps", "by"]


@dataclass(frozen=True, kw_only=True)
class Title:
    """A question in one line.

    Attributes:
        takes: options that bear on the answer; another one that is given is refused.
        runs: names of runs that follow the question on the command line.
    """

    text: str
    takes: frozenset[Option]
    runs: int = 0


def _takes(*options: Option) -> frozenset[Option]:
    return frozenset(options)


QUESTIONS: Final[dict[str, Title]] = {
    "reasons": Title(
        text="How many samples are skipped, for which reason?", takes=_takes("run", "il", "class", "steps")
    ),
    "skipped": Title(
        text="Which samples are never or rarely selected, and why?", takes=_takes("run", "il", "class", "steps")
    ),
    "mislabeled": Title(
        text="Which labels (or captions) are likely wrong? With clean_label (mismatched): precision and recall.",
        takes=_takes("run", "il", "class", "steps", "split"),
    ),
    "redundant": Title(
        text="Which samples has the model learnt without needing them?", takes=_takes("run", "il", "class", "steps")
    ),
    "classes": Title(
        text="Which classes (or --by values) does selection take, and which does it starve?",
        takes=_takes("run", "class", "steps", "by"),
    ),
    "il": Title(
        text="How does the selection rate depend on the irreducible loss?",
        takes=_takes("run", "il", "class", "steps"),
    ),
    "run": Title(
        text="How did loss, IL, score and the shares of wrong and learnt labels move over the run?",
        takes=_takes("run", "class", "steps"),
    ),
    "duplicates": Title(
        text="Which images stand under different labels (or captions)?", takes=_takes("class", "split")
    ),
    "copies": Title(
        text="Which images look the same: encoded, resized or cropped again?", takes=_takes("class", "split")
    ),
    "rejects": Title(text="What was refused, and why?", takes=_takes()),
    "diff": Title(text="What did two runs choose differently?", takes=_takes("class", "steps"), runs=2),
}
