"""The samples that an IL model is trained on, batch by batch, in the order of the stream."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rhostream.loaders.decode import (
    Augmentation,
    InputReader,
    InputSpec,
    ReadOptions,
    StoredRefs,
    TextSpec,
    shift_and_flip,
    take_texts,
    uniform_draws,
)
from rhostream.loaders.index import Shard, distinct, read_shard_rows, undecodable
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Batch, CandidateStream, CandidateTable, Chunks, Order, Ranks, make_targets

ALONE: Final = Ranks()
_READ_AT_ONCE: Final = 500  # samples


class Share(NamedTuple):
    """What one process has of the batch of a step.

    Attributes:
        batch: its samples; where there are fewer than two for each process, several have the same.
        of: samples of the whole batch.
        weight: of the mean loss over its samples, so that the mean over the processes is that over the whole batch.
        counts: False where another process has the same samples; of pairs, which are compared with all of the batch,
            these then have no weight.
    """

    batch: Batch
    of: int
    weight: float = 1.0
    counts: bool = True


class TrainingSamples:
    """Where all samples fit into memory they are read once, equal files as one, and augmented anew in every epoch.

    Else they are read every time; the batches are the same either way.

    Args:
        held_bytes: of read samples, at most.
        threads: of decoding; 0 for one a core.
        ranks: that share out each batch, and this process's own.
    """

    def __init__(
        self,
        workspace: Workspace,
        shards: Sequence[Shard],
        spec: InputSpec,
        text_spec: TextSpec | None = None,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        threads: int,
        ranks: Ranks = ALONE,
        held_bytes: int = 512 << 20,
    ) -> None:
        self._stream = CandidateStream(
            workspace,
            super_batch_size=batch_size,
            seed=seed,
            shards=shards,
            spec=spec,
            text_spec=text_spec,
            augmentation=augmentation,
            order=Order(last="keep"),
            read_options=ReadOptions(threads=threads),
            dp_rank=ranks.rank,
            dp_world_size=ranks.size,
        )
        self._ranks = ranks
        # A crop at random needs more pixels than the spec has.
        fits = self._stream.samples * spec.values <= held_bytes
        self._holds = fits and augmentation != "resized_crop"
        self._reader = InputReader(workspace, ReadOptions(threads=threads, workers=0))
        self._held: tuple[npt.NDArray[Any], npt.NDArray[np.int64]] | None = None
        ends = np.cumsum([shard.rows for shard in shards])
        self._starts = {shard.name: int(end) - shard.rows for shard, end in zip(shards, ends, strict=True)}

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._stream)

    def batches(self, epoch: int, first: int = 0) -> Iterator[Share]:
        """This process's share of those of one epoch, their field as it was read: see `SuperBatch`.

        Args:
            first: the batch of the epoch to begin with.

        Raises:
            ShardError: a sample cannot be read.
        """
        stream = self._stream
        if not self._holds:
            stream.load_state_dict(stream.state_at(epoch, first * stream.super_batch_size))
            for batch in stream:
                yield self._share(batch, len(batch if batch.part is None else batch.part.whole))
            return
        if self._held is None:
            self._held = self._read()
        rounds = stream.rounds()
        for turn in range(first, len(rounds)):
            samples, _ = stream.read(epoch, *rounds.bounds(turn))
            count = len(samples)
            if self._ranks.size > 1:
                samples = samples.take(self._chunks(count).positions(self._ranks.rank))
            stored = torch.from_numpy(self._taken(*self._held, samples))
            labels = make_targets(samples.labels, len(stream.corpus.classes))
            yield self._share(Batch(fields={stream.spec.field: stored, **self._tokens(samples)}, labels=labels), count)

    def close(self) -> None:
        """Let the samples and the threads go."""
        self._held = None
        self._reader.close()

    def _chunks(self, count: int) -> Chunks:
        return Chunks.of(count, None, self._ranks.size)

    def _share(self, batch: Batch, count: int) -> Share:
        rank, size = self._ranks
        if size == 1:
            return Share(batch, count)
        chunks = self._chunks(count).count
        (chunk,) = self._chunks(count).scored_by(rank)
        counts, holders = rank == chunk, len(range(chunk, size, chunks))
        if self._stream.text_spec is not None:
            return Share(batch, count, weight=size * len(batch) / count if counts else 0.0, counts=counts)
        return Share(batch, count, weight=size * len(batch) / (count * holders), counts=counts)

    def _tokens(self, samples: CandidateTable) -> dict[str, torch.Tensor]:
        """The captions of pairs, as they are read; empty for other samples."""
        spec = self._stream.text_spec
        if spec is None:
            return {}
        ids, _ = self._reader.tokenize(list(map(str, samples.texts or [])), spec).result()
        return {"text": torch.from_numpy(ids)}

    def _read(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """All samples, un-augmented, equal files once.

        Returns:
            As `InputSpec.blank` has them, and which of these each sample is, int64 (n,), shard after shard.
        """
        stream, spec = self._stream, self._stream.spec
        parts = [read_shard_rows(stream.workspace, shard) for shard in stream.shards]
        hashes = pa.concat_arrays([part.hashes for part in parts])
        first, which = distinct(hashes)
        files = StoredRefs(
            tars=[shard.tar for shard in stream.shards],
            numbers=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])[first],
            offsets=np.concatenate([part.offsets for part in parts])[first],
            sizes=np.concatenate([part.sizes for part in parts])[first],
            hashes=take_texts(hashes, first) if stream.read_options.verify else None,
        )
        held = spec.blank(len(first))
        reader = InputReader(stream.workspace, stream.read_options)
        for start in range(0, len(first), _READ_AT_ONCE):
            some = np.arange(start, min(start + _READ_AT_ONCE, len(first)))
            stored, failures = reader.submit(files.take(some), spec).result()
            for position, reason in failures[:1]:
                shard = stream.shards[files.numbers[some[position]]]
                row = int(first[some[position]]) - self._starts[shard.name]
                raise undecodable(stream.workspace, shard, row, reason)
            held[some, ..., : stored.shape[-1]] = stored
        reader.close()
        return held, which

    def _taken(self, held: npt.NDArray[Any], which: npt.NDArray[np.int64], samples: CandidateTable) -> npt.NDArray[Any]:
        """The held ones of these samples, augmented."""
        rows = which[np.asarray([self._starts[shard] for shard in samples.shards]) + samples.rows]
        if self._stream.spec.field != "image":
            taken: npt.NDArray[Any] = held[rows]
            return taken
        pixels = held.transpose(0, 2, 3, 1)[rows]  # as they lie in memory
        seeds = samples.refs["image"].augmentation_seeds
        if seeds is not None:
            for image, seed in zip(pixels, seeds, strict=True):
                image[...] = shift_and_flip(image, self._stream.augmentation, uniform_draws(seed))
        return pixels.transpose(0, 3, 1, 2)
