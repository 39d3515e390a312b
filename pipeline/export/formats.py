"""Subsets of the samples as other tools read them: WebDataset tars, FiftyOne folders."""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from rhostream.errors import ConfigError
from rhostream.loaders.storage import OutputFolder, temporary_of
from rhostream.pipeline.config import EngineName
from rhostream.pipeline.export.subset_reader import Picked, SubsetReader
from rhostream.pipeline.jobs import Advance, Engine, Maker, chosen_engine, exclusive_lock, make_units, progress
from rhostream.pipeline.shards import PlainTar
from rhostream.plain_text import hide_secrets

if TYPE_CHECKING:
    from rhostream.pipeline.export.subset import Subset

_IMAGES_PER_UNIT: Final = 1000
_LABEL_FILES: Final = ("labels", "predicted", "reason")


def write_webdataset(
    subset: "Subset",
    output: str,
    *,
    samples_per_tar: int = 10_000,
    force: bool = False,
    engine: EngineName = "local",
    workers: int | None = 0,
) -> list[str]:
    """Write `<output>/000000.tar` and so on: `<key>.<ext>`, `<key>.cls` and `<key>.json` with all that was known.

    Killed and started again, it writes only the tars that are not there yet.
    As in the shards, a multi-label sample has no `.cls`: its labels stand in the `.json`. A pair has `<key>.txt`.

    Args:
        output: a folder or fsspec URL; empty, or with an unfinished export of the same samples.
        force: replace an export of other samples.
        engine, workers: who writes the tars, see `rhostream.pipeline.jobs.Engine`; 0 workers are this process.

    Returns:
        Names of the tars.

    Raises:
        ConfigError: the folder holds something else, see `OutputFolder`.
        ShardError: an image cannot be read.
        WorkspaceError: a key in the index is none, or another process writes to the folder.
    """
    chosen = _engine(engine, workers, force)
    folder = OutputFolder(output, workspace=subset.workspace, force=force)
    starts = range(0, len(subset), samples_per_tar)
    names = [f"{number:06d}.tar" for number in range(len(starts))]
    identity = subset.identity()
    place = folder.begin({"format": "webdataset", "samples_per_tar": samples_per_tar, "samples": identity}, names)
    _make(_TarMaker(workspace=place, reader=subset.reader), subset, samples_per_tar, place.names("", ".tar"), chosen)
    return names


def write_fiftyone(
    subset: "Subset", output: str, *, force: bool = False, engine: EngineName = "local", workers: int | None = 0
) -> list[str]:
    """Write `<output>/data/<key>.<ext>` and label files in FiftyOne's format FiftyOneImageClassificationDataset.

    `labels.json` holds the given labels (or those of a clean list); `predicted.json` and `reason.json`, where the
    choice tells of them, what the IL model predicts and why a sample is skipped: import these with `labels_path`.
    Killed and started again, it writes only the images that are not there yet, and the label files at last.

    Args:
        output: a local folder; empty, or with an unfinished export of the same samples.
        force: replace an export of other samples.
        engine, workers: who copies the images, see `rhostream.pipeline.jobs.Engine`; 0 workers are this process.

    Returns:
        Names of the label files; none of a static job that has ended before others.

    Raises:
        ConfigError: the folder holds something else, see `OutputFolder`, or a sample has not one label.
        ShardError: an image cannot be read.
        WorkspaceError: a key in the index is none, or another process writes to the folder.
    """
    if subset.task != "classification":
        are = "is multi-label" if subset.task == "multi_label" else "has image-text pairs"
        raise ConfigError(
            f"this format of FiftyOne has one label an image, and the corpus {are}: export WebDataset tars"
        )
    chosen = _engine(engine, workers, force)
    folder = OutputFolder(output, workspace=subset.workspace, force=force)
    content = {"format": "fiftyone", "samples": subset.identity()}
    place = folder.begin(content, ["data", *(f"{name}.json" for name in _LABEL_FILES)])
    _make(_ImageMaker(workspace=place, reader=subset.reader), subset, _IMAGES_PER_UNIT, (), chosen)
    if chosen.is_shared and len(place.names("data")) < len(subset):
        return []
    labels: dict[str, dict[str, str]] = {name: {} for name in _LABEL_FILES}
    for sample in subset.reader.samples(subset.rows(0, len(subset)), skip=lambda _: True):
        labels["labels"][sample.key] = str(sample.class_name)
        if (predicted := _predicted(sample, subset.classes)) is not None:
            labels["predicted"][sample.key] = predicted
        if (reason := sample.facts.get("reason")) is not None:
            labels["reason"][sample.key] = str(reason)
    written = []
    for name, of_key in labels.items():
        if of_key:
            classes = sorted(set(of_key.values())) if name == "reason" else list(subset.classes)
            numbers = {value: number for number, value in enumerate(classes)}
            file = {"classes": classes, "labels": {key: numbers[value] for key, value in of_key.items()}}
            place.write_bytes(f"{name}.json", json.dumps(file, ensure_ascii=False).encode())
            written.append(f"{name}.json")
    return written


@dataclass(frozen=True, kw_only=True)
class _Slice:
    """A unit of work: rows of the subset."""

    number: int
    rows: pa.Table


@dataclass(frozen=True, kw_only=True)
class _TarMaker(Maker[_Slice, None]):
    """Writes one tar of each slice."""

    reader: SubsetReader

    @property
    def folder(self) -> str:
        return OutputFolder.CARD  # the tars lie in the output itself, which the driver holds

    def __call__(self, unit: _Slice, advance: Advance) -> None:
        with self.workspace.writing(_tar(unit.number)) as stream:
            tar = PlainTar(stream)
            for sample in self.reader.samples(unit.rows):
                tar.add(f"{sample.key}.{sample.ext}", sample.image)
                if isinstance(sample.label, int):
                    tar.add(f"{sample.key}.cls", str(sample.label).encode())
                if sample.caption is not None:
                    tar.add(f"{sample.key}.txt", sample.caption.encode())
                document = json.dumps(_document(sample), ensure_ascii=False)
                tar.add(f"{sample.key}.json", hide_secrets(document).encode())
                advance(1)
            tar.close()


@dataclass(frozen=True, kw_only=True)
class _ImageMaker(Maker[_Slice, None]):
    """Copies the images of a slice that are not there yet."""

    reader: SubsetReader

    @property
    def folder(self) -> str:
        return "data"

    def __call__(self, unit: _Slice, advance: Advance) -> None:
        def is_there(name: str) -> bool:
            return self.workspace.exists(f"data/{name}")

        for sample in self.reader.samples(unit.rows, is_there):
            if not is_there(name := f"{sample.key}.{sample.ext}"):
                self.workspace.write_bytes(f"data/{name}", sample.image)
            advance(1)


def _engine(name: EngineName, workers: int | None, force: bool) -> Engine:
    engine = chosen_engine(name, workers)
    if engine.is_shared and force:
        raise ConfigError("--force with --engine static: each job would remove what others have made; empty the folder")
    return engine


def _make(maker: _TarMaker | _ImageMaker, subset: "Subset", size: int, there: Collection[str], engine: Engine) -> None:
    """Have the subset written in slices of this size, but for those whose tars are there."""
    starts = range(0, len(subset), size)
    wanted = [number for number in range(len(starts)) if engine.makes(number) and _tar(number) not in there]
    total = sum(min(size, len(subset) - starts[number]) for number in wanted)
    units = (
        _Slice(number=number, rows=subset.rows(starts[number], min(starts[number] + size, len(subset))))
        for number in wanted
    )
    with (
        exclusive_lock(maker.workspace, "rho export", workers=maker.folder, engine=engine),
        progress("export", total, "samples") as bar,
    ):
        for _ in make_units(maker, units, engine=engine, advance=bar.advance):
            pass
        if not engine.is_shared and maker.workspace.is_local:
            root = Path(maker.workspace.root)
            for left in (*root.glob("*.tmp"), *root.glob("data/*.tmp")):
                if temporary_of(left.name) != left.name.removesuffix(".tmp"):  # of an actor that has died
                    left.unlink(missing_ok=True)


def _tar(number: int) -> str:
    return f"{number:06d}.tar"


def _predicted(sample: Picked, classes: tuple[str, ...]) -> str | None:
    """Class that the IL model predicts, where the choice tells."""
    if isinstance(name := sample.facts.get("predicted_class"), str):
        return name
    number = sample.facts.get("predicted")
    return classes[number] if isinstance(number, int) else None


def _document(sample: Picked) -> dict[str, Any]:
    labeled: dict[str, Any] = {"caption": sample.caption}
    if sample.label is not None:
        names = ("label", "class") if isinstance(sample.label, int) else ("labels", "classes")
        labeled = dict(zip(names, (sample.label, sample.class_name), strict=True))
    facts = {name: _json_value(value) for name, value in sample.facts.items()}
    return {**facts, "key": sample.key, "source": sample.source, **labeled}


def _json_value(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, and text for dates and the like."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
