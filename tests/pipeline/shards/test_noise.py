"""Label noise for experiments."""

from collections import Counter

import pyarrow as pa
import pytest

from rhostream.errors import ConfigError
from rhostream.pipeline.config.manifest import Noise
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.shards.noise import columns_with_noise, with_noise

CLASSES = tuple("abcdefghij")
ENTRIES = [Entry(source=f"{number}.jpg", label=number % 10) for number in range(20_000)]


def moved(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.label != entry.extra["clean_label"]]


def test_uniform_noise_moves_labels_to_each_other_class_alike() -> None:
    noisy = list(with_noise(ENTRIES, Noise(rate=0.1), CLASSES))
    assert [entry.source for entry in noisy] == [entry.source for entry in ENTRIES]
    assert [entry.extra["clean_label"] for entry in noisy] == [entry.label for entry in ENTRIES]
    # 2,000 expected, standard deviation 42; a choice among all ten classes would move 1,800.
    assert abs(len(moved(noisy)) - 2000) < 4 * 42
    steps = Counter((entry.label - entry.extra["clean_label"]) % 10 for entry in moved(noisy))
    assert set(steps) == set(range(1, 10))
    assert all(abs(count - len(moved(noisy)) / 9) < 60 for count in steps.values())  # standard deviation 14


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "expected"), [(0.0, 0), (1.0, len(ENTRIES))])
def test_at_the_extremes_no_label_or_every_label_moves(rate: float, expected: int) -> None:
    assert len(moved(list(with_noise(ENTRIES, Noise(rate=rate), CLASSES)))) == expected


@pytest.mark.slow
def test_growth_reordering_and_higher_rates_change_no_moved_label() -> None:
    noise = Noise(rate=0.3, seed=1)
    labels = {entry.source: entry.label for entry in with_noise(ENTRIES, noise, CLASSES)}
    again = {entry.source: entry.label for entry in with_noise(reversed(ENTRIES[:500]), noise, CLASSES)}
    assert again.items() <= labels.items()
    more = {entry.source: entry for entry in with_noise(ENTRIES, Noise(rate=0.4, seed=1), CLASSES)}
    originals = {entry.source: entry.label for entry in ENTRIES}
    assert all(more[source].label == label for source, label in labels.items() if label != originals[source])
    other = {entry.source: entry.label for entry in with_noise(ENTRIES, Noise(rate=0.3, seed=2), CLASSES)}
    assert other != labels


def test_structured_noise_moves_only_along_its_pairs() -> None:
    noise = Noise(kind="structured", rate=0.5, pairs=(("a", "b"), ("a", "c"), ("d", "a")))
    paths = Counter(
        (entry.extra["clean_label"], entry.label) for entry in moved(list(with_noise(ENTRIES, noise, CLASSES)))
    )
    assert set(paths) == {(0, 1), (0, 2), (3, 0)}
    assert paths[0, 1] + paths[0, 2] == pytest.approx(1000, abs=100)  # of 2,000, standard deviation 22
    assert paths[0, 1] == pytest.approx(500, abs=80)
    assert paths[3, 0] == pytest.approx(1000, abs=100)


def test_only_training_labels_move_and_a_known_clean_label_stays() -> None:
    entries = [
        Entry(source="test", split="test", label=1),
        Entry(source="val", split="val", label=1, extra={"clean_label": 4}),
        Entry(source="refused", reason="label_missing"),
        Entry(source="train", split="train", label=1, extra={"clean_label": 5, "shop": "x"}),
        Entry(source="unknown", split="train", label=1, extra={"clean_label": None}),
    ]
    test, val, refused, train, unknown = with_noise(entries, Noise(rate=1.0), CLASSES)
    assert [test, val, refused] == entries[:3]
    assert train.label != 1
    assert train.extra == {"clean_label": 5, "shop": "x"}
    assert unknown.extra == {"clean_label": 1}


def test_the_clean_label_is_a_column_of_a_noisy_corpus() -> None:
    assert columns_with_noise({"shop": pa.string()}) == {"shop": pa.string(), "clean_label": pa.int32()}


@pytest.mark.parametrize(
    ("noise", "classes", "message"),
    [
        (Noise(), ("only",), "leaves no other"),
        (Noise(kind="structured"), CLASSES, "there are no pairs"),
        (Noise(kind="structured", pairs=(("a", "z"),)), CLASSES, "'z' is no class of this corpus; known are a, b"),
        (Noise(kind="structured", pairs=(("Shirtt", "Hat"),)), ("Shirt", "Hat"), "did you mean 'Shirt'"),
        (Noise(kind="structured", pairs=(("a", "a"),)), CLASSES, "'a' moves to itself"),
    ],
)
def test_noise_that_cannot_be_is_refused_before_the_first_entry(
    noise: Noise, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        with_noise(ENTRIES, noise, classes)
