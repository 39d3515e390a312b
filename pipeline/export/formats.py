"""Subsets of the samples as other tools read them: WebDataset tars, FiftyOne folders."""

import json
import math
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.export.subset import Picked, Subset
from rhostream.pipeline.jobs import progress
from rhostream.pipeline.shards import PlainTar


def write_webdataset(subset: Subset, output: str, *, samples_per_tar: int = 10_000) -> list[str]:
    """Write `<output>/000000.tar` and so on: `<key>.<ext>`, `<key>.cls` and `<key>.json` with all that was known.

    Args:
        output: a folder or fsspec URL that holds no tar yet.

    Returns:
        Names of the tars.

    Raises:
        ConfigError: the folder holds tars.
        ShardError: an image cannot be read.
    """
    place = Workspace(output)
    _refuse_full(place.names("", ".tar"), output)
    samples = iter(subset)
    names: list[str] = []
    with progress("export", len(subset), "samples") as bar:
        while part := list(islice(samples, 1)):
            names.append(f"{len(names):06d}.tar")
            with place.writing(names[-1]) as stream:
                tar = PlainTar(stream)
                for sample in chain(part, islice(samples, samples_per_tar - 1)):
                    tar.add(f"{sample.key}.{sample.ext}", sample.image)
                    tar.add(f"{sample.key}.cls", str(sample.label).encode())
                    tar.add(f"{sample.key}.json", json.dumps(_document(sample), ensure_ascii=False).encode())
                    bar.advance(1)
                tar.close()
    return names


def write_fiftyone(subset: Subset, output: str) -> list[str]:
    """Write `<output>/data/<key>.<ext>` and label files in FiftyOne's format FiftyOneImageClassificationDataset.

    `labels.json` holds the given labels (or those of a clean list); `predicted.json` and `reason.json`, where the
    choice tells of them, what the IL model predicts and why a sample is skipped: import these with `labels_path`.

    Returns:
        Names of the label files.

    Raises:
        ConfigError: the folder has files in it.
        ShardError: an image cannot be read.
    """
    folder = Path(output)
    _refuse_full(sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [], output)
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceError(f"--output {output}: {error.strerror}; name a folder that can be made") from error
    labels: dict[str, dict[str, str]] = {"labels": {}, "predicted": {}, "reason": {}}
    with progress("export", len(subset), "samples") as bar:
        for sample in subset:
            (folder / "data" / f"{sample.key}.{sample.ext}").write_bytes(sample.image)
            labels["labels"][sample.key] = sample.class_name
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
            content = {"classes": classes, "labels": {key: numbers[value] for key, value in of_key.items()}}
            (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            written.append(f"{name}.json")
    return written


def _predicted(sample: Picked, classes: tuple[str, ...]) -> str | None:
    """Class that the IL model predicts, where the choice tells."""
    if isinstance(name := sample.facts.get("predicted_class"), str):
        return name
    number = sample.facts.get("predicted")
    return classes[number] if isinstance(number, int) else None


def _document(sample: Picked) -> dict[str, Any]:
    own = {"key": sample.key, "source": sample.source, "label": sample.label, "class": sample.class_name}
    return {**{name: _json_value(value) for name, value in sample.facts.items()}, **own}


def _json_value(value: Any) -> Any:
    """`value` as JSON knows it: no NaN, and text for dates and the like."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _refuse_full(names: list[str], output: str) -> None:
    if names:
        raise ConfigError(f"--output {output} holds {names[0]} already ({len(names)} such): name an empty folder")
