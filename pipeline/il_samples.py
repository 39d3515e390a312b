"""The samples that an IL model is trained on, batch by batch, in the order of the stream."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch

from rhostream.loaders.augmentation import Augmentation, shift_and_flip, uniform_draws
from rhostream.loaders.draw import Drawn
from rhostream.loaders.index import Shard
from rhostream.loaders.order import Order
from rhostream.loaders.pixels import Pixels
from rhostream.loaders.reading import Reading
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace

_READ_AT_ONCE: Final = 500  # samples


class TrainingSamples:
    """Where all pixels fit into memory they are decoded once and augmented anew in every epoch.

    Else they are decoded every time; the batches are the same either way.

    Args:
        held_bytes: of decoded pixels, at most.
        threads: of decoding; 0 for one a core.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: tuple[Shard, ...],
        view: View,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        threads: int,
        held_bytes: int = 512 << 20,
    ) -> None:
        self._stream = CandidateStream(
            workspace,
            super_batch_size=batch_size,
            seed=seed,
            shards=shards,
            view=view,
            augmentation=augmentation,
            order=Order(shard_by_rank=False),
            reading=Reading(threads=threads),
        )
        # A crop at random needs more pixels than the view has.
        fits = self._stream.samples * view.size**2 * view.channels <= held_bytes
        self._holds = fits and augmentation != "resized_crop"
        self._held: Pixels | None = None
        ends = np.cumsum([shard.rows for shard in shards])
        self._starts = {shard.name: int(end) - shard.rows for shard, end in zip(shards, ends, strict=True)}

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._stream)

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """images uint8 (n, C, H, W), channels last in memory, and labels int64 (n,), of one epoch.

        Raises:
            ShardError: an image cannot be read.
        """
        stream = self._stream
        if not self._holds:
            stream.set_epoch(epoch)
            yield from ((batch.images, batch.labels) for batch in stream)
            return
        if self._held is None:
            self._held = self._read()
        rounds = stream.rounds()
        for turn in range(len(rounds)):
            drawn = stream.draw(epoch, *rounds.bounds(turn, 0))
            images = torch.from_numpy(self._pixels(self._held, drawn)).permute(0, 3, 1, 2)
            yield images, torch.from_numpy(drawn.labels.astype(np.int64))

    def close(self) -> None:
        """Let the pixels go."""
        self._held = None

    def _read(self) -> Pixels:
        """All samples, un-augmented: uint8 (n, size, size, C), shard after shard."""
        stream = CandidateStream(
            self._stream.workspace,
            super_batch_size=_READ_AT_ONCE,
            shards=self._stream.shards,
            view=self._stream.view,
            order=self._stream.order,
            reading=self._stream.reading,
        )
        size, channels = stream.view.size, stream.view.channels
        held = np.empty((stream.samples, size, size, channels), np.uint8)
        for batch in stream:
            starts = np.asarray([self._starts[shard] for shard in batch.shards])
            held[starts + batch.rows] = batch.images.permute(0, 2, 3, 1).numpy()
        return held

    def _pixels(self, held: Pixels, drawn: Drawn) -> Pixels:
        pixels = held[np.asarray([self._starts[shard] for shard in drawn.shards]) + drawn.rows]
        if drawn.images.draws is not None:
            for image, draw in zip(pixels, drawn.images.draws, strict=True):
                image[...] = shift_and_flip(image, self._stream.augmentation, uniform_draws(draw))
        return pixels
