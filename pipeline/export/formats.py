"""Subsets of the samples as other tools read them: WebDataset tars, FiftyOne folders."""

import json
import math
from typing import Any, Final

from rhostream.errors import ConfigError
from rhostream.loaders.storage import OutputFolder
from rhostream.pipeline.export.subset import Picked, Subset
from rhostream.pipeline.jobs import progress
from rhostream.pipeline.shards import PlainTar
from rhostream.plain_text import hide_secrets

_LABEL_FILES: Final = ("labels", "predicted", "reason")


def write_webdataset(subset: Subset, output: str, *, samples_per_tar: int = 10_000, force: bool = False) -> list[str]:
    """Write `<output>/000000.tar` and so on: `<key>.<ext>`, `<key>.cls` and `<key>.json` with all that was known.

    Killed and started again, it writes only the tars that are not there yet.
    As in the shards, a multi-label sample has no `.cls`: its labels stand in the `.json`.

    Args:
        output: a folder or fsspec URL; empty, or with an unfinished export of the same samples.
        force: replace an export of other samples.

    Returns:
        Names of the tars.

    Raises:
        ConfigError: the folder holds something else, see `OutputFolder`.
        ShardError: an image cannot be read.
        WorkspaceError: a key in the index is none.
    """
    folder = OutputFolder(output, workspace=subset.workspace, force=force)
    starts = range(0, len(subset), samples_per_tar)
    names = [f"{number:06d}.tar" for number in range(len(starts))]
    identity = subset.identity()
    place = folder.begin({"format": "webdataset", "samples_per_tar": samples_per_tar, "samples": identity}, names)
    there = set(place.names("", ".tar"))
    with progress("export", len(subset), "samples") as bar:
        for name, start in zip(names, starts, strict=True):
            stop = min(start + samples_per_tar, len(subset))
            if name in there:
                bar.advance(stop - start)
                continue
            with place.writing(name) as stream:
                tar = PlainTar(stream)
                for sample in subset.part(start, stop):
                    tar.add(f"{sample.key}.{sample.ext}", sample.image)
                    if isinstance(sample.label, int):
                        tar.add(f"{sample.key}.cls", str(sample.label).encode())
                    tar.add(
                        f"{sample.key}.json", hide_secrets(json.dumps(_document(sample), ensure_ascii=False)).encode()
                    )
                    bar.advance(1)
                tar.close()
    return names


def write_fiftyone(subset: Subset, output: str, *, force: bool = False) -> list[str]:
    """Write `<output>/data/<key>.<ext>` and label files in FiftyOne's format FiftyOneImageClassificationDataset.

    `labels.json` holds the given labels (or those of a clean list); `predicted.json` and `reason.json`, where the
    choice tells of them, what the IL model predicts and why a sample is skipped: import these with `labels_path`.
    Killed and started again, it writes only the images that are not there yet, and the label files at last.

    Args:
        output: a local folder; empty, or with an unfinished export of the same samples.
        force: replace an export of other samples.

    Returns:
        Names of the label files.

    Raises:
        ConfigError: the folder holds something else, see `OutputFolder`, or the corpus is multi-label.
        ShardError: an image cannot be read.
        WorkspaceError: a key in the index is none.
    """
    if subset.multi_label:
        raise ConfigError(
            "this format of FiftyOne has one label an image, and the corpus is multi-label: export WebDataset tars"
        )
    folder = OutputFolder(output, workspace=subset.workspace, force=force)
    content = {"format": "fiftyone", "samples": subset.identity()}
    place = folder.begin(content, ["data", *(f"{name}.json" for name in _LABEL_FILES)])
    labels: dict[str, dict[str, str]] = {name: {} for name in _LABEL_FILES}
    there = set(place.names("data"))
    with progress("export", len(subset), "samples") as bar:
        for sample in subset.part(0, len(subset), there.__contains__):
            if (name := f"{sample.key}.{sample.ext}") not in there:
                place.write_bytes(f"data/{name}", sample.image)
            labels["labels"][sample.key] = str(sample.class_name)
            if (predicted := _predicted(sample, subset.classes)) is not None:
                labels["predicted"][sample.key] = predicted
            if (reason := sample.facts.get("reason")) is not None:
                labels["reason"][sample.key] = str(reason)
            bar.advance(1)
    written = []
    for name, of_key in labels.items():
        if of_key:
            classes = sorted(set(of_key.values())) if name == "reason" else list(subset.classes)
            numbers = {value: number for number, value in enumerate(classes)}
            file = {"classes": classes, "labels": {key: numbers[value] for key, value in of_key.items()}}
            place.write_bytes(f"{name}.json", json.dumps(file, ensure_ascii=False).encode())
            written.append(f"{name}.json")
    return written


def _predicted(sample: Picked, classes: tuple[str, ...]) -> str | None:
    """Class that the IL model predicts, where the choice tells."""
    if isinstance(name := sample.facts.get("predicted_class"), str):
        return name
    number = sample.facts.get("predicted")
    return classes[number] if isinstance(number, int) else None


def _document(sample: Picked) -> dict[str, Any]:
    names = ("label", "class") if isinstance(sample.label, int) else ("labels", "classes")
    labeled = dict(zip(names, (sample.label, sample.class_name), strict=True))
    facts = {name: _json_value(value) for name, value in sample.facts.items()}
    return {**facts, "key": sample.key, "source": sample.source, **labeled}


def _json_value(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, and text for dates and the like."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)
