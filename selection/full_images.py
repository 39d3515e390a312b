"""The images of the chosen candidates: the full ones behind thumbnails are read for these alone."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.loaders.decode import ImageReader, PendingImages
from rhostream.loaders.stream import SuperBatch, Tolerance
from rhostream.selection.scoring import Meter


class FullImageReading:
    """Begins to read the images of what was chosen, and hands out those that could be read."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._reader: ImageReader | None = None  # held from step to step
        self._tolerance: tuple[int, Tolerance] | None = None  # with its epoch

    def begin(self, super_batch: SuperBatch, positions: npt.NDArray[np.int64]) -> PendingImages | None:
        """Begin to read the full images at these positions, int64 (m,); None where there are none behind the scored."""
        if super_batch.full is None or not len(positions):
            return None
        self._reader = super_batch.full.reader()
        return super_batch.full.submit(positions)

    def of(
        self, super_batch: SuperBatch, positions: npt.NDArray[np.int64], pending: PendingImages | None
    ) -> tuple[Tensor | None, npt.NDArray[np.bool_]]:
        """uint8 images of the chosen that could be read, and which of the chosen these are: bool (m,).

        There are no images where the candidates' own are trained on.

        Args:
            super_batch: on the model's device.
            pending: what `begin` returned.

        Raises:
            ShardError: more full images in an epoch cannot be read than are tolerated.
        """
        readable = np.ones(len(positions), bool)
        device = super_batch.images.device
        if pending is None:
            return None, readable
        with self._meter.charge("load"):
            pixels, failures = pending.result()
            images = torch.from_numpy(pixels).to(device)
        for position, cause in failures:
            self._tolerate(super_batch, positions[position], cause)
            readable[position] = False
        if failures:
            images = images[torch.from_numpy(readable).to(device)]
        return images, readable

    def _tolerate(self, super_batch: SuperBatch, candidate: int, cause: str) -> None:
        """Count one that cannot be read; as many an epoch are allowed as of the candidates."""
        assert super_batch.full is not None
        if self._tolerance is None or self._tolerance[0] != super_batch.epoch:
            self._tolerance = super_batch.epoch, Tolerance(super_batch.full.read_options.max_unreadable)
        self._tolerance[1].count(super_batch.keys[candidate], super_batch.shards[candidate], cause)
