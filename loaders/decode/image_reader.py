"""Pixels of samples: read by offset and decoded, by threads or processes, into memory that is used again."""

import os
import threading
import weakref
from concurrent.futures import Future
from typing import Final

from rhostream.loaders.decode.augmentation import Augmentation
from rhostream.loaders.decode.buffers import START, BufferPool
from rhostream.loaders.decode.chunk import Failures
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.pixels import Pixels
from rhostream.loaders.decode.pool import DecodePool, DecodeTask
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.storage import ShardReader, Workspace

# A chunk costs a fraction of a millisecond beside the decoding, and delays what is urgent.
_LEAST_IN_CHUNK: Final = 16
_MOST_IN_CHUNK: Final = 256
_MOST_BYTES_IN_CHUNK: Final = 16 << 20
_WORTH_A_PROCESS: Final = 0.5  # seconds of decoding: about what a process costs to start


class PendingImages:
    """Images that are being read."""

    texts: list[str] | None = None  # as of all `PendingInputs`

    def __init__(self, reader: "ImageReader", images: Pixels, chunks: "list[tuple[int, Future[Failures]]]") -> None:
        # The reader must not be forgotten, and so end, before its images are there.
        self._reader, self._images, self._chunks = reader, images, chunks

    def result(self) -> tuple[Pixels, Failures]:
        """Wait for them.

        Returns:
            images: uint8 (n, C, H, W), channels last in memory. The memory is used again when no array or tensor that
                shares it is left.
            failures: (position, reason) of the images that do not decode; their pixels are undefined.

        Raises:
            ShardError: a tar has vanished or is truncated.
            WorkerError: a decoding process has died.
            concurrent.futures.CancelledError: the reader was closed before.
        """
        failures = [(start + at, reason) for start, chunk in self._chunks for at, reason in chunk.result()]
        return self._images, failures


class ImageReader:
    """Reads and decodes stored images to the pixels of specs. Safe for threads and after a fork.

    Threads and processes start with the first images and end with `close`, or when the reader is forgotten.
    """

    def __init__(self, workspace: Workspace, read_options: ReadOptions = ReadOptions()) -> None:
        self._workspace, self._read_options = workspace, read_options
        self._engine: _Engine | None = None
        self._starting = threading.Lock()

    def submit(
        self, refs: StoredRefs, spec: ImageSpec, augmentation: Augmentation = "none", *, urgent: bool = False
    ) -> PendingImages:
        """Begin to read these images.

        Args:
            urgent: few images, such as the selected ones, wanted before all others that have not been begun; remote
                tars are not copied for them (`ShardReader.read`).
        """
        images, chunks = self._started().submit(refs, spec, augmentation, urgent)
        return PendingImages(self, images, chunks)

    @property
    def processes(self) -> list[int]:
        """Process ids of the decoding processes, where there are any now."""
        return self._engine.pool.processes if self._engine else []

    def close(self) -> None:
        """End threads and processes at once; what is not done is given up."""
        if self._engine is not None:
            self._engine.pool.close()

    def _started(self) -> "_Engine":
        with self._starting:
            engine = self._engine
            if engine is None or engine.pid != os.getpid():
                engine = self._engine = _Engine(self._workspace, self._read_options)
                weakref.finalize(self, engine.pool.close)
        return engine


class _Engine:
    """The pool of decoders and its buffers, in the process that made them."""

    def __init__(self, workspace: Workspace, read_options: ReadOptions) -> None:
        self.pid = os.getpid()
        self.shards = ShardReader(workspace)
        processes = read_options.processes()
        self._count = processes or read_options.decoders()
        self.pool = DecodePool(
            self.shards,
            count=self._count,
            processes=processes > 0,
            worth=_WORTH_A_PROCESS if read_options.workers == "auto" else 0.0,
        )
        self._pool = BufferPool(shared=processes > 0, pinned=read_options.pin_memory)

    def submit(
        self, refs: StoredRefs, spec: ImageSpec, augmentation: Augmentation, urgent: bool
    ) -> "tuple[Pixels, list[tuple[int, Future[Failures]]]]":
        shape = (len(refs), spec.size, spec.size, spec.channels)
        each = spec.size * spec.size * spec.channels
        buffer, memory = self._pool.take(len(refs) * each)
        images = memory.reshape(shape)
        share = -(-len(refs) // self._count)
        length = max(_LEAST_IN_CHUNK, min(share, _MOST_IN_CHUNK, _MOST_BYTES_IN_CHUNK // each))
        starts = range(0, len(refs), length)
        tasks = [
            DecodeTask(
                refs=refs.take(slice(start, start + length)),
                augmentation=augmentation,
                into=images[start : start + length],
                buffer=buffer,
                start=START + start * each,
                urgent=urgent,
            )
            for start in starts
        ]
        self.pool.submit(tasks)
        return images.transpose(0, 3, 1, 2), list(zip(starts, (task.done for task in tasks), strict=True))
