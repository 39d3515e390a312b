"""A corpus manifest: which corpus, how it is split, and what its stages use unless told otherwise."""

import os
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from rhostream.errors import ConfigError
from rhostream.loaders.storage import refuse_secrets
from rhostream.pipeline.config.choices import MAX_PIXELS, TaskName, ThumbnailFormat
from rhostream.pipeline.config.definition import StageConfig, described, setting
from rhostream.pipeline.config.il_config import ILTrainConfig
from rhostream.pipeline.config.layers import checked, settings
from rhostream.pipeline.config.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Noise(StageConfig):
    """Label noise for experiments: a label moves to another class, the original is kept as `clean_label`."""

    STAGE: ClassVar[str] = "[noise] "

    kind: Literal["uniform", "structured"] = setting(
        "uniform", hidden=True, help="uniform over the other classes, or structured: only along `pairs`."
    )
    rate: float = setting(
        0.1, hidden=True, minimum=0, maximum=1, help="Probability that a training label (holdout included) moves."
    )
    seed: int = setting(0, hidden=True, help="Of the draws.")
    pairs: tuple[tuple[str, str], ...] = setting((), hidden=True, help="[from, to] class names, for structured noise.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(len(pair) != 2 for pair in self.pairs):
            raise ConfigError(f"[noise] pairs {self.pairs}: give [from, to] class names")


@dataclass(frozen=True, kw_only=True)
class Manifest(StageConfig):
    """`data_manifests/*.toml`, resolved: flag > environment > manifest > default.

    A relative root in the TOML is relative to the manifest's own folder, one of a flag or of `RHO_ROOT` to the working
    directory.
    """

    name: str = field(metadata=described(hidden=True, unset="the file's name", help="Of the corpus."))
    format: str = field(metadata=described(hidden=True, help="Which reader the corpus needs."))
    root: str = setting(
        "", metavar="PATH", unset="the manifest's", help="Folder or file of the corpus, in place of the manifest's."
    )
    task: TaskName = setting(
        "classification",
        help="classification: one class a sample; multi_label: any number of classes, none included; pairs: an image "
        "and its caption.",
    )
    seed: int = setting(0, variable="RHO_SPLIT_SEED", metavar="N", help="Salts the split and the order of the listing.")
    holdout: float = setting(
        0.1,
        minimum=0,
        below=1,
        metavar="SHARE",
        help="Share of the training samples that the IL model trains on and the target never does; accuracy is known "
        "by it where there is no test split. None beside folds unless given.",
    )
    folds: int = setting(
        0,
        minimum=0,
        metavar="K",
        unset="a holdout",
        help="K IL models, each trained on all that is not in its fold, which it scores.",
    )
    shard_size: int = setting(
        10_000, minimum=1, metavar="N", help="Entries in a slice of the listing, the unit of work."
    )
    max_side: int = setting(
        0,
        minimum=0,
        metavar="PIXELS",
        unset="as found",
        help="Re-encode images with a longer side; 0 stores all as found.",
    )
    thumbnails: int = setting(
        0,
        variable="RHO_THUMBNAILS_SIZE",
        minimum=0,
        metavar="PIXELS",
        unset="none",
        help="Also store thumbnails of the training samples, of this shorter side, for scoring; 0 for none. See "
        "`rho thumbnails`.",
    )
    thumbnail_format: ThumbnailFormat = setting("jpeg", variable="RHO_THUMBNAILS_FORMAT", help="Of the thumbnails.")
    max_pixels: int = setting(
        MAX_PIXELS, hidden=True, minimum=1, help="Larger images are refused as decompression bombs."
    )
    max_text_bytes: int = setting(1 << 20, hidden=True, minimum=1, help="Longer texts are refused.")
    max_reject_share: float = setting(
        0.5, hidden=True, minimum=0, maximum=1, help="A corpus of which a larger share is refused stops `rho shards`."
    )
    clean_list: str = setting(
        "",
        hidden=True,
        help="Parquet or CSV with the columns key, action and class: training entries that are left out or get another "
        "label. Relative to the manifest's folder.",
    )
    classes: tuple[str, ...] = setting(
        (),
        metavar="A,B,...",
        commas=True,
        unset="all labels that occur",
        help="Names of the classes, in the order of their numbers; other labels are refused.",
    )
    options: dict[str, Any] = setting({}, hidden=True, help="Of the format's reader.")
    noise: Noise | None = setting(None, hidden=True, help="Label noise for experiments.")
    image: dict[str, Any] = setting({}, hidden=True, help="Defaults of the image spec.")
    text: dict[str, Any] = setting({}, hidden=True, help="Defaults of the text spec: tokenizer, length.")
    il: dict[str, Any] = setting({}, hidden=True, help="Defaults of `rho il train`.")
    train: dict[str, Any] = setting({}, hidden=True, help="Defaults of `rho train`.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_secrets(self.root)
        if not self.folds and not self.holdout and not self._names_holdout:
            raise ConfigError(f"holdout {self.holdout}: give a share between 0 and 1, for instance 0.1, or `folds`")
        if self.folds == 1:
            raise ConfigError("folds 1: give 2 or more, or 0 for a holdout")
        name, times = next(iter(Counter(self.classes).most_common(1)), ("", 0))
        if times > 1:
            raise ConfigError(f"classes: {name!r} is listed {times} times; list each class once")
        if self.noise is not None and self.task != "classification":
            raise ConfigError(
                f"[noise] moves a label to another class, which a {self.task.replace('_', '-')} corpus has "
                "not: leave it out"
            )
        if self.classes and self.task == "pairs":
            raise ConfigError("classes: pairs of images and captions have no classes; leave it out")
        if self.folds and self.task == "pairs":
            raise ConfigError(
                f"folds {self.folds}: the embeddings of several reference models cannot be compared, as the loss of a "
                "batch of pairs does; leave folds out, and give a holdout"
            )
        if self.image:
            from rhostream.loaders.decode import ImageSpec  # imports numpy

            ImageSpec.from_dict(self.image)  # refuses what no spec can be
        if self.text:
            from rhostream.loaders.decode import TextSpec

            TextSpec.from_dict(self.text)

    @property
    def _names_holdout(self) -> bool:
        """Do the reader's options give the holdout files of its own, or draw some for it?"""
        tables = [self.options.get(name) for name in ("splits", "file_splits")]
        named = any("holdout" in table.values() for table in tables if isinstance(table, Mapping))
        return named or bool(self.options.get("holdout_images"))

    @property
    def place(self) -> str:
        """Which corpus it is, for messages."""
        return f"the corpus at {self.root!r}" if self.root else f"the corpus {self.name!r}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for `corpus.json`."""
        return asdict(self)


def load_manifest(
    path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Manifest:
    """Read a manifest and resolve it: overrides (flags) > environment > manifest > default.

    A holdout or folds of a stronger layer replace both of the weaker ones; a layer that gives both has both.

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
    if isinstance(text := content.get("text"), Mapping):
        content["text"] = _with_tokenizer(text, file.parent)
    noise = content.get("noise")
    if isinstance(noise, Mapping):
        content["noise"] = settings(Noise, (f"{file}: [noise]", noise))
    for table, kind in (("il", ILTrainConfig), ("train", TrainConfig)):
        if isinstance(given := content.get(table), Mapping):
            checked(kind, f"{file}: [{table}]", given)
    content.setdefault("name", file.stem)
    if "format" not in content:
        raise ConfigError(f'{file}: no `format`: say which reader the corpus needs, for instance format = "table"')
    layers = [(str(file), content), ("environment", environment or {}), ("command line", overrides or {})]
    return resolve_manifest(*layers)


def _with_tokenizer(text: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table [text], its tokenizer a path from here and not from the manifest's folder."""
    name = text.get("tokenizer")
    if not isinstance(name, str) or name == "words" or "://" in name:
        return dict(text)
    return {**text, "tokenizer": os.path.normpath(folder / Path(name).expanduser())}


def resolve_manifest(*layers: tuple[str, Mapping[str, Any]]) -> Manifest:
    """A manifest from layers of values, the later ones winning: see `load_manifest`.

    Args:
        layers: pairs of where the values come from (for messages) and fields of `Manifest`.
    """
    return settings(Manifest, *_holdout_and_folds(list(layers)))


def _holdout_and_folds(layers: list[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The layers, where one that gives a holdout or folds alone has none of the other, whatever is below it."""
    resolved: list[tuple[str, Mapping[str, Any]]] = []
    for where, layer in layers:
        if layer.get("holdout") and layer.get("folds") is None:
            layer = {**layer, "folds": 0}
        elif layer.get("folds") and layer.get("holdout") is None:
            layer = {**layer, "holdout": 0.0}
        resolved.append((where, layer))
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
