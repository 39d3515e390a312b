"""Keys come from the source's identity, and the listing's order from seed and keys."""

import random
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from rhostream.errors import CorpusError
from rhostream.loaders.index.keys import key_of
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.shards import hash_buckets, listing
from rhostream.pipeline.shards.listing import Listing, list_entries
from rhostream.pipeline.shards.scratch import Scratch, scratch_space

NOWHERE = Scratch(Path("/proc/nowhere"))  # short listings need none


def entries_in(listing: Listing) -> list[tuple[str, Entry]]:
    return [each for number in range(listing.units) for each in listing.unit(number).entries()]


def listed(entries: list[Entry], seed: int = 0) -> list[tuple[str, str, str]]:
    with scratch_space(None) as scratch:
        listing = list_entries(entries, scratch, classes=3, seed=seed, unit_size=10)
        return [(key, entry.source, entry.reason) for key, entry in entries_in(listing)]


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
    entries = [Entry(source=str(number), label=0) for number in range(25)]
    listing = list_entries(entries, NOWHERE, classes=1, seed=0, unit_size=10)
    ones = list_entries(entries, NOWHERE, classes=1, seed=0, unit_size=1)
    assert (listing.units, listing.entries, [len(listing.unit(number)) for number in (2, 0)]) == (3, 25, [5, 10])
    assert entries_in(listing) == entries_in(ones)


def test_an_empty_corpus_is_an_error() -> None:
    with pytest.raises(CorpusError, match="lists no entries"):
        list_entries([], NOWHERE, classes=2, seed=0, unit_size=1)


def test_the_listing_of_a_large_corpus_passes_through_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [Entry(source=f"{number % 900}.jpg", label=number % 3) for number in range(1000)]
    expected = listed(entries)
    monkeypatch.setattr(hash_buckets, "_MOST_BYTES", 2000)
    monkeypatch.setattr(listing, "_AT_ONCE", 64)
    monkeypatch.setattr(listing, "_FILE_ROWS", 64)
    scratch = Scratch(tmp_path)
    found = list_entries(entries, scratch, classes=3, seed=0, unit_size=10)
    assert [(key, entry.source, entry.reason) for key, entry in entries_in(found)] == expected
    assert found.refused["duplicate_key"][0] == 100
    assert len(list(tmp_path.rglob("*.parquet"))) == 17
    scratch.remove()
    assert not list(tmp_path.iterdir())


def test_what_comes_back_from_a_listing_is_what_was_listed() -> None:
    columns = {"width": pa.int32(), "when": pa.timestamp("us"), "weight": pa.float64(), "note": pa.string()}
    entries = [
        Entry(source="b\udcff", label=0, split="val", locator=("a.tar", 512, 7), extra={"note": None}),
        Entry(source="c", label=(0, 2), extra={"width": 3, "when": datetime(2026, 1, 2, 3, 4), "weight": 0.1}),
        Entry(source="d", label=(), extra={"weight": float("inf"), "note": "ü"}, locator=(b"\xff/d",)),
        Entry(source="e", reason="missing", detail="\udcfe is not there"),
    ]
    listing = list_entries(entries, NOWHERE, classes=3, seed=0, unit_size=9, extra_columns=columns)
    found = sorted((entry for _, entry in listing.unit(0).entries()), key=lambda entry: entry.source[0])
    assert found == [replace(entry, key=key_of(entry.source)) for entry in entries]
