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


def manifest_today(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest in a `corpus.json`, under today's names."""
    train = {"train": _renamed(manifest["train"], _MANIFEST)} if "train" in manifest else {}
    return _renamed(manifest, _MANIFEST) | train


def il_model_today(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """An `il/<name>/model.json` of format 1, as format 2 has it; any other as it is."""
    return {**_renamed(metadata, _IL_MODEL), "format": 2} if metadata.get("format") == 1 else dict(metadata)


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
