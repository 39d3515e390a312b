"""The manifests that ship: each is read, names a known format with valid options, and says what it took and gave."""

import importlib
from pathlib import Path

import pytest
from helpers.corpora import reasons
from helpers.support import SHARED, needs_shared, unpack

from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.config.layers import settings
from rhostream.pipeline.config.manifest import load_manifest
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.corpora.formats import FORMATS, open_corpus

FOLDER = Path(__file__).parents[3] / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))


def test_every_promised_corpus_has_a_manifest() -> None:
    assert set(NAMES) >= {"clothing1m", "cifar10", "mnist", "imagefolder", "table", "img2dataset"}


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_shipped_manifest_is_known(name: str) -> None:
    manifest = load_manifest(FOLDER / f"{name}.toml")
    assert manifest.name == name
    module, reader = FORMATS[manifest.format].split(":")
    settings(getattr(importlib.import_module(module), reader).Options, (name, manifest.options))
    ImageSpec.from_dict(manifest.image)
    settings(ILTrainConfig, (name, manifest.il))
    settings(TrainConfig, (name, manifest.train))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_manifest_starts_with_command_and_expected_result(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    head = text.split("name = ")[0]
    assert f"MANIFEST=data_manifests/{name}.toml" in head or "make demo" in head
    assert "Expected" in head or "result" in head.lower()


@needs_shared
@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("clothing1m", "clothing1m", {"": 4819, "label_clean_only": 141, "label_missing": 1}),
        ("imagefolder", "imagefolder", {"": 5422}),
        ("table", "clothing", {"": 5403, "label_missing": 358}),
        ("mnist", "mnist", {"": 70_000}),
        ("img2dataset", None, {"": 210, "download_failed": 30}),
    ],
)
def test_a_shipped_manifest_reads_the_real_corpus(name: str, kind: str | None, expected: dict[str, int]) -> None:
    root = unpack(kind) if kind else SHARED / "data" / "img2dataset"
    assert reasons(open_corpus(load_manifest(FOLDER / f"{name}.toml", {"root": str(root)}))) == expected
