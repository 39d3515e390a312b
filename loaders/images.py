"""Pixels of samples: read by offset and decoded, by threads or processes, into memory that is used again."""

import os
import threading
import weakref
from concurrent.futures import Future
from typing import Final

from rhostream.loaders.augmentation import Augmentation
from rhostream.loaders.buffers import START, BufferPool
from rhostream.loaders.chunk import Failures
from rhostream.loaders.lanes import Job, Lanes
from rhostream.loaders.picks import Picks
from rhostream.loaders.pixels import Pixels
from rhostream.loaders.reading import Reading
from rhostream.loaders.shard_reader import ShardReader
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace

# A chunk costs a fraction of a millisecond beside the decoding, and delays what is urgent.
_LEAST_IN_CHUNK: Final = 16
_MOST_IN_CHUNK: Final = 256
_MOST_BYTES_IN_CHUNK: Final = 16 << 20
_WORTH_A_PROCESS: Final = 0.5  # seconds of decoding: about what a process costs to start


class PendingImages:
    """Images that are being read."""

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
    """Reads and decodes stored images to the pixels of views. Safe for threads and after a fork.

    Threads and processes start with the first images and end with `close`, or when the reader is forgotten.
    """

    def __init__(self, workspace: Workspace, reading: Reading = Reading()) -> None:
        self._workspace, self._reading = workspace, reading
        self._engine: _Engine | None = None
        self._starting = threading.Lock()

    def submit(
        self, picks: Picks, view: View, augmentation: Augmentation = "none", *, urgent: bool = False
    ) -> PendingImages:
        """Begin to read these images.

        Args:
            urgent: few images, such as the selected ones, wanted before all others that have not been begun; remote
                tars are not copied for them (`ShardReader.read`).
        """
        images, chunks = self._started().submit(picks, view, augmentation, urgent)
        return PendingImages(self, images, chunks)

    @property
    def processes(self) -> list[int]:
        """Process ids of the decoding processes, where there are any now."""
        return self._engine.lanes.processes if self._engine else []

    def close(self) -> None:
        """End threads and processes at once; what is not done is given up."""
        if self._engine is not None:
            self._engine.lanes.close()

    def _started(self) -> "_Engine":
        with self._starting:
            engine = self._engine
            if engine is None or engine.pid != os.getpid():
                engine = self._engine = _Engine(self._workspace, self._reading)
                weakref.finalize(self, engine.lanes.close)
        return engine


class _Engine:
    """Lanes and their buffers, in the process that made them."""

    def __init__(self, workspace: Workspace, reading: Reading) -> None:
        self.pid = os.getpid()
        self.shards = ShardReader(workspace)
        processes = reading.processes()
        self._count = processes or reading.decoders()
        self.lanes = Lanes(
            self.shards,
            count=self._count,
            processes=processes > 0,
            worth=_WORTH_A_PROCESS if reading.workers == "auto" else 0.0,
        )
        self._pool = BufferPool(shared=processes > 0, pinned=reading.pin_memory)

    def submit(
        self, picks: Picks, view: View, augmentation: Augmentation, urgent: bool
    ) -> "tuple[Pixels, list[tuple[int, Future[Failures]]]]":
        shape = (len(picks), view.size, view.size, view.channels)
        each = view.size * view.size * view.channels
        buffer, memory = self._pool.take(len(picks) * each)
        images = memory.reshape(shape)
        share = -(-len(picks) // self._count)
        length = max(_LEAST_IN_CHUNK, min(share, _MOST_IN_CHUNK, _MOST_BYTES_IN_CHUNK // each))
        starts = range(0, len(picks), length)
        jobs = [
            Job(
                picks=_part(picks, slice(start, start + length)),
                augmentation=augmentation,
                into=images[start : start + length],
                buffer=buffer,
                start=START + start * each,
                urgent=urgent,
            )
            for start in starts
        ]
        self.lanes.submit(jobs)
        return images.transpose(0, 3, 1, 2), list(zip(starts, (job.done for job in jobs), strict=True))


def _part(picks: Picks, part: slice) -> Picks:
    return Picks(
        tars=picks.tars,
        numbers=picks.numbers[part],
        offsets=picks.offsets[part],
        sizes=picks.sizes[part],
        hashes=None if picks.hashes is None else picks.hashes[part],
        draws=None if picks.draws is None else picks.draws[part],
    )
