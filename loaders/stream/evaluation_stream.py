"""A split to evaluate on: plain pairs of a sample and its label, in shard order, un-augmented."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rhostream.errors import WorkspaceError
from rhostream.loaders.decode import InputReader, InputSpec, Positions, ReadOptions, StoredRefs, take_texts
from rhostream.loaders.index import (
    EVALUATED,
    CorpusMetadata,
    Labels,
    Shard,
    ShardList,
    ShardRows,
    concat_labels,
    key_hashes,
    read_shard_rows,
    take_labels,
    undecodable,
)
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.ranks import Ranks, distributed, given_ranks
from rhostream.loaders.stream.targets import make_targets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_READ_AT_ONCE = 256  # samples, while iterating


class EvaluationStream(Dataset[tuple[Any, int | Tensor]]):
    """The samples of a split as a map-style dataset: (image float32 (C, H, W), normalized; label).

    A text is a dict of its `input_ids` and `attention_mask`, int64 (tokens,).

    The label is a number; of a multi-label corpus float32 (classes,), 1 for each of the sample's classes.

    Iterate over it, or give it to any DataLoader, which reads a batch of samples at once. In a distributed run each
    rank has its own samples: every sample belongs to one rank, and their numbers differ by at most one.

    Args:
        workspace: where `corpus.json` lies.
        split: "test", "val", "holdout" or "train".
        spec: of the images or texts; the manifest's where None.
        shards: what to read, in place of the split.
        among: which rows of a shard there are to choose from, bool (n,); None for all.
        at_most: upper bound on the number of samples, chosen by a salted hash of their keys; None for all.
        extra: further columns of the index to carry along, those that there are: see `extra`.
        shard_by_rank: False gives every rank all samples: for trainers that put a sampler of their own around a
            dataset (Lightning, Accelerate, the Hugging Face Trainer).
        dp_rank, dp_world_size, mesh: as of `CandidateStream`.
        read_options: see `ReadOptions`.

    Raises:
        WorkspaceError: there are no such samples.
    """

    def __init__(
        self,
        workspace: Workspace | str | os.PathLike[str],
        split: str = "test",
        *,
        spec: InputSpec | None = None,
        shards: Sequence[Shard] | None = None,
        among: Callable[[ShardRows], npt.NDArray[np.bool_]] | None = None,
        at_most: int | None = None,
        extra: tuple[str, ...] = (),
        shard_by_rank: bool = True,
        read_options: ReadOptions = ReadOptions(workers=0),
        dp_rank: int | None = None,
        dp_world_size: int | None = None,
        mesh: "DeviceMesh | None" = None,
    ) -> None:
        self.workspace = Workspace(workspace)
        self.corpus = CorpusMetadata.read(self.workspace)
        self.spec = spec or self.corpus.input_spec()
        self.shards = self.corpus.split(split) if shards is None else ShardList.of(shards)
        total = self.shards.samples
        if not total:
            named = f"split {split!r}" if shards is None else "the shards to evaluate on"
            raise WorkspaceError(
                f"workspace {self.workspace.location!r}: {named} holds no samples, of {self.corpus.counts}; give the "
                "corpus this split, or name another one"
            )
        wanted = total if at_most is None else min(total, at_most)
        rows, labels, texts, columns = self._chosen(wanted, total, among, extra)
        given = given_ranks(dp_rank, dp_world_size, mesh)
        rank, ranks = (given or distributed()) if shard_by_rank else Ranks()
        mine = np.arange(rank, len(rows), ranks)
        self._rows, self._labels = rows[mine], take_labels(labels, mine)
        #: The captions of pairs, of this rank; empty where there are none.
        self.captions: list[str] = [texts[at] for at in mine] if texts else []
        #: Further columns of the index, of this rank: (n,) each.
        self.extra = {name: column[mine] for name, column in columns.items()}
        self._reader = InputReader(self.workspace, read_options)

    def __len__(self) -> int:
        """Samples of this rank."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, int | Tensor]:
        """Raises ShardError where the sample does not decode, as all that follows."""
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, int | Tensor]]:
        """What a DataLoader asks for: the pairs of one batch."""
        positions = np.asarray(indices, np.int64)
        inputs = self.spec.inputs(self.spec.field, torch.from_numpy(self.stored(positions)))
        labels = self.targets(positions)
        return list(zip(_each(inputs), labels.tolist() if labels.dim() == 1 else labels, strict=True))

    def __iter__(self) -> Iterator[tuple[Any, int | Tensor]]:
        for start in range(0, len(self), _READ_AT_ONCE):
            yield from self.__getitems__(range(start, min(start + _READ_AT_ONCE, len(self))))

    def targets(self, positions: Positions) -> Tensor:
        """The labels of the samples at these positions: int64 (m,), or float32 (m, classes)."""
        return make_targets(take_labels(self._labels, positions), len(self.corpus.classes))

    def stored(self, positions: Positions) -> npt.NDArray[Any]:
        """The samples at these positions as they are read, see `PendingInputs.result`."""
        rows = self._rows[positions]
        refs = StoredRefs(
            tars=[shard.tar for shard in self.shards],
            numbers=rows["shard"],
            offsets=rows["offset"],
            sizes=rows["size"],
        )
        stored, failures = self._reader.submit(refs, self.spec).result()
        for position, reason in failures[:1]:
            shard = self.shards[rows["shard"][position]]
            raise undecodable(self.workspace, shard, int(rows["row"][position]), reason)
        return stored

    def close(self) -> None:
        """Let the decoding threads go."""
        self._reader.close()

    def _chosen(
        self,
        wanted: int,
        total: int,
        among: Callable[[ShardRows], npt.NDArray[np.bool_]] | None,
        extra: tuple[str, ...],
    ) -> tuple[npt.NDArray[np.void], Labels, list[str], dict[str, npt.NDArray[Any]]]:
        """The `wanted` samples of the smallest hashes, holding O(wanted + one shard) of the index."""
        columns = [("hash", "u8"), ("shard", "i4"), ("row", "i4"), ("offset", "i8"), ("size", "i8")]
        chosen: npt.NDArray[np.void] = np.zeros(0, columns)
        labels: list[Labels] = []
        texts: list[str] = []
        others: dict[str, npt.NDArray[Any]] = {}
        for number, shard in enumerate(self.shards):
            rows = read_shard_rows(self.workspace, shard, extra)
            part = np.zeros(len(rows), columns)
            if wanted < total:
                part["hash"] = key_hashes(rows.keys.to_pylist(), EVALUATED)
            part["shard"], part["row"] = number, np.arange(len(rows))
            part["offset"], part["size"] = rows.offsets, rows.sizes
            there = slice(None) if among is None else np.flatnonzero(among(rows))
            chosen, labels = np.concatenate([chosen, part[there]]), [*labels, take_labels(rows.labels, there)]
            texts += [] if rows.texts is None else map(str, take_texts(rows.texts, there))
            for name, column in rows.extra.items():
                others[name] = np.concatenate([*([others[name]] if name in others else []), column[there]])
            if len(chosen) > wanted:
                smallest = np.sort(np.argsort(chosen["hash"], kind="stable")[:wanted])
                chosen, labels = chosen[smallest], [take_labels(concat_labels(labels), smallest)]
                texts = [texts[at] for at in smallest] if texts else []
                others = {name: column[smallest] for name, column in others.items()}
        return chosen, concat_labels(labels), texts, others


def _each(inputs: Mapping[str, Tensor]) -> Sequence[Any]:
    """Of what a model takes, what each sample is: an image, or the tokens of a text."""
    if len(inputs) == 1:
        return list(next(iter(inputs.values())))
    lengths = inputs["attention_mask"].sum(1).tolist()
    return [{name: each[row, :length] for name, each in inputs.items()} for row, length in enumerate(lengths)]
