"""Any dataset of `torchvision.datasets` that yields an image and a class number."""

import difflib
import functools
import inspect
import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import torchvision.datasets

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.encoded import png_of
from rhostream.pipeline.corpora.splits import OFFICIAL_SPLITS

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")
#: Datasets that read pickles which are none of the dataset's own files with their known digests.
_PICKLED: Final = frozenset(("LSUN", "LSUNClass"))


@dataclass(frozen=True, kw_only=True)
class TorchvisionOptions:
    """Attributes:
    dataset: name of the class, for instance "CIFAR10".
    download: let torchvision fetch the data into the root where they are not there yet.
    splits: for each official split, the arguments with which the class opens it.
    """

    dataset: str = ""
    download: bool = False
    splits: dict[str, Any] = field(default_factory=lambda: {"train": {"train": True}, "test": {"train": False}})


class TorchvisionDataset:
    """Every item is an entry, its source `<split>/<position>`; its image is read as a lossless PNG of the item's mode.

    Classes are the manifest's, else the dataset's own `classes`, else the numbers up to its largest label.
    """

    Options = TorchvisionOptions
    extra_columns: Mapping[str, pa.DataType] = {}

    def __init__(self, manifest: Manifest, options: TorchvisionOptions) -> None:
        if not manifest.root:
            raise CorpusError(f"manifest {manifest.name!r} names no root for {options.dataset}: pass --root")
        known = inspect.signature(_dataset_class(options.dataset)).parameters
        for split, arguments in options.splits.items():
            if split not in OFFICIAL_SPLITS or not isinstance(arguments, dict):
                raise ConfigError(
                    f"[options] splits: {split} = {arguments!r}: give train, val or test a table of the "
                    f"arguments of {options.dataset}"
                )
            for name in arguments:
                if name not in known:
                    raise ConfigError(
                        f"[options] splits: {options.dataset} takes no argument {name!r}, only "
                        f"{', '.join(known)}; set the arguments of each split"
                    )
        self._name, self._root = options.dataset, manifest.root
        self._splits = {split: json.dumps(arguments, sort_keys=True) for split, arguments in options.splits.items()}
        if options.download and "download" in known:
            for arguments in self._splits.values():
                _open(self._name, self._root, arguments, download=True)
        self.classes = manifest.classes or self._own_classes()

    def entries(self) -> Iterator[Entry]:
        for split in self._splits:
            for position, label in enumerate(self._labels(split)):
                source = f"{split}/{position:06d}"
                if 0 <= label < len(self.classes):
                    yield Entry(source=source, split=split, label=label)
                else:
                    detail = f"{label} is not in 0 to {len(self.classes) - 1}"
                    yield Entry(source=source, split=split, reason="label_out_of_range", detail=detail)

    def read(self, entry: Entry) -> bytes:
        split, _, position = entry.source.partition("/")
        image = self._dataset(split)[int(position)][0]
        return png_of(image)

    def _dataset(self, split: str) -> Any:
        return _opened(self._name, self._root, self._splits[split])

    def _labels(self, split: str) -> list[int]:
        """The class numbers of a split; no image is decoded where the dataset keeps them apart."""
        dataset = self._dataset(split)
        try:
            for attribute in _LABEL_ATTRIBUTES:
                kept: Any = getattr(dataset, attribute, None)
                labels = kept.tolist() if hasattr(kept, "tolist") else kept
                if (
                    isinstance(labels, list)
                    and labels
                    and len(labels) == len(dataset)
                    and labels[:1] == [dataset[0][1]]
                ):
                    return [operator.index(label) for label in labels]
            return [operator.index(dataset[position][1]) for position in range(len(dataset))]
        except TypeError as error:
            raise CorpusError(
                f"{self._name}: its items are not an image with a class number ({error}); choose a dataset "
                "for classification, or other arguments in [options] splits"
            ) from error

    def _own_classes(self) -> tuple[str, ...]:
        names = getattr(self._dataset(next(iter(self._splits))), "classes", None)
        if names is None:
            largest = max((label for split in self._splits for label in self._labels(split)), default=-1)
            return tuple(str(number) for number in range(largest + 1))
        # ImageNet's classes are tuples of synonyms.
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)


def _dataset_class(name: str) -> type[Any]:
    if name in _PICKLED:
        raise ConfigError(
            f"[options] dataset = {name!r}: torchvision unpickles a cache of it from the working directory, which may "
            "run any code; export its images to folders and use format imagefolder"
        )
    known = [other for other in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, other))]
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "for instance CIFAR10, MNIST, SVHN"
        raise ConfigError(f"[options] dataset = {name!r} is no class of torchvision.datasets; {hint}")
    found: type[Any] = getattr(torchvision.datasets, name)
    return found


@functools.lru_cache(maxsize=8)
def _opened(name: str, root: str, arguments: str) -> Any:
    """The dataset, opened once a process: the reader that travels to the workers does not carry it."""
    return _open(name, root, arguments, download=False)


def _open(name: str, root: str, arguments: str, *, download: bool) -> Any:
    kind = _dataset_class(name)
    parameters = inspect.signature(kind).parameters
    values = {"root": root, "download": download}
    try:
        return kind(**{key: value for key, value in values.items() if key in parameters}, **json.loads(arguments))
    except (RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        remedy = (
            "check the connection, or copy the files there by hand"
            if download
            else "copy the files there, or set download = true in [options]"
        )
        raise CorpusError(f"{name} {arguments} is not in {root} ({text}); {remedy}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[options] splits: {name} refuses {arguments} ({error}); correct its arguments") from error
