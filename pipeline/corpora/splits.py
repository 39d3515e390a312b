"""Names under which corpora keep their official splits."""

from typing import Final

from rhostream.errors import ConfigError

OFFICIAL_SPLITS: Final = ("train", "holdout", "val", "test")

_SPLIT_OF_NAME: Final = {
    "train": "train",
    "training": "train",
    "holdout": "holdout",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def official_split(name: str) -> str | None:
    """The split that a folder or a column's value usually means by `name`; None where it means none."""
    return _SPLIT_OF_NAME.get(name.strip().lower())


def checked_splits(splits: dict[str, str], where: str) -> dict[str, str]:
    """A manifest's mapping from its corpus's names to the official splits, as it is.

    Raises:
        ConfigError: a name is mapped to something else than one of OFFICIAL_SPLITS.
    """
    for name, split in splits.items():
        if split not in OFFICIAL_SPLITS:
            raise ConfigError(f"{where}: {name} = {split!r} is no split; choose {', '.join(OFFICIAL_SPLITS)}")
    return splits
