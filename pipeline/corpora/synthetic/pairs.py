"""The embedded demo corpus of image-text pairs: drawn garments and captions, some of them wrong, the truth known."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.loaders.decode import available_cores
from rhostream.loaders.storage import read_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.synthetic.corpus import encoded
from rhostream.pipeline.corpora.synthetic.drawn_folder import draw_folder, root_of
from rhostream.pipeline.corpora.synthetic.outfits import Outfit
from rhostream.pipeline.corpora.synthetic.photographs import draw
from rhostream.pipeline.corpora.table import Table, TableOptions

CAPTIONS: Final = "captions.csv"  # written last: the corpus is complete
DRAWING: Final = 1  # of pictures and captions; raised when the same options draw others

BOILERPLATE: Final = (
    "Buy online at best price",
    "product image",
    "click to enlarge",
    "new arrivals",
    "Image 1 of 5",
    "",
)
#: What is wrong with a wrong caption, and how often of ten times.
WRONG: Final = {"shuffled": 6, "near": 2, "boilerplate": 2}
_TRUE: Final = "none"


@dataclass(frozen=True, kw_only=True)
class SyntheticPairsOptions:
    """A synthetic corpus of pairs is a function of these alone.

    Attributes:
        images: training pairs.
        holdout_images, test_images: of the holdout and the test set, all of whose captions are true.
        side: of the square images, in pixels.
        wrong_captions: share of the training pairs whose caption is another one's, tells of another color, or tells
            nothing.
    """

    images: int = 10_000
    holdout_images: int = 4_000
    test_images: int = 1_000
    side: int = 48
    wrong_captions: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.images, self.holdout_images, self.test_images) < 1:
            raise ConfigError(
                f"images {self.images}, holdout_images {self.holdout_images}, test_images {self.test_images}: a "
                "synthetic corpus of pairs needs one of each at least"
            )
        if self.side < 16:
            raise ConfigError(f"side {self.side}: garments need at least 16 pixels")
        if not 0 <= self.wrong_captions <= 0.9:
            raise ConfigError(f"wrong_captions {self.wrong_captions}: give a share of at most 0.9")

    @property
    def total(self) -> int:
        return self.images + self.holdout_images + self.test_images


class SyntheticPairs:
    """Draws the corpus at the manifest's root when first listed, unless it is there; then reads it as any table."""

    Options = SyntheticPairsOptions
    classes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("image", "text")
    extra_columns: Mapping[str, pa.DataType] = {
        "mismatched": pa.bool_(),
        "wrong": pa.string(),
        "true_caption": pa.string(),
    }

    def __init__(self, manifest: Manifest, options: SyntheticPairsOptions) -> None:
        """Draws nothing yet.

        Raises:
            ConfigError: another task.
            CorpusError: no root, or one that holds something else.
        """
        if manifest.task != "pairs":
            raise ConfigError(f'manifest {manifest.name!r}: format synthetic_pairs has captions: say task = "pairs"')
        self._manifest, self._options, self._root = manifest, options, root_of(manifest, _stamp(options))

    def entries(self) -> Iterator[Entry]:
        write_pairs(self._root, self._options, processes=available_cores())
        options = TableOptions(file=CAPTIONS, text_column="caption", split_column="split")
        yield from Table(self._manifest, options).entries()

    def read(self, entry: Entry) -> bytes:
        return read_file(self._root / entry.source)


def write_pairs(root: Path, options: SyntheticPairsOptions, *, processes: int) -> None:
    """Draw the corpus unless it is complete, see `draw_folder`."""
    draw_folder(
        root,
        stamp=_stamp(options),
        images=options.total,
        draw=partial(_image_file, options=options),
        key=_key,
        lists={CAPTIONS: _captions(options)},
        processes=processes,
    )


def _stamp(options: SyntheticPairsOptions) -> dict[str, float]:
    return {"pairs": True, "drawing": DRAWING, **asdict(options)}


def _key(number: int) -> str:
    return f"images/{number // 1000:03d}/{number:06d}.jpg"


@cache
def _outfit(number: int, seed: int) -> Outfit:
    return Outfit.any(random.Random(f"outfit {seed}/{number}"))


def _image_file(number: int, options: SyntheticPairsOptions) -> bytes:
    outfit, chance = _outfit(number, options.seed), random.Random(f"picture {options.seed}/{number}")
    picture = draw(outfit.garment, chance, side=options.side, studio=False, outfit=outfit)
    return encoded(picture, "JPEG", quality=chance.randint(75, 90))


def _captions(options: SyntheticPairsOptions) -> list[str]:
    """The lines of the table, its names first."""
    lines = ["path,caption,split,mismatched,wrong,true_caption"]
    for number in range(options.total):
        true = _outfit(number, options.seed).caption
        split, told, wrong = "test", true, _TRUE
        if number < options.images:
            split = "train"
            told, wrong = _told(number, options)
        elif number < options.images + options.holdout_images:
            split = "holdout"
        mismatched = str(told != true).lower()
        lines.append(f'{_key(number)},"{told}",{split},{mismatched},{wrong if told != true else _TRUE},"{true}"')
    return lines


def _told(number: int, options: SyntheticPairsOptions) -> tuple[str, str]:
    """The caption of a training pair, and what is wrong with it."""
    outfit, chance = _outfit(number, options.seed), random.Random(f"caption {options.seed}/{number}")
    if chance.random() >= options.wrong_captions:
        return outfit.caption, _TRUE
    wrong = chance.choices([*WRONG], [*WRONG.values()])[0]
    if wrong == "shuffled":
        return _outfit(chance.randrange(options.images), options.seed).caption, wrong
    if wrong == "near":
        return outfit.in_another_color(chance).caption, wrong
    return chance.choice(BOILERPLATE), wrong
