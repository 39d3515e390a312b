"""A corpus manifest: which corpus, how it is split, and what its stages use unless told otherwise."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

from rhostream.errors import ConfigError
from rhostream.loaders.decode import MAX_PIXELS, ImageSpec
from rhostream.loaders.index import ThumbnailFormat
from rhostream.pipeline.config.layers import checked, settings
from rhostream.pipeline.config.stage_settings import ILSettings, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Label noise for experiments: a label moves to another class, the original is kept as `clean_label`.

    Attributes:
        kind: "uniform" over the other classes, or "structured": only along `pairs`.
        rate: probability that a training label (train and holdout alike) moves.
        pairs: for "structured", [from, to] class names.
    """

    kind: Literal["uniform", "structured"] = "uniform"
    rate: float = 0.1
    seed: int = 0
    pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(f"[noise] rate {self.rate}: give a share between 0 and 1, for instance 0.1")
        if any(len(pair) != 2 for pair in self.pairs):
            raise ConfigError(f"[noise] pairs {self.pairs}: give [from, to] class names")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`data_manifests/*.toml`, resolved: flag > environment > manifest > default.

    Attributes:
        root: folder or file of the corpus; a relative one in the TOML is relative to the manifest's own folder,
            a relative one from a flag or `RHO_ROOT` to the working directory.
        seed: salts the split and the listing's order.
        holdout: share of the training entries that trains the IL model; 0 with `folds`.
        folds: number of IL models, each scoring what it has not seen; 0 for a holdout.
        shard_size: entries in a slice of the listing (a unit of work).
        max_side: re-encode images whose longer side exceeds this many pixels; 0 keeps all as found.
        max_pixels: larger images are refused as decompression bombs.
        thumbnails: `rho shards` also makes thumbnails of this size, pixels; 0 makes none. `thumbnail_format` is
            "jpeg" or "raw", see `rhostream.loaders.index.thumbnails.Thumbnails`.
        clean_list: Parquet or CSV with the columns key, action and class (`rhostream.schema.CLEAN_LIST`): training
            entries that are left out or get another label; "" for none. Relative to the manifest's folder.
        max_reject_share: a corpus of which a larger share is refused stops `rho shards`.
        options: of the format's reader.
        image, il, train: defaults of the spec, of `rho il train` and of `rho train`.
    """

    name: str
    format: str
    root: str = ""
    seed: int = 0
    holdout: float = 0.1
    folds: int = 0
    shard_size: int = 10_000
    max_side: int = 0
    thumbnails: int = 0
    thumbnail_format: ThumbnailFormat = "jpeg"
    max_pixels: int = MAX_PIXELS
    max_reject_share: float = 0.5
    clean_list: str = ""
    classes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    noise: Noise | None = None
    image: dict[str, Any] = field(default_factory=dict)
    il: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folds:
            object.__setattr__(self, "holdout", 0.0)
        elif not 0 < self.holdout < 1:
            raise ConfigError(f"holdout {self.holdout}: give a share between 0 and 1, for instance 0.1, or `folds`")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"folds {self.folds}: give 2 or more, or 0 for a holdout")
        if self.shard_size < 1:
            raise ConfigError(f"shard_size {self.shard_size}: a shard needs at least 1 entry")
        if self.max_side < 0:
            raise ConfigError(f"max_side {self.max_side}: give pixels, or 0 to store images as found")
        if self.thumbnails < 0:
            raise ConfigError(f"thumbnails {self.thumbnails}: give pixels, for instance 64, or 0 for none")
        if self.max_pixels < 1:
            raise ConfigError(f"max_pixels {self.max_pixels}: every image would be refused; the default is 178956970")
        if not 0 <= self.max_reject_share <= 1:
            raise ConfigError(f"max_reject_share {self.max_reject_share}: give a share between 0 and 1")
        for name in self.classes:
            if self.classes.count(name) > 1:
                raise ConfigError(f"classes: {name!r} is listed {self.classes.count(name)} times; list each class once")
        ImageSpec.from_dict(self.image)  # refuses what no spec can be

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `corpus.json`."""
        return asdict(self)


def load_manifest(
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Manifest:
    """Read a manifest and resolve it: overrides (flags) > environment > manifest > default.

    A holdout and folds exclude each other: the one that a stronger layer gives switches off the other.

    Args:
        overrides, environment: fields of `Manifest`; a value of None is not set.

    Raises:
        ConfigError: no such file, no valid TOML, an unknown setting (those of [il] and [train] included; the reader's
            [options] are `open_corpus`'s to check), or a value that cannot be.
    """
    file = Path(path)
    content = _read_toml(file)
    root = content.get("root")
    if isinstance(root, str) and root and "://" not in root:
        content["root"] = os.path.normpath(file.parent / Path(root).expanduser())
    clean_list = content.get("clean_list")
    if isinstance(clean_list, str) and clean_list:
        content["clean_list"] = os.path.normpath(file.parent / Path(clean_list).expanduser())
    noise = content.get("noise")
    if isinstance(noise, Mapping):
        content["noise"] = settings(Noise, (f"{file}: [noise]", noise))
    for table, kind in (("il", ILSettings), ("train", TrainSettings)):
        if isinstance(given := content.get(table), Mapping):
            checked(get_type_hints(kind), f"{file}: [{table}]", given)
    content.setdefault("name", file.stem)
    if "format" not in content:
        raise ConfigError(f'{file}: no `format`: say which reader the corpus needs, for instance format = "table"')
    layers = [(str(file), content), ("environment", environment or {}), ("command line", overrides or {})]
    return resolve_manifest(*layers)


def resolve_manifest(*layers: tuple[str, Mapping[str, Any]]) -> Manifest:
    """A manifest from layers of values, the later ones winning: see `load_manifest`.

    Args:
        layers: pairs of where the values come from (for messages) and fields of `Manifest`.
    """
    return settings(Manifest, *_holdout_or_folds(list(layers)))


def _holdout_or_folds(layers: list[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The layers, where one that gives a holdout resets the folds of those below it."""
    resolved: list[tuple[str, Mapping[str, Any]]] = []
    for where, layer in layers:
        holdout, folds = layer.get("holdout"), layer.get("folds")
        if holdout and folds:
            raise ConfigError(f"{where}: holdout = {holdout} and folds = {folds} exclude each other: give one of them")
        resolved.append((where, {**layer, "folds": 0} if holdout and folds is None else layer))
    return resolved


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        others = sorted(str(other) for other in file.parent.glob("*.toml"))
        hint = f"there are {', '.join(others)}" if others else f"{file.parent} holds no manifest; name another file"
        raise ConfigError(f"manifest {file} is not there; {hint}") from error
    except OSError as error:
        raise ConfigError(f"manifest {file} cannot be read: {error.strerror}; name a TOML file") from error
    except ValueError as error:
        raise ConfigError(f"manifest {file} is not valid TOML: {error}") from error
