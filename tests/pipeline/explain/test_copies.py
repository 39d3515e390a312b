"""Copies: photographs that were encoded, resized, cropped or brightened again, and none that only look alike."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageEnhance

from rhostream.cli.main import rho
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import ThumbnailsConfig
from rhostream.pipeline.explain import Options, ask, explain, explanation, find_copies
from rhostream.pipeline.report.data import gather
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.sql import query
from rhostream.pipeline.thumbnails import write_thumbnails

SIDE = 96
#: By the number of the picture, how its copy was made; the second lies under another label.
COPIES = {3: "smaller", 8: "encoded", 12: "brighter", 20: "cropped"}


def picture(number: int) -> Image.Image:
    """Smooth, as photographs are, and of its own colors."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def copy_of(number: int, how: str) -> bytes:
    image = picture(number)
    if how == "smaller":
        return encoded(image.resize((SIDE // 2, SIDE // 2), Image.Resampling.BOX))
    if how == "cropped":
        return encoded(image.crop((5, 2, SIDE - 3, SIDE - 5)))
    return encoded(image, quality=40) if how == "encoded" else encoded(ImageEnhance.Brightness(image).enhance(1.1))


def samples() -> Iterator[dict[str, Any]]:
    for number in range(40):
        yield {"key": f"s{number}", "image": encoded(picture(number)), "label": number % 2, "split": "train"}
    for number, how in COPIES.items():
        label = number % 2 if how != "encoded" else 1 - number % 2
        yield {"key": f"copy-of-s{number}", "image": copy_of(number, how), "label": label, "split": "train"}
    yield {"key": "gray-1", "image": encoded(Image.new("RGB", (SIDE, SIDE), "gray")), "label": 0, "split": "train"}
    yield {"key": "gray-2", "image": encoded(Image.new("RGB", (SIDE, SIDE), "silver")), "label": 0, "split": "train"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("copies") / "w")
    write_shards(made, samples=samples, classes=("cat", "dog"), holdout=0.0, folds=2, workers=0)
    return made


def found(workspace: Workspace, **settings: Any) -> Any:
    return find_copies(workspace, CorpusMetadata.read(workspace), **settings)


def test_copies_are_found_and_what_is_alike_is_not(workspace: Workspace) -> None:
    copies = found(workspace)
    pairs = [{pair.first, pair.second} for pair in copies.pairs]
    assert sorted(pairs, key=sorted) == sorted(({f"s{n}", f"copy-of-s{n}"} for n in COPIES), key=sorted)
    assert (copies.found, copies.looked_at, copies.images) == (4, 46, 46)


def test_copies_under_different_labels_come_first(workspace: Workspace) -> None:
    copies = found(workspace, pairs=1)
    assert (copies.pairs[0].differs, set(copies.keys), copies.found) == (True, {"s8", "copy-of-s8"}, 4)
    assert copies.alike("s8") == ["copy-of-s8"]


def test_images_beyond_the_bound_are_told_of(workspace: Workspace) -> None:
    copies = found(workspace, images=10)
    assert (copies.looked_at, copies.images) == (10, 46)


def test_thumbnails_are_read_in_place_of_the_images(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    write_thumbnails(workspace, ThumbnailsConfig(size=32, workers=0))
    tars = sorted(Path(workspace.path("shards")).glob("train-*.tar"))
    for tar in tars:
        tar.rename(tar.with_suffix(".away"))
    assert {pair.first for pair in found(workspace).pairs} | {pair.second for pair in found(workspace).pairs} >= {"s3"}
    for tar in tars:
        tar.with_suffix(".away").rename(tar)


def test_the_command_shows_them_with_the_sql_that_gives_them(workspace: Workspace, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    arguments = ["report", "--workspace", workspace.location, "--near-duplicates", "--output", str(page), "--json"]
    done = CliRunner().invoke(rho, arguments, catch_exceptions=False)
    assert '"near_duplicates": 4' in done.stdout
    shown = gather(workspace, near_duplicates=True).galleries["copies"]
    assert query(workspace, shown.sql).to_pylist() == shown.rows
    assert [row["key"] for row in shown.rows][:2] == ["s8", "copy-of-s8"]
    text = page.read_text()
    assert "4 pairs among 46 of 46 images." in text
    assert "copy-of-s12" in text


def test_explain_answers_with_both_samples_of_each_pair(workspace: Workspace) -> None:
    rows = explain(workspace, "copies").to_pylist()
    columns = ("first", "second", "first_class", "second_class", "first_split", "second_split")
    assert [rows[0][name] for name in columns] == ["s8", "copy-of-s8", "cat", "dog", "train", "train"]
    assert len(rows) == 4
    assert all(0.94 <= row["likeness"] <= 1 for row in rows)
    assert query(workspace, explanation(workspace, "copies")).to_pylist() == rows
    of_dogs = explain(workspace, "copies", options=Options(class_name="dog", limit=5)).to_pylist()
    assert [row["first"] for row in of_dogs if row["first"] != "s8"] == ["s3"]


def test_an_answer_says_how_many_images_were_compared(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ask, "find_copies", partial(find_copies, images=30))
    explain(workspace, "copies")
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("of 46 images 30 were compared")


def test_a_workspace_without_copies_has_no_rows_of_them(tmp_path: Path) -> None:
    given = [{"key": f"s{n}", "image": encoded(picture(n)), "label": n % 2, "split": "train"} for n in range(4)]
    write_shards(tmp_path / "w", samples=given, classes=("cat", "dog"), holdout=0.0, folds=2, workers=0)
    assert explain(tmp_path / "w", "copies").num_rows == 0
