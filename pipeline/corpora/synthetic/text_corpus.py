"""The embedded demo corpus of texts: messages to a clothing shop, as a table, with every label's truth known."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.columns import CLEAN_LABEL, CLEAN_LABEL_TYPE
from rhostream.pipeline.corpora.synthetic.drawn_folder import begin_folder, filled, root_of
from rhostream.pipeline.corpora.synthetic.messages import REQUESTS, message
from rhostream.pipeline.corpora.table import Table, TableOptions

TABLE: Final = "messages.tsv"
WRITING: Final = 1  # of the messages; raised when the same options write others

CLASSES: Final = tuple(REQUESTS)  # the commonest first
TAIL: Final = 6.0  # the first class has so many times the messages of the last one
FORMS: Final = 0.5  # share of the training messages that are form letters: redundant, soon learnt
FORMS_OF_TEST: Final = 0.2
LOOK_ALIKES: Final = 0.3  # share of the wrong labels that are one of the next two classes; the others are any
ALIKE: Final = 0.5  # share of the duplicates that are the same byte for byte; the others differ in case and spaces

#: What is wrong with two training messages each.
DEFECTS: Final[Mapping[str, bytes]] = {
    "empty": b"",
    "blank": b"   ",
    "not_utf8": b"caf\xe9 , where is my order ?",
    "nul_bytes": b"where is\0 my order ?",
}
_EACH: Final = 2
FEWEST_TEXTS: Final = 100


@dataclass(frozen=True, kw_only=True)
class SyntheticTextOptions:
    """A synthetic corpus of texts is a function of these alone.

    Attributes:
        texts: training entries, broken ones included.
        test_texts: of the test split: balanced over the classes, correctly labeled, with fewer form letters.
        wrong_labels: share of the training labels that are wrong.
        duplicates: share of the training entries that repeat another entry's message.
    """

    texts: int = 24_000
    test_texts: int = 2_400
    wrong_labels: float = 0.5
    duplicates: float = 0.12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.texts < FEWEST_TEXTS or self.test_texts < len(CLASSES):
            raise ConfigError(
                f"texts {self.texts}, test_texts {self.test_texts}: a synthetic corpus needs at least {FEWEST_TEXTS} "
                f"and {len(CLASSES)}"
            )
        if not (0 <= self.wrong_labels <= 0.6 and 0 <= self.duplicates <= 0.5):
            raise ConfigError(
                f"wrong_labels {self.wrong_labels}, duplicates {self.duplicates}: give shares of at most 0.6 and 0.5"
            )


class SyntheticTexts:
    """Writes a table of messages at the manifest's root when first listed, unless it is there; then reads it as any.

    An entry has its `clean_label`, and its `wording`: form, usual or rare; null of a broken entry.
    """

    Options = SyntheticTextOptions
    classes: tuple[str, ...] = CLASSES
    fields: tuple[str, ...] = ("text",)
    extra_columns: Mapping[str, pa.DataType] = {CLEAN_LABEL: CLEAN_LABEL_TYPE, "wording": pa.string()}

    def __init__(self, manifest: Manifest, options: SyntheticTextOptions) -> None:
        """Writes nothing yet.

        Raises:
            CorpusError: no root, or one that holds something else.
        """
        self._manifest, self._options, self._root = manifest, options, root_of(manifest, _stamp(options))

    def entries(self) -> Iterator[Entry]:
        write_messages(self._root, self._options)
        yield from self._table.entries()

    def read(self, entry: Entry) -> bytes:
        return self._table.read(entry)

    @cached_property
    def _table(self) -> Table:
        options = TableOptions(
            file=TABLE, text_column="text", key_column="id", label_column="label", split_column="split", quotes=False
        )
        return Table(replace(self._manifest, classes=CLASSES), options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_table"}


def write_messages(root: Path, options: SyntheticTextOptions) -> None:
    """Write the table unless it is there; what was begun and killed is written again, to the same bytes.

    Raises:
        CorpusError: see `begin_folder`.
    """
    if not begin_folder(root, _stamp(options), last=TABLE):
        return
    with filled(root / TABLE) as stream:
        stream.write(b"id\ttext\tlabel\tclean_label\twording\tsplit\n")
        for row in _rows(options):
            stream.write(b"\t".join(row) + b"\n")


def _stamp(options: SyntheticTextOptions) -> dict[str, Any]:
    return {"messages": WRITING, **asdict(options)}


def _rows(options: SyntheticTextOptions) -> Iterator[list[bytes]]:
    """The cells of the table: training entries, then the test split."""
    draws, count = np.random.default_rng((options.seed, 1)), options.texts
    weights = TAIL ** (-np.arange(len(CLASSES)) / (len(CLASSES) - 1))
    true = draws.choice(len(CLASSES), count, p=weights / weights.sum())
    broken, others = np.split(draws.permutation(count), [_EACH * len(DEFECTS)])
    repeats, originals = np.split(others, [round(options.duplicates * count)])
    shown = np.arange(count)  # the entry whose message this one has, mostly its own
    shown[repeats] = draws.choice(originals, len(repeats))
    true[repeats] = true[shown[repeats]]
    alike = draws.random(count) < ALIKE
    given = _given_labels(true, options.wrong_labels, draws)  # repeated messages may disagree
    defects = dict(zip(broken.tolist(), [*DEFECTS.values()] * _EACH, strict=True))
    for number in range(count + options.test_texts):
        test = number >= count
        label = (number - count) % len(CLASSES) if test else int(true[number])
        original = number if test else int(shown[number])
        source = random.Random(f"{options.seed}/{original}")
        text, wording = message(CLASSES[label], source, form=FORMS_OF_TEST if test else FORMS)
        if original != number and not alike[number]:
            text = text.upper().replace(" ", "  ")
        content = defects.get(number)
        told = CLASSES[label if test else int(given[number])]
        yield [
            f"m{number:06d}".encode(),
            text.encode() if content is None else content,
            told.encode(),
            CLASSES[label].encode(),
            wording.encode() if content is None else b"",
            b"test" if test else b"",
        ]


def _given_labels(
    true: npt.NDArray[np.int64], wrong_labels: float, draws: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Labels of which a share is wrong."""
    count, classes = len(true), len(CLASSES)
    moved = np.where(draws.random(count) < LOOK_ALIKES, draws.integers(1, 3, count), draws.integers(1, classes, count))
    return np.where(draws.random(count) < wrong_labels, (true + moved) % classes, true)
