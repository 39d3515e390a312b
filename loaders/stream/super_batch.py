"""A super-batch: what the stream hands to a selector."""

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from rhostream.errors import ConfigError, ShardError
from rhostream.loaders.decode import (
    Augmentation,
    ImageSpec,
    InputReader,
    InputSpec,
    PendingInputs,
    ReadOptions,
    StoredRefs,
)
from rhostream.loaders.reference import PairReference
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream.batch import Batch
from rhostream.loaders.stream.candidate_table import CandidateTable
from rhostream.loaders.stream.ranks import Chunks


class Tolerance:
    """Counts the images of an epoch that cannot be read, and ends the run where there are more than are allowed."""

    def __init__(self, allowed: int) -> None:
        self._allowed, self._found = allowed, 0

    def count(self, key: str, shard: str, cause: str) -> None:
        """Raises ShardError where this one is one too many."""
        self._found += 1
        if self._found > self._allowed:
            raise ShardError(
                f"sample {key} of shard {shard} cannot be read ({cause}); {self._found} so far in this epoch, "
                f"{self._allowed} are allowed: the shard was damaged after it was written; restore it, or "
                "raise max_unreadable"
            )


@dataclass(frozen=True, kw_only=True)
class FullImages:
    """The full-size images behind a super-batch whose thumbnails were read; only those asked for are read.

    Attributes:
        spec: the pixels to make of them.
    """

    workspace: Workspace
    refs: StoredRefs
    spec: InputSpec
    augmentation: Augmentation
    read_options: ReadOptions

    def reader(self) -> InputReader:
        """What reads them in this process; hold it, so that it lives from one super-batch to the next."""
        return shared_reader(self.workspace, self.read_options)

    def submit(self, positions: npt.NDArray[np.int64]) -> PendingInputs:
        """Begin to read those at these positions of the super-batch, before all candidates that wait."""
        return self.reader().submit(self.refs.take(positions), self.spec, self.augmentation, urgent=True)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which candidates of a job's super-batch a rank has read.

    Attributes:
        whole: the super-batch of all ranks, on the CPU, with no rows in its fields: which of its candidates are
            readable, the ranks tell one another.
        chunks: how it is shared out.
        rank: that has read this part.
        positions: int64 (m,), of the part's candidates in the whole.
        images: what reads the pixels of any candidate of the whole, by field.
    """

    whole: "SuperBatch"
    chunks: Chunks
    rank: int
    positions: npt.NDArray[np.int64]
    images: dict[str, FullImages]

    def passes(self) -> list[npt.NDArray[np.int64]]:
        """Rows of the part that are scored together, for every pass that the rank runs."""
        of_chunk = self.positions % self.chunks.count
        return [np.flatnonzero(of_chunk == chunk) for chunk in self.chunks.scored_by(self.rank)]


@dataclass(frozen=True, kw_only=True)
class SuperBatch(Batch):
    """The candidates B_t of one step (arXiv 2206.07137, Algorithm 1, line 5), joined with their irreducible losses.

    In a job of several ranks, or where candidates are scored in chunks, it is the part of it that this rank reads.

    Attributes:
        fields: what to score, as it was read: "image" is uint8 (n, C, H, W), channels last in memory; "text" is int32
            (n, longest), token ids. `normalized` makes of them what a model takes.
        labels: as of `Batch`.
        il: float32 (n,), nats; None where no irreducible losses are known.
        candidates: the same n as the index has them.
        passed_over: candidates read off the order with these and not decoded, each with its reason.
        specs: of each field.
        epoch: the epoch it belongs to.
        index: its number, counted from where this pass over the epoch began.
        size: n_B of the job that was asked for, or what the whole corpus has; an epoch's last super-batch may be
            shorter.
        first: its first position in the epoch.
        left_over: candidates that end the epoch after this super-batch, and that nobody gets; 0 before.
        state: for `CandidateStream.load_state_dict`: continues after this super-batch.
        full: the images to train on, where `fields` are thumbnails that are not exact; else None.
        correct: bool (n,), did the model predict the label when a selector scored them? None where not known.
        part: of which super-batch this is a part; None where it is all of it.
        image_embedding, text_embedding: float16 (n, D), of each pair by the reference model, normalized; None where the
            stream joins none.
        reference: what makes losses of these; None where there are none.
    """

    il: Tensor | None
    candidates: CandidateTable = field(repr=False)
    passed_over: CandidateTable = field(repr=False)
    specs: dict[str, InputSpec]
    epoch: int
    index: int
    size: int
    state: dict[str, Any]
    first: int = 0
    left_over: int = 0
    full: FullImages | None = field(default=None, repr=False)
    correct: Tensor | None = field(default=None, repr=False)
    part: Part | None = field(default=None, repr=False)
    image_embedding: Tensor | None = field(default=None, repr=False)
    text_embedding: Tensor | None = field(default=None, repr=False)
    reference: PairReference | None = None

    _columns: ClassVar[tuple[str, ...]] = ("labels", "il", "correct", "image_embedding", "text_embedding")

    @property
    def keys(self) -> Sequence[str]:
        return self.candidates.keys

    @property
    def shards(self) -> Sequence[str]:
        return self.candidates.shards

    @property
    def rows(self) -> npt.NDArray[np.int32]:
        """int32 (n,), position in the shard."""
        return self.candidates.rows

    @property
    def extra(self) -> dict[str, npt.NDArray[Any]]:
        """Further columns of the index, (n,) each."""
        return self.candidates.extra

    @property
    def spec(self) -> ImageSpec:
        """Of the field "image"; ConfigError where the samples have none."""
        spec = self.specs.get("image")
        if not isinstance(spec, ImageSpec):
            raise ConfigError(f"the samples have {', '.join(self.specs)} and no image: see `specs`")
        return spec

    @property
    def texts(self) -> Sequence[str]:
        """The raw texts; ConfigError where the corpus has none."""
        return raw_texts(self.candidates)

    @property
    def candidate_count(self) -> int:
        """Candidates read off the order: those that were decoded and those passed over."""
        return len(self) + len(self.passed_over)

    def take(self, positions: npt.NDArray[np.int64]) -> Self:
        """The candidates at these positions, in this order, and all that are passed over."""
        at = torch.from_numpy(positions).to(self.labels.device)
        full = None if self.full is None else replace(self.full, refs=self.full.refs.take(positions))
        part = None if self.part is None else replace(self.part, positions=self.part.positions[positions])
        candidates = self.candidates.take(positions)
        return self._each_tensor(lambda tensor: tensor[at], candidates=candidates, full=full, part=part)

    def without_unreadable(self, readable: npt.NDArray[np.int64]) -> Self:
        """The candidates at these positions; the others are passed over as unreadable. Fields of no rows stay so."""
        if len(readable) == len(self):
            return self
        unreadable = self.candidates.passed_over(np.setdiff1d(np.arange(len(self)), readable), "unreadable")
        empty = {name: each for name, each in self.fields.items() if not len(each)}
        rest = replace(self, fields={name: each for name, each in self.fields.items() if len(each)}).take(readable)
        passed_over = CandidateTable.concat([self.passed_over, unreadable])
        return replace(rest, fields={**rest.fields, **empty}, passed_over=passed_over)

    def normalized(self) -> Self:
        """With fields as a model takes them: images in float32; input_ids and attention_mask of texts."""
        return replace(self, fields=model_inputs(self.fields, self.specs))

    def without_images(self) -> Self:
        """With no rows in its fields, whose memory is then free."""
        fields = {name: each[:0].clone() for name, each in self.fields.items()}
        return replace(self, fields=fields, full=None, part=None)


def model_inputs(fields: Mapping[str, Tensor], specs: Mapping[str, InputSpec]) -> dict[str, Tensor]:
    """The fields that a model takes, of fields as they were read."""
    return {name: each for field, stored in fields.items() for name, each in specs[field].inputs(field, stored).items()}


def raw_texts(candidates: CandidateTable) -> Sequence[str]:
    """Raises ConfigError where none were read."""
    if candidates.texts is None:
        raise ConfigError(
            "this stream reads no raw texts: the corpus has none, or their stored tokens were read; "
            "CandidateStream(…, texts=True) reads both"
        )
    return candidates.texts


def _refuse_to_batch(batch: list[SuperBatch], *, collate_fn_map: object = None) -> None:
    raise ConfigError(
        "a DataLoader would batch super-batches again: each is a batch already, DataLoader(stream, batch_size=None)"
    )


#: As torch's `default_collate` says how to have it treat a type.
default_collate_fn_map[SuperBatch] = _refuse_to_batch

_readers: "weakref.WeakValueDictionary[tuple[int, str, ReadOptions], InputReader]" = weakref.WeakValueDictionary()


def shared_reader(workspace: Workspace, read_options: ReadOptions) -> InputReader:
    """This process's reader of the workspace: one for all who hold it, ended with the last of them."""
    at = (os.getpid(), workspace.root, read_options)
    reader = _readers.get(at)
    if reader is None:
        reader = _readers[at] = InputReader(workspace, read_options)
    return reader
