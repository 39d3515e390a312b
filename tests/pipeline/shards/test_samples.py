"""`write_shards(samples=…)`: shards of what Python code gives one by one."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from helpers.shards_corpus import contents, rejects, samples
from helpers.support import jpeg, picture, put
from PIL import Image

import rhostream as rho
from rhostream.cli.main import rho as command
from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.corpora.samples import SampleCorpus
from rhostream.pipeline.export.manifest import write_cleaned_manifest
from rhostream.pipeline.shards.write import write_shards

CLASSES = ("cat", "dog", "bird")


def pets(count: int = 40) -> Iterator[tuple[str, bytes, str]]:
    for number in range(count):
        yield f"pet{number}", jpeg(number), CLASSES[number % 3]


def write(folder: Path, given: Any, **settings: Any) -> rho.ShardsSummary:
    return rho.write_shards(folder, samples=given, **{"workers": 0, "holdout": 0.3, "shard_size": 16, **settings})


def image_of(workspace: Path, row: dict[str, Any]) -> bytes:
    with (workspace / "shards" / f"{row['shard']}.tar").open("rb") as tar:
        tar.seek(row["offset"])
        return tar.read(row["size"])


def test_every_kind_of_image_is_stored_as_it_was_given(tmp_path: Path) -> None:
    gray = picture(4, mode="L")
    images = {
        "bytes": jpeg(1),
        "view": memoryview(jpeg(2)),
        "path": put(tmp_path / "a.jpg", jpeg(3)),
        "decoded": gray,
        "undecoded": {"bytes": jpeg(5), "path": "x.jpg"},
        "by_path": {"bytes": None, "path": str(put(tmp_path / "b.jpg", jpeg(6)))},
    }
    put(tmp_path / "w" / ".listing" / "left" / "images", b"by a killed one")
    more = [(f"more{n}", jpeg(n), 1) for n in range(10, 30)]
    summary = write(tmp_path / "w", [*((key, image, 0) for key, image in images.items()), *more])
    assert summary.entries == 26 == sum(summary.samples.values())
    found = {row["key"]: image_of(tmp_path / "w", row) for row in samples(tmp_path / "w")}
    stored = [found[key] for key in ("bytes", "view", "path", "undecoded", "by_path")]
    assert stored == [jpeg(n) for n in (1, 2, 3, 5, 6)]
    decoded = Image.open(io.BytesIO(found["decoded"]))
    assert (decoded.format, decoded.mode) == ("PNG", "L")
    assert (np.asarray(decoded) == np.asarray(gray)).all()
    assert not (tmp_path / "w" / ".listing").exists()


def test_mappings_keep_their_further_columns_with_types(tmp_path: Path) -> None:
    given = [
        {
            "key": number,
            "image": jpeg(number),
            "label": np.int64(number % 2),
            "width": number,
            "score": np.float32(0.5) if number % 2 else number,
            "tags": ["a", number],
            "note": None,
            "clean_label": 1,
        }
        for number in range(30)
    ]
    write(tmp_path / "w", given)
    rows = sorted(samples(tmp_path / "w"), key=lambda row: int(row["key"]))
    assert [(row["key"], row["source"], row["label"], row["class"]) for row in rows[:2]] == [
        ("0", "0", 0, "0"),
        ("1", "1", 1, "1"),
    ]
    kept = ("width_given", "score", "tags", "note", "clean_label")
    assert [rows[3][name] for name in kept] == [3, 0.5, '["a", 3]', None, 1]
    types = next((tmp_path / "w" / "index").glob("*.parquet"))
    assert pa.parquet.read_schema(types).field("score").type == pa.float64()


def test_another_order_and_an_interruption_end_in_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "whole", pets)
    write(tmp_path / "w", lambda: reversed(list(pets())))
    assert contents(tmp_path / "w") == contents(tmp_path / "whole")
    next((tmp_path / "w" / "index").glob("train-*.parquet")).unlink()
    assert write(tmp_path / "w", pets).units_made == 1
    assert contents(tmp_path / "w") == contents(tmp_path / "whole")

    def broken() -> Iterator[tuple[str, bytes, str]]:
        yield from pets(7)
        raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError, match="the database is gone"):
        write(tmp_path / "w", broken)
    assert contents(tmp_path / "w") == contents(tmp_path / "whole")


def test_other_samples_are_another_corpus(tmp_path: Path) -> None:
    write(tmp_path / "w", pets)
    with pytest.raises(rho.WorkspaceError, match=r"holds shards of another corpus .*40 entries, this one lists 41"):
        write(tmp_path / "w", [*pets(), ("new", jpeg(99), "cat")])
    assert write(tmp_path / "w", [*pets(), ("new", jpeg(99), "cat")], overwrite=True).entries == 41


def test_what_cannot_serve_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    bad = [
        ("pet1", jpeg(500), "cat"),
        ("none", None, "cat"),
        ("gone", tmp_path / "gone.jpg", "cat"),
        ("page", b"<html>", "cat"),
        ("unknown", jpeg(501), "cow"),
        ("unlabeled", jpeg(502), None),
    ]
    summary = write(tmp_path / "w", [*pets(), *bad], classes=CLASSES)
    assert (summary.entries, sum(summary.samples.values())) == (46, 40)
    assert {row["source"]: row["reason"] for row in rejects(tmp_path / "w")} == {
        "pet1": "duplicate_key",
        "none": "missing",
        "gone": "missing",
        "page": "html",
        "unknown": "label_unknown",
        "unlabeled": "label_missing",
    }


def test_splits_follow_the_content_and_official_ones_win(tmp_path: Path) -> None:
    copies = [(f"copy{number}", jpeg(number), CLASSES[number % 3]) for number in range(40)]
    official = [(f"test{number}", jpeg(100 + number), "cat", "validation") for number in range(3)]
    write(tmp_path / "w", [*pets(), *copies, *official])
    split = {row["key"]: row["split"] for row in samples(tmp_path / "w")}
    assert all(split[f"pet{number}"] == split[f"copy{number}"] for number in range(40))
    assert {split[f"test{number}"] for number in range(3)} == {"val"}
    assert set(split.values()) == {"train", "holdout", "val"}


def test_multi_label_samples_have_lists_of_labels(tmp_path: Path) -> None:
    given = [(f"k{n}", jpeg(n), [{"hat"}, ("hat", "coat"), [], np.array(["coat"])][n % 4]) for n in range(24)]
    write(tmp_path / "w", given, task="multi_label")
    labels = {row["key"]: row["labels"] for row in samples(tmp_path / "w")}
    assert [labels[f"k{n}"] for n in range(4)] == [[1], [0, 1], [], [0]]


@pytest.mark.parametrize(
    ("sample", "told"),
    [
        ("pet", "sample 1 is of type str: give (key, image, label)"),
        (("a", b""), "sample 1 is of type tuple: give (key, image, label)"),
        ({"key": "a", "img": b""}, "sample 1 has no 'image', only key, img: give"),
        (("", b"", 0), "sample 1 has the key '': give each"),
        ((None, b"", 0), "sample 1 has the key None: give each"),
        (("a", b"", 0, "best"), "sample 1 has the split 'best': give train, holdout, val or test"),
        (("a", 7, 0), "sample 1 has an image of type int: give a file's bytes, its path, or a PIL image"),
        ({"key": "a", "image": b"", "label": 0, "width": "7"}, "sample 1: width is string, and was int64 before"),
    ],
)
def test_what_is_no_sample_is_told_with_its_number(sample: Any, told: str, tmp_path: Path) -> None:
    first = {"key": "k", "image": jpeg(), "label": 0, "width": 7}
    with pytest.raises(ConfigError) as error:
        write(tmp_path / "w", [first, sample])
    assert str(error.value).startswith(told)


def test_wrong_calls_are_refused_with_the_remedy(tmp_path: Path) -> None:
    manifest = Manifest(name="t", format="table", root=str(tmp_path))
    with pytest.raises(ConfigError, match="takes a manifest or samples"):
        write_shards(tmp_path / "w", manifest, samples=[])
    for arguments in ({}, {"manifest": manifest, "holdout": 0.2}):
        with pytest.raises(ConfigError, match="give one of the two"):
            write_shards(tmp_path / "w", **arguments)
    with pytest.raises(ConfigError, match="write_shards: unknown setting 'holdot'; did you mean 'holdout'"):
        write_shards(tmp_path / "w", samples=pets, holdot=0.2)
    used_up = pets()
    list(used_up)
    with pytest.raises(
        CorpusError, match=r"the samples: no entry has a label that can be read, so there are no classes"
    ):
        write(tmp_path / "w", used_up)
    with pytest.raises(CorpusError, match=r"the corpus 'samples' has 1 class\(es\) \['cat'\]"):
        write(tmp_path / "w", [("a", jpeg(), "cat")])


@pytest.mark.parametrize(("given", "holdout"), [({"folds": 2}, False), ({"folds": 2, "holdout": 0.3}, True)])
def test_beside_folds_a_holdout_is_asked_for(tmp_path: Path, given: dict[str, Any], holdout: bool) -> None:
    splits = write_shards(tmp_path / "w", samples=pets, workers=0, **given).samples
    assert {"train-fold0", "train-fold1"} <= splits.keys()
    assert ("holdout" in splits) is holdout


def test_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    summary = write(tmp_path / "w", pets, dry_run=True)
    assert (summary.entries, summary.classes) == (40, {"bird": 13, "cat": 14, "dog": 13})
    assert not (tmp_path / "w").exists()


def test_images_do_not_stay_in_memory(tmp_path: Path) -> None:
    def photographs() -> Iterator[tuple[int, bytes, int]]:
        for number in range(200):
            yield number, bytes(200_000), number % 2

    manifest = Manifest(name="t", format="samples", classes=("a", "b"))
    tracemalloc.start()
    reader = SampleCorpus(photographs, manifest, tmp_path)
    for entry in reader.entries():
        assert len(reader.read(entry)) == 200_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000  # of 40 MB


def test_a_clean_list_is_given_to_the_call(tmp_path: Path) -> None:
    write(tmp_path / "w", pets)
    clean = put(tmp_path / "clean.csv", "key,action,class\npet3,drop,\npet4,relabel,bird\n")
    with pytest.raises(ConfigError, match=r"was made from samples in Python, .* clean_list="):
        write_cleaned_manifest(str(tmp_path / "w"), str(clean), str(tmp_path / "m.toml"))
    write(tmp_path / "clean", pets, clean_list=str(clean))
    rows = {row["key"]: row["class"] for row in samples(tmp_path / "clean")}
    assert "pet3" not in rows
    assert rows["pet4"] == "bird"
    told = CliRunner().invoke(command, ["status", "--workspace", str(tmp_path / "clean")])
    assert told.exit_code == 0, told.output
