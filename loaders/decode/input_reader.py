"""The one reader of stored samples: what is read, and how, is up to the spec."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

from rhostream.errors import ConfigError
from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.chunk import Failures
from rhostream.loaders.decode.image_reader import ImageReader
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.input_spec import InputSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.decode.text_reader import TextReader
from rhostream.loaders.decode.text_spec import TextSpec
from rhostream.loaders.storage import Workspace


class PendingInputs(Protocol):
    """Samples that are being read.

    Attributes:
        texts: the raw texts, where such were read; known after `result`.
    """

    texts: list[str] | None

    def result(self) -> tuple[npt.NDArray[Any], Failures]:
        """Wait for them.

        Returns:
            Of images uint8 (n, C, H, W), channels last in memory; of texts int32 (n, longest), `NO_TOKEN` after the end
            of each. And (position, reason) of the samples that cannot be read, whose rows mean nothing.

        Raises:
            ShardError: a tar has vanished or is truncated.
        """
        ...


class InputReader:
    """Reads images and texts. Safe for threads and after a fork; ends with `close`, or when it is forgotten."""

    def __init__(self, workspace: Workspace, read_options: ReadOptions = ReadOptions()) -> None:
        self._images, self._texts = ImageReader(workspace, read_options), TextReader(workspace, read_options)

    def submit(
        self, refs: StoredRefs, spec: InputSpec, augmentation: Augmentation = "none", *, urgent: bool = False
    ) -> PendingInputs:
        """Begin to read these samples; see `ImageReader.submit`."""
        if isinstance(spec, ImageSpec):
            return self._images.submit(refs, spec, augmentation, urgent=urgent)
        if isinstance(spec, TextSpec):
            return self._texts.submit(refs, spec, urgent=urgent)
        raise ConfigError(f"spec {type(spec).__name__}: a stored field is read by an ImageSpec or a TextSpec")

    def tokenize(self, texts: Sequence[str], spec: TextSpec) -> PendingInputs:
        """Begin to make token ids of texts that are there already; see `TextReader.tokenize`."""
        return self._texts.tokenize(texts, spec)

    @property
    def processes(self) -> list[int]:
        """Process ids of the decoding processes, where there are any now."""
        return self._images.processes

    def close(self) -> None:
        """End threads and processes at once; what is not done is given up."""
        self._images.close()
        self._texts.close()
