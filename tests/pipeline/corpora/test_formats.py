"""Opening a corpus by the name of its format, and reading labels."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.corpora import corpus

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.corpora.labels import LabelParser, derive_classes
from rhostream.pipeline.corpora.paths import relative_name


def test_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'imagefoldr'; did you mean 'imagefolder'\? known are .*webdataset"):
        corpus("imagefoldr", tmp_path)


@pytest.mark.parametrize(
    "kind", ["clothing1m", "hf_disk", "hf_imagefolder", "hf_parquet", "imagefolder", "table", "webdataset"]
)
def test_a_missing_root_is_refused_with_the_remedy(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere: the root of corpus 'tiny' is not there; pass --root"):
        corpus(kind, tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="names no root"):
        corpus(kind, "")


def test_unknown_option_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'label_colum'; did you mean 'label_column'"):
        corpus("table", tmp_path, label_colum="label")


def test_readers_other_than_torchvision_do_not_import_torch() -> None:
    modules = ("clothing1m", "hugging_face.disk", "hugging_face.imagefolder", "hugging_face.parquet", "imagefolder")
    modules += ("table", "webdataset", "formats")
    code = "import sys\n" + "".join(f"import rhostream.pipeline.corpora.{name}\n" for name in modules)
    subprocess.run([sys.executable, "-c", f"{code}sys.exit('torch' in sys.modules)"], check=True)


@pytest.mark.parametrize(
    ("classes", "raw", "expected"),
    [
        (("cat", "dog"), "dog", 1),
        (("cat", "dog"), " dog ", 1),
        (("cat", "dog"), "1", 1),
        (("cat", "dog"), 1.0, 1),
        (("cat", "dog"), 2, "label_out_of_range"),
        (("cat", "dog"), -1, "label_out_of_range"),
        (("cat", "dog"), "cow", "label_unknown"),
        (("cat", "dog"), "9" * 5000, "label_unknown"),
        (("cat", "dog"), "", "label_missing"),
        (("cat", "dog"), None, "label_missing"),
        (("cat", "dog"), float("nan"), "label_missing"),
        (("3", "5", "7"), "5", 1),  # names that are numbers are never positions
        (("3", "5", "7"), "1", "label_unknown"),
        (("0", "1"), 2, "label_out_of_range"),
        (("0", "1", "A"), 2, 2),
        (("caf\u00e9",), "cafe\u0301", 0),  # a file system may decompose accents
    ],
)
def test_labels_are_class_names_or_class_numbers(classes: tuple[str, ...], raw: object, expected: int | str) -> None:
    index, reason, detail = LabelParser(classes).parse(raw)
    assert (reason or index) == expected
    assert bool(reason) == bool(detail)


def test_derived_classes_are_sorted_as_numbers_where_all_are() -> None:
    assert derive_classes(["10", "9.0", "9", None], "x") == ("9", "10")
    assert derive_classes(["b", "10", "9"], "x") == ("10", "9", "b")
    with pytest.raises(CorpusError, match="column x: no entry has a label"):
        derive_classes([None], "column x")


def test_no_name_leads_out_of_its_root() -> None:
    root = Path("/data/corpus")
    assert relative_name("./a//b/../c.jpg", root) == "a/c.jpg"
    assert relative_name("/data/corpus/a.jpg", root) == "a.jpg"
    for name in ("../a.jpg", "a/../../b.jpg", "/data/other/a.jpg", "/data/corpus/../other.jpg", "..", ".", "", "a\0b"):
        assert relative_name(name, root) is None, name
