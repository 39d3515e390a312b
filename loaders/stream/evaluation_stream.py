"""A split to evaluate on: plain pairs of image and label, in shard order, un-augmented."""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import ImageReader, ImageRefs, ImageSpec, Pixels, ReadOptions
from rhostream.loaders.index import (
    EVALUATED,
    CorpusMetadata,
    Shard,
    ShardRows,
    key_hashes,
    read_shard_rows,
    undecodable,
)
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.super_batch_stream import distributed

_READ_AT_ONCE = 256  # samples, while iterating


class EvaluationStream(Dataset[tuple[Tensor, int]]):
    """The samples of a split as a map-style dataset: (image float32 (C, H, W), normalized; label).

    Iterate over it, or give it to any DataLoader, which reads a batch of samples at once. In a distributed run each
    rank has its own samples: every sample belongs to one rank, and their numbers differ by at most one.

    Args:
        workspace: where `corpus.json` lies.
        split: "test", "val", "holdout" or "train".
        spec: of the pixels; the manifest's where None.
        shards: what to read, in place of the split.
        among: which rows of a shard there are to choose from, bool (n,); None for all.
        at_most: upper bound on the number of samples, chosen by a salted hash of their keys; None for all.
        shard_by_rank: False gives every rank all samples: for trainers that put a sampler of their own around a
            dataset (Lightning, Accelerate, the Hugging Face Trainer).
        read_options: see `ReadOptions`.

    Raises:
        WorkspaceError: there are no such samples.
    """

    def __init__(
        self,
        workspace: Workspace | str | os.PathLike[str],
        split: str = "test",
        *,
        spec: ImageSpec | None = None,
        shards: Sequence[Shard] | None = None,
        among: Callable[[ShardRows], npt.NDArray[np.bool_]] | None = None,
        at_most: int | None = None,
        shard_by_rank: bool = True,
        read_options: ReadOptions = ReadOptions(workers=0),
    ) -> None:
        self.workspace = Workspace(workspace)
        self.corpus = CorpusMetadata.read(self.workspace)
        self.spec = spec or self.corpus.image_spec()
        self.shards = self.corpus.split(split) if shards is None else tuple(shards)
        total = sum(shard.rows for shard in self.shards)
        if not total:
            named = f"split {split!r}" if shards is None else "the shards to evaluate on"
            raise WorkspaceError(
                f"workspace {self.workspace.location!r}: {named} holds no samples, of {self.corpus.counts}; give the "
                "corpus this split, or name another one"
            )
        rows = self._chosen(total if at_most is None else min(total, at_most), total, among)
        rank, ranks = distributed() if shard_by_rank else (0, 1)
        self._rows = rows[rank::ranks]
        #: int64 (n,), of all samples.
        self.labels = torch.from_numpy(self._rows["label"].astype(np.int64))
        self._reader = ImageReader(self.workspace, read_options)

    def __len__(self) -> int:
        """Samples of this rank."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Raises ShardError where the image does not decode, as all that follows."""
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """What a DataLoader asks for: the pairs of one batch."""
        positions = np.asarray(indices, np.int64)
        images = self.spec.normalize(torch.from_numpy(self.pixels(positions)))
        return list(zip(images, self._rows["label"][positions].tolist(), strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for start in range(0, len(self), _READ_AT_ONCE):
            yield from self.__getitems__(range(start, min(start + _READ_AT_ONCE, len(self))))

    def pixels(self, positions: npt.NDArray[np.int64] | slice) -> Pixels:
        """uint8 (m, C, H, W), channels last in memory, of the samples at these positions."""
        rows = self._rows[positions]
        refs = ImageRefs(
            tars=[shard.tar for shard in self.shards],
            numbers=rows["shard"],
            offsets=rows["offset"],
            sizes=rows["size"],
        )
        pixels, failures = self._reader.submit(refs, self.spec).result()
        for position, reason in failures[:1]:
            shard = self.shards[rows["shard"][position]]
            raise undecodable(self.workspace, shard, int(rows["row"][position]), reason)
        return pixels

    def close(self) -> None:
        """Let the decoding threads go."""
        self._reader.close()

    def _chosen(
        self, wanted: int, total: int, among: Callable[[ShardRows], npt.NDArray[np.bool_]] | None
    ) -> npt.NDArray[np.void]:
        """The `wanted` samples of the smallest hashes, holding O(wanted + one shard) of the index."""
        columns = [("hash", "u8"), ("shard", "i4"), ("row", "i4"), ("offset", "i8"), ("size", "i8"), ("label", "i4")]
        chosen: npt.NDArray[np.void] = np.zeros(0, columns)
        for number, shard in enumerate(self.shards):
            rows = read_shard_rows(self.workspace, shard)
            part = np.zeros(len(rows), columns)
            if wanted < total:
                part["hash"] = key_hashes(rows.keys.to_pylist(), EVALUATED)
            part["shard"], part["row"] = number, np.arange(len(rows))
            part["offset"], part["size"], part["label"] = rows.offsets, rows.sizes, rows.labels
            chosen = np.concatenate([chosen, part if among is None else part[among(rows)]])
            if len(chosen) > wanted:
                chosen = chosen[np.sort(np.argsort(chosen["hash"], kind="stable")[:wanted])]
        return chosen
