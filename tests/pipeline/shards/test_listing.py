"""Keys come from the source's identity, and the listing's order from seed and keys."""

import random
import re

import pytest

from rhostream.errors import CorpusError
from rhostream.loaders.index.keys import key_of
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.shards.listing import list_entries


def listed(entries: list[Entry], seed: int = 0) -> list[tuple[str, str, str]]:
    listing = list_entries(entries, classes=3, seed=seed, unit_size=10)
    return [(key, entry.source, entry.reason) for key, entry in zip(listing.keys, listing.entries, strict=True)]


@pytest.mark.parametrize(
    "source",
    [
        "images/1/23/100,200.jpg",
        "a b/c.d/e.f.PNG",
        "-rf.jpg",
        "写真/花.jpg",
        "x" * 300 + ".jpg",
        "..",
        "a\nb.jpg",
        "ü.jpg",
        "bad\udcffname.jpg",
        "",
    ],
)
def test_keys_are_safe_as_tar_names(source: str) -> None:
    key = key_of(source)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,90}", key)
    assert len(f"{key}.webp") <= 100


def test_keys_are_readable_and_tell_apart_what_looks_alike() -> None:
    assert re.fullmatch(r"images-1-23-100-200-[0-9a-f]{8}", key_of("images/1/23/100,200.jpg"))
    sources = ["a/b.jpg", "a-b.jpg", "a,b.jpg", "a b.jpg", "A/b.jpg", "a/b.png", "写.jpg", "真.jpg"]
    assert len({key_of(source) for source in sources}) == len(sources)


def test_a_safe_given_key_is_kept_an_unsafe_one_not() -> None:
    assert key_of("shard-0.tar/000012", "000012") == "000012"
    for given in ("a.b", "a b", "a/b", "a,b", "", "x" * 91):
        assert key_of("shard-0.tar/x", given) != given
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,90}", key_of("shard-0.tar/x", given))
    assert key_of("shard-0.tar/a.b", "a.b") != key_of("shard-1.tar/a.b", "a.b")


def test_the_order_depends_on_the_seed_not_the_corpus() -> None:
    entries = [Entry(source=f"{number}.jpg", label=number % 3) for number in range(200)]
    expected = listed(entries)
    shuffled = random.Random(1).sample(entries, len(entries))
    assert listed(shuffled) == expected
    assert listed(entries, seed=1) != expected
    assert [source for _, source, _ in expected] != [entry.source for entry in entries]
    grown = [row for row in listed([*entries, Entry(source="new.jpg", label=0)]) if row[1] != "new.jpg"]
    assert grown == expected


def test_the_official_test_entry_of_a_key_wins() -> None:
    entries = [
        Entry(source="b", key="k", label=0, split="train"),
        Entry(source="c", key="k", label=1, split="test"),
        Entry(source="a", key="k", label=2, split="val"),
        Entry(source="0", key="k", reason="label_missing"),
        Entry(source="other", key="l", label=0),
    ]
    for order in (entries, entries[::-1]):
        found = {source: reason for _, source, reason in listed(order)}
        assert found == {"c": "", "a": "duplicate_key", "b": "duplicate_key", "0": "label_missing", "other": ""}


def test_a_path_listed_twice_is_one_sample() -> None:
    found = listed([Entry(source="a", label=2), Entry(source="a", label=1)])
    assert [reason for _, _, reason in found] == ["", "duplicate_key"]


def test_labels_outside_the_classes_are_refused_whatever_the_reader_says() -> None:
    found = dict(
        row[1:] for row in listed([Entry(source="a", label=3), Entry(source="b", label=-1), Entry(source="c")])
    )
    assert found == {"a": "label_out_of_range", "b": "label_out_of_range", "c": "label_missing"}


def test_units_are_slices_that_cover_the_listing_once() -> None:
    listing = list_entries((Entry(source=str(n), label=0) for n in range(25)), classes=1, seed=0, unit_size=10)
    assert listing.units == 3
    assert [key for unit in range(3) for key in listing.keys[listing.slice(unit)]] == listing.keys


def test_an_empty_corpus_is_an_error() -> None:
    with pytest.raises(CorpusError, match="lists no entries"):
        list_entries([], classes=2, seed=0, unit_size=1)
