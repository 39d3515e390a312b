"""The corpus formats by name. Each is imported only when a manifest asks for it."""

import difflib
import importlib
from typing import Final, cast

from rhostream.errors import ConfigError
from rhostream.pipeline.config import Manifest, settings
from rhostream.pipeline.corpora.base import Corpus

#: Format name to "module:class". The class is called with the manifest and with an instance of its `Options`,
#: a frozen dataclass that the manifest's `[options]` fill.
FORMATS: Final[dict[str, str]] = {
    "clothing1m": "rhostream.pipeline.corpora.clothing1m:Clothing1M",
    "hf_disk": "rhostream.pipeline.corpora.hugging_face.disk:HuggingFaceDisk",
    "hf_imagefolder": "rhostream.pipeline.corpora.hugging_face.imagefolder:HuggingFaceImageFolder",
    "hf_parquet": "rhostream.pipeline.corpora.hugging_face.parquet:HuggingFaceParquet",
    "imagefolder": "rhostream.pipeline.corpora.imagefolder:ImageFolder",
    "synthetic": "rhostream.pipeline.corpora.synthetic.corpus:Synthetic",
    "synthetic_pairs": "rhostream.pipeline.corpora.synthetic.pairs:SyntheticPairs",
    "synthetic_text": "rhostream.pipeline.corpora.synthetic.text_corpus:SyntheticTexts",
    "table": "rhostream.pipeline.corpora.table:Table",
    "torchvision": "rhostream.pipeline.corpora.torchvision:TorchvisionDataset",
    "webdataset": "rhostream.pipeline.corpora.webdataset:WebDatasetTars",
}

_FLEXIBLE: Final = ("hf_disk", "hf_imagefolder", "hf_parquet", "table", "webdataset")
#: Formats of other tasks than classification, and what the others give a sample.
_OF_TASK: Final[dict[str, tuple[str, ...]]] = {"multi_label": _FLEXIBLE, "pairs": (*_FLEXIBLE, "synthetic_pairs")}


def open_corpus(manifest: Manifest) -> Corpus:
    """The reader that the manifest asks for.

    Raises:
        ConfigError: an unknown format or option, or a format without the manifest's task.
        CorpusError: the root is not there or holds no such corpus.
    """
    if manifest.format not in FORMATS:
        close = difflib.get_close_matches(manifest.format, FORMATS, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"manifest {manifest.name!r}: unknown format {manifest.format!r}; {hint}known are {', '.join(FORMATS)}"
        )
    if manifest.format not in _OF_TASK.get(manifest.task, FORMATS):
        raise ConfigError(
            f"manifest {manifest.name!r}: format {manifest.format!r} gives each sample one class; task {manifest.task} "
            f"reads {', '.join(_OF_TASK[manifest.task])}"
        )
    module, name = FORMATS[manifest.format].split(":")
    reader = getattr(importlib.import_module(module), name)
    options = settings(
        reader.Options, (f"manifest {manifest.name!r}, [options] of {manifest.format}", manifest.options)
    )
    return cast(Corpus, reader(manifest, options))
