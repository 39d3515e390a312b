"""`rho index` on tars with faults: nothing is lost in silence."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest
import webdataset
from helpers.foreign_tars import DAMAGES, assert_rows_point_into_tars, damaged, index, manifest, sample, tar
from helpers.shards_corpus import rejects
from helpers.support import encoded, jpeg, picture, put

from rhostream.errors import CorpusError
from rhostream.loaders.decode import decode_rgb
from rhostream.pipeline.corpora.tars.urls import TarFile
from rhostream.pipeline.shards import content
from rhostream.pipeline.shards.write import write_shards


def many(prefix: str, count: int = 12) -> list[tuple[str, bytes]]:
    return [member for n in range(count) for member in sample(f"{prefix}{n:03d}", str(n % 2), n)]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_tar_stops_the_run_or_losses_are_counted(tmp_path: Path, how: str) -> None:
    at = damaged(tmp_path / "b.tar", how)
    tar(tmp_path / "a.tar", *many("a"))
    with pytest.raises(CorpusError, match=r"b\.tar: .* at byte (\d+); fetch .*--on-bad-tar skip") as error:
        index(tmp_path / "w", tmp_path, workers=1)
    assert at <= int(str(error.value).split("at byte ")[1].split(";")[0]) <= at + 1024
    assert not (tmp_path / "w/corpus.json").exists()

    summary = index(tmp_path / "w", tmp_path, options={"on_bad_tar": "skip"})
    whole = ["0", "1", "2", *(["4"] if how in ("bad header", "zeros inside") else [])]
    assert sum(summary.samples.values()) == 12 + len(whole)
    assert summary.entries == sum(summary.samples.values()) + sum(summary.rejects.values())
    assert_rows_point_into_tars(tmp_path / "w")
    found = {str(row["source"]).rpartition("b.tar/")[2]: row["reason"] for row in rejects(tmp_path / "w")}
    # Of sample 3 the label's member is left where only its image's header is damaged.
    without_image = {"3": "missing"} if how in ("bad header", "zeros inside") else {}
    (skipped,) = found.keys() - without_image.keys()
    assert skipped.startswith("@")
    assert found == {skipped: "truncated", **without_image}


def test_the_byte_where_webdataset_ends_silently_is_named(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", *many("s", 50))
    whole = path.read_bytes()
    at = whole.index(b"s020.jpg")
    path.write_bytes(whole[:at] + b"\xff" * 512 + whole[at + 512 :])
    assert len(list(webdataset.WebDataset(str(path), shardshuffle=False))) == 20
    with pytest.raises(CorpusError, match=rf"a\.tar: no valid header at byte {at}; fetch the tar again"):
        index(tmp_path / "w", path)
    summary = index(tmp_path / "w", path, options={"on_bad_tar": "skip"})
    assert (sum(summary.samples.values()), summary.rejects) == (49, {"truncated": 1, "missing": 1})


def test_compressed_tars_are_refused_by_name_and_by_content(tmp_path: Path) -> None:
    plain = tar(tmp_path / "a.tar", *many("a"))
    packed = put(tmp_path / "b.tar.gz", gzip.compress(plain.read_bytes()))
    for named in (tmp_path, packed, f"{tmp_path}/*"):
        with pytest.raises(CorpusError, match=r"b\.tar\.gz \(1 such\) is compressed, .*unpack it to a plain \.tar"):
            index(tmp_path / "w", named)
    packed.rename(tmp_path / "b.tar")
    with pytest.raises(CorpusError, match=r"b\.tar: compressed by gzip.*gunzip it"):
        index(tmp_path / "w", tmp_path)


def test_what_is_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", *many("a"))
    (tmp_path / "empty").mkdir()
    for named, message in (
        (f"{tmp_path}/{{0,1}}.tar", r"1\.tar: there is no such tar"),
        (f"{tmp_path}/x*.tar", r"x\*\.tar: no \*\.tar is there"),
        (tmp_path / "empty", r"empty: no \*\.tar is there"),
    ):
        with pytest.raises(CorpusError, match=message):
            index(tmp_path / "w", named)
    tar(tmp_path / "empty" / "0.tar")
    with pytest.raises(CorpusError, match="the 1 tars hold no sample"):
        index(tmp_path / "w", tmp_path / "empty")


def test_every_unusable_entry_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    whole = jpeg(3, (64, 64))
    tar(
        tmp_path / "a.tar",
        *many("good", 20),
        ("html.jpg", b"<!DOCTYPE html><html></html>"),
        ("html.cls", b"0"),
        ("cut.jpg", whole[: len(whole) // 2]),
        ("cut.cls", b"0"),
        ("empty.jpg", b""),
        ("empty.cls", b"1"),
        ("text.jpg", b"no image at all"),
        ("text.cls", b"1"),
        ("unlabeled.jpg", jpeg(4)),
        ("blank.jpg", jpeg(5)),
        ("blank.cls", b" \n"),
        ("cow.jpg", jpeg(6)),
        ("cow.cls", b"cow"),
        ("nine.jpg", jpeg(7)),
        ("nine.cls", b"9"),
        ("film.mp4", b"film"),
        ("film.cls", b"0"),
        ("good003.jpg", jpeg(8)),
        ("good003.cls", b"0"),
        ("README", b"belongs to no sample"),
    )
    summary = index(tmp_path / "w", tmp_path, classes=("zero", "one"))
    assert (summary.entries, sum(summary.samples.values())) == (30, 20)
    reasons = {str(row["source"]).rpartition("/")[2]: row["reason"] for row in rejects(tmp_path / "w")}
    assert reasons == {
        "html": "html",
        "cut": "truncated",
        "empty": "empty",
        "text": "not_an_image",
        "unlabeled": "label_missing",
        "blank": "label_missing",
        "cow": "label_unknown",
        "nine": "label_out_of_range",
        "film": "missing",
        "good003": "duplicate_key",
    }
    assert summary.rejects == Counter(reasons.values())


def test_dots_inside_names_are_diagnosed_image_by_image(tmp_path: Path) -> None:
    dotted = [m for n in range(3) for m in ((f"cat.{n}.jpg", jpeg(n)), (f"cat.{n}.cls", b"0"))]
    tar(tmp_path / "a.tar", *many("good"), *dotted)
    index(tmp_path / "w", tmp_path)
    found = {str(row["source"]).rpartition("/")[2]: row for row in rejects(tmp_path / "w")}
    assert set(found) == {"cat.0.jpg", "cat.1.jpg", "cat.2.jpg"}
    assert {row["reason"] for row in found.values()} == {"missing"}
    assert "ends a key at the first dot of a name: '1.jpg' is no image of sample 'cat'" in str(
        found["cat.1.jpg"]["detail"]
    )

    tar(tmp_path / "only/a.tar", *dotted)
    with pytest.raises(CorpusError, match=r"3 of the first 3 entries are refused, .*ends a key at the first dot"):
        index(tmp_path / "w2", tmp_path / "only")


def test_images_that_webdataset_passes_over_for_their_name_are_rejects(tmp_path: Path) -> None:
    strays = [("noext", jpeg(1)), (".hidden.jpg", jpeg(2)), ("./dir/.jpg", jpeg(3)), ("x", encoded(picture(4), "WEBP"))]
    inside = ("good001", jpeg(5))  # between the members of a sample
    others = [
        ("LICENSE", b"text"),
        ("._good000.jpg", b"\0\5\x16\7 of a Mac"),
        (".empty", b""),
        ("dir/Makefile", b"all:"),
    ]
    tar(tmp_path / "tars/a.tar", *many("good")[:3], inside, *many("good")[3:], *strays, *others)
    wanted = dict.fromkeys(["noext", ".hidden.jpg", "dir/.jpg", "x", "good001"], "missing")

    summary = index(tmp_path / "w", tmp_path / "tars")
    assert (summary.entries, sum(summary.samples.values())) == (17, 12)
    found = rejects(tmp_path / "w")
    assert {str(row["source"]).rpartition("a.tar/")[2]: row["reason"] for row in found} == wanted
    assert all("its name needs an extension, no dot in front" in str(row["detail"]) for row in found)
    assert_rows_point_into_tars(tmp_path / "w")

    copied = write_shards(str(tmp_path / "s"), manifest(root=str(tmp_path / "tars")), workers=0)
    assert (copied.entries, sum(copied.samples.values())) == (17, 12)
    found = rejects(tmp_path / "s")
    assert {str(row["source"]).removeprefix("a.tar/"): row["reason"] for row in found} == wanted


def test_a_corpus_that_is_mostly_bad_stops_early(tmp_path: Path) -> None:
    bad = [m for n in range(1500) for m in ((f"{n:05d}.jpg", b"<html>"), (f"{n:05d}.cls", b"0"))]
    tar(tmp_path / "a.tar", *bad)
    with pytest.raises(CorpusError, match=r"1000 of the first 1000 entries are refused, 1000 as 'html'"):
        index(tmp_path / "w", tmp_path)
    tar(tmp_path / "a.tar", *many("good"))
    with pytest.raises(CorpusError, match=r"the corpus at .* has 1 class"):
        index(tmp_path / "w", tmp_path, classes=("only",))
    with pytest.raises(CorpusError, match=r"12 of the first 12 entries are refused, 12 as 'label_unknown'"):
        index(tmp_path / "w", tmp_path, classes=("cat", "5"))


def test_a_tar_rewritten_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(tmp_path / "a.tar", *many("a"))

    def decode_while_another_writes(*arguments: object, **named: object) -> object:
        os.utime(tmp_path / "a.tar", ns=(1, 1))
        return decode_rgb(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(content, "decode_rgb", decode_while_another_writes)
    with pytest.raises(CorpusError, match=r"a\.tar was rewritten while it was read"):
        index(tmp_path / "w", tmp_path)
    assert TarFile.of(str(tmp_path / "a.tar")).state == "1"
