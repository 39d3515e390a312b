"""What a synthetic corpus holds, decided without drawing: true and given labels, repeated pictures, broken files."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.pipeline.corpora.synthetic.garments import GARMENTS

CLASSES: Final = tuple(GARMENTS)

#: The commonest first; the last class has a `TAIL`-th of the first one's images.
COMMONEST: Final = (
    "T-Shirt",
    "Dress",
    "Sweater",
    "Shirt",
    "Jacket",
    "Hoodie",
    "Downcoat",
    "Underwear",
    "Knitwear",
    "Suit",
    "Chiffon",
    "Windbreaker",
    "Vest",
    "Shawl",
)
TAIL: Final = 6.0

#: For each class how often it is mislabeled, relative to the others, and as what.
MISTAKEN_FOR: Final[dict[str, tuple[float, tuple[str, str, str]]]] = {
    "T-Shirt": (0.7, ("Shirt", "Vest", "Sweater")),
    "Shirt": (0.9, ("Jacket", "T-Shirt", "Chiffon")),
    "Knitwear": (1.3, ("Sweater", "Shawl", "Hoodie")),
    "Chiffon": (1.2, ("Shirt", "Shawl", "Dress")),
    "Sweater": (1.2, ("Knitwear", "T-Shirt", "Hoodie")),
    "Hoodie": (0.9, ("Sweater", "Windbreaker", "Jacket")),
    "Windbreaker": (1.3, ("Jacket", "Hoodie", "Downcoat")),
    "Jacket": (1.2, ("Windbreaker", "Suit", "Downcoat")),
    "Downcoat": (0.8, ("Windbreaker", "Jacket", "Hoodie")),
    "Suit": (0.8, ("Jacket", "Shirt", "Vest")),
    "Shawl": (1.2, ("Chiffon", "Knitwear", "Dress")),
    "Dress": (0.8, ("Chiffon", "Underwear", "Shawl")),
    "Vest": (1.3, ("T-Shirt", "Underwear", "Suit")),
    "Underwear": (1.0, ("Vest", "Dress", "Chiffon")),
}
ANYTHING_AT_ALL: Final = 0.2  # share of the wrong labels that are no look-alike: the words beside the picture misled
EXACT: Final = 0.4  # share of the duplicates that are byte-identical

#: What is wrong, or merely odd, with two training files each.
DEFECTS: Final = ("missing", "truncated", "empty", "html", "cmyk", "rgba_png", "grayscale")
FILES_PER_DEFECT: Final = 2
FEWEST_IMAGES: Final = 100


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """A synthetic corpus is a function of these alone.

    Attributes:
        images: training entries, broken files included.
        test_images: of the test set; the validation set has a quarter of that. Both are balanced over the classes,
            correctly labeled, and repeat no training image.
        side: of the square images, in pixels.
        wrong_labels: share of the training labels that are wrong.
        duplicates: share of the training entries that show another entry's picture again.
    """

    images: int = 24_000
    test_images: int = 2_100
    side: int = 64
    wrong_labels: float = 0.38
    duplicates: float = 0.12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < FEWEST_IMAGES or self.test_images < len(CLASSES):
            raise ConfigError(
                f"images {self.images}, test_images {self.test_images}: a synthetic corpus needs at least "
                f"{FEWEST_IMAGES} and {len(CLASSES)}"
            )
        if self.side < 16:
            raise ConfigError(f"side {self.side}: garments need at least 16 pixels")
        if not (0 <= self.wrong_labels <= 0.6 and 0 <= self.duplicates <= 0.5):
            raise ConfigError(
                f"wrong_labels {self.wrong_labels}, duplicates {self.duplicates}: give shares of at most 0.6 and 0.5"
            )

    @property
    def val_images(self) -> int:
        return self.test_images // 4

    @property
    def total(self) -> int:
        return self.images + self.val_images + self.test_images


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Entries are numbered: training, then validation, then test.

    Attributes:
        true: int64 (total,), what the picture shows.
        given: int64 (images,), the label of a training entry.
        picture: int64 (total,), the number of the entry whose picture this one shows; mostly its own.
        exact: bool (total,), whether a repeated picture is the same file byte for byte.
        defects: training entries whose file is broken or odd; none of their pictures is repeated.
    """

    true: npt.NDArray[np.int64]
    given: npt.NDArray[np.int64]
    picture: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]
    defects: dict[int, str]


def class_shares() -> npt.NDArray[np.float64]:
    """Of the training entries, by class: float64 (14,), a geometric long tail."""
    ranks = np.array([COMMONEST.index(name) for name in CLASSES])
    weights = TAIL ** (-ranks / (len(CLASSES) - 1))
    return np.asarray(weights / weights.sum(), np.float64)


@cache
def plan(options: SyntheticOptions) -> Plan:
    """The plan of a corpus, the same on every machine."""
    random = np.random.default_rng((options.seed, 1))
    count = options.images
    true = random.choice(len(CLASSES), count, p=class_shares())
    shuffled = random.permutation(count)
    broken, others = np.split(shuffled, [FILES_PER_DEFECT * len(DEFECTS)])
    repeats, originals = np.split(others, [round(options.duplicates * count)])
    picture = np.arange(options.total)
    picture[repeats] = random.choice(originals, len(repeats))
    true[repeats] = true[picture[repeats]]
    exact = np.zeros(options.total, np.bool_)
    exact[repeats] = random.random(len(repeats)) < EXACT
    return Plan(
        true=np.concatenate([true, np.arange(options.total - count) % len(CLASSES)]),
        given=_given_labels(true, options.wrong_labels, random),
        picture=picture,
        exact=exact,
        defects={int(number): DEFECTS[k % len(DEFECTS)] for k, number in enumerate(broken)},
    )


def _given_labels(
    true: npt.NDArray[np.int64], wrong_labels: float, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Labels of which a share is wrong; those of repeated pictures are drawn anew, so they may disagree."""
    relative = np.array([MISTAKEN_FOR[name][0] for name in CLASSES])
    rate = relative * wrong_labels / (class_shares() @ relative)
    look_alikes = np.array([[CLASSES.index(other) for other in MISTAKEN_FOR[name][1]] for name in CLASSES])
    wrong = look_alikes[true, random.integers(look_alikes.shape[1], size=len(true))]
    anything = (true + random.integers(1, len(CLASSES), len(true))) % len(CLASSES)
    wrong = np.where(random.random(len(true)) < ANYTHING_AT_ALL, anything, wrong)
    return np.where(random.random(len(true)) < rate[true], wrong, true)
