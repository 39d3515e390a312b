"""What former releases called things. Workspaces are read through this module; no other one knows the old names."""

from collections.abc import Mapping
from typing import Any, Final

#: Where thumbnails lay. They are made again: their index tells of itself under other names.
THUMBNAILS_FOLDER: Final = "views"

#: Values of `ledger.reason`, and what they are called now.
LEDGER_REASONS: Final = {"held_back": "validation"}

#: Columns of `metrics`, and what they are called now.
METRICS_COLUMNS: Final = {
    "held_back": "validation",
    "candidates_mislabelled": "candidates_mislabeled",
    "selected_mislabelled": "selected_mislabeled",
}

_MANIFEST: Final = {"scoring_view": "thumbnails", "scoring_format": "thumbnail_format"}
_IL_MODEL: Final = {"view": "spec"}
#: Of trainings whose length was set beforehand.
_IL_SETTINGS: Final = ("epochs", "patience", "schedule")
_IL_WEIGHTS: Final = {"best_epoch": "best_step", "epochs": "evaluations"}


def manifest_today(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest in a `corpus.json`, under today's names."""
    train = {"train": _renamed(manifest["train"], _MANIFEST)} if "train" in manifest else {}
    il = {name: value for name, value in manifest.get("il", {}).items() if name not in _IL_SETTINGS}
    return _renamed(manifest, _MANIFEST) | train | ({"il": il} if "il" in manifest else {})


def il_model_today(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An `il/<name>/model.json` of format 1 or 2, as format 3 has it; any other as it is.

    Those were evaluated after each epoch, of so many steps as its samples fill batches. Their settings are not today's.
    """
    if metadata.get("format") not in (1, 2):
        return dict(metadata)
    try:
        return _il_model_of_epochs(metadata)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):  # damaged: as it is, which no reader takes
        return dict(metadata)


def _il_model_of_epochs(metadata: Mapping[str, Any]) -> dict[str, Any]:
    models = []
    for model in metadata["models"]:
        length = -(-model["trained_samples"] // metadata["config"]["batch_size"])
        steps = [{**{"step": each["epoch"] * length}, **_without(each, "epoch")} for each in model["epochs"]]
        models.append(_renamed(model, _IL_WEIGHTS) | {"best_step": model["best_epoch"] * length, "evaluations": steps})
    today = {"task": "classification", "models": models, "config": {}, "format": 3}
    return _renamed(metadata, _IL_MODEL) | today


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in values.items() if each != name}


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
