"""The tensors of a checkpoint that processes share out: each writes its own part, and any number of them read it.

`torch.distributed.checkpoint` plans who writes and who reads what. The storage is our own, as torch's keeps a pickle:
sealed safetensors in the workspace, and a card that names them with their digests, which is written last.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.distributed.tensor import DTensor
from torch.futures import Future

from rhostream.errors import OtherRankError, WorkspaceError
from rhostream.loaders.storage import UnreadableError, Workspace, decode_card, decode_safetensors, encode_safetensors
from rhostream.loaders.stream import Exchange

_CARD: Final = "parts.json"
_STANDS_FOR: Final = "shared out"  # the only key of what stands in the place of such a tensor


def take_parts(state: Any, name: str = "") -> tuple[Any, dict[str, DTensor]]:
    """A state without the tensors that processes share out, and these by name: the keys on the way to each."""
    if isinstance(state, DTensor):
        return {_STANDS_FOR: name}, {name: state}
    if not isinstance(state, (Mapping, list)):
        return state, {}
    entries = state.items() if isinstance(state, Mapping) else enumerate(state)
    taken = {key: take_parts(value, f"{name}/{key}" if name else str(key)) for key, value in entries}
    parts = {each: part for _, found in taken.values() for each, part in found.items()}
    rest = {key: value for key, (value, _) in taken.items()}
    return (rest if isinstance(state, Mapping) else list(rest.values())), parts


def with_parts(state: Any, parts: Mapping[str, Tensor]) -> Any:
    """The state with these tensors where `take_parts` took them from."""
    if isinstance(state, dict):
        if set(state) == {_STANDS_FOR}:
            return parts[state[_STANDS_FOR]]
        return {key: with_parts(value, parts) for key, value in state.items()}
    return [with_parts(value, parts) for value in state] if isinstance(state, list) else state


def save_parts(workspace: Workspace, folder: str, parts: Mapping[str, DTensor], exchange: Exchange) -> str:
    """Write each process's part of the tensors; the digest of the card. All processes call it.

    Raises:
        OtherRankError: another process could not write its part. In that one its own error is raised.
    """
    writer = _Writer(workspace, folder)
    with _own_errors(exchange):
        save(dict(parts), storage_writer=writer, process_group=exchange.group)
    return writer.digest


def load_parts(
    workspace: Workspace,
    folder: str,
    digest: str,
    *,
    own: Callable[[str], Tensor | None],
    exchange: Exchange,
    remedy: str,
) -> dict[str, Tensor]:
    """The tensors by name: of those that are shared out here, this process's part; the others whole, on the CPU.

    All processes call it, with the same `own`.

    Args:
        digest: of the card, as `save_parts` gave it to the first process.
        own: the tensor of this training that has such a name, or one that is shared out as it is.
        remedy: what to do about a damaged file, for the message.

    Raises:
        WorkspaceError: a file is missing, damaged, or of another checkpoint.
    """
    reader = _Reader(workspace, folder, digest, remedy)
    found = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        like = own(name)
        assert isinstance(stored, TensorStorageMetadata)
        shared_out = isinstance(like, DTensor) and like.shape == stored.size
        found[name] = (
            torch.empty_like(like, dtype=stored.properties.dtype)
            if shared_out and like is not None
            else torch.empty(stored.size, dtype=stored.properties.dtype)
        )
    with _own_errors(exchange), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process reads alone
        load(
            found,
            storage_reader=reader,
            planner=DefaultLoadPlanner(),
            process_group=exchange.group,
            no_dist=exchange.size == 1,
        )
    return found


class _Writer(StorageWriter):
    """A file of the folder for each process that has a part, and the card.

    Attributes:
        digest: of the card, in the first process.
    """

    def __init__(self, workspace: Workspace, folder: str) -> None:
        self._workspace, self._folder = workspace, folder
        self.digest = ""

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *_: Any, **__: Any) -> None:
        """The folder comes with its first file."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [replace(plan, storage_data=f"{number:05d}.safetensors") for number, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors: dict[str, Tensor] = {}
        for item in plan.items:
            part = planner.resolve_data(item)
            assert isinstance(part, Tensor)
            tensors[_chunk(item.index)] = part.detach().to("cpu", copy=True).contiguous()
        written = None
        if tensors:
            content = encode_safetensors(tensors)
            self._workspace.write_bytes(f"{self._folder}/{plan.storage_data}", content)
            written = plan.storage_data, hashlib.sha256(content).hexdigest()
        results = [
            WriteResult(index=item.index, size_in_bytes=tensors[_chunk(item.index)].nbytes, storage_data=written)
            for item in plan.items
        ]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        written = {_chunk(each.index): each.storage_data for of_process in results for each in of_process}
        tensors = {}
        for name, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            chunks = []
            for chunk in stored.chunks:
                file, _ = written[_chunk(MetadataIndex(name, chunk.offsets))]
                chunks.append({"offsets": list(chunk.offsets), "sizes": list(chunk.sizes), "file": file})
            dtype = str(stored.properties.dtype).removeprefix("torch.")
            tensors[name] = {"dtype": dtype, "shape": list(stored.size), "chunks": chunks}
        card = f"{self._folder}/{_CARD}"
        self._workspace.write_json(card, {"tensors": tensors, "sha256_of_files": dict(sorted(written.values()))})
        self.digest = hashlib.sha256(self._workspace.read_bytes(card)).hexdigest()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


class _Reader(StorageReader):
    """What `_Writer` wrote, verified."""

    def __init__(self, workspace: Workspace, folder: str, digest: str, remedy: str) -> None:
        self._workspace, self._folder, self._remedy = workspace, folder, remedy
        with self._reading(_CARD):
            card = decode_card(self._content(_CARD, digest))
        self._files: dict[str, str] = card["sha256_of_files"]
        self._held_in: dict[str, str] = {}
        described: dict[str, Any] = {}
        for name, tensor in card["tensors"].items():
            chunks = []
            for chunk in tensor["chunks"]:
                offsets, sizes = torch.Size(chunk["offsets"]), torch.Size(chunk["sizes"])
                self._held_in[_chunk(MetadataIndex(name, offsets))] = chunk["file"]
                chunks.append(ChunkStorageMetadata(offsets=offsets, sizes=sizes))
            properties = TensorProperties(dtype=getattr(torch, tensor["dtype"]))
            described[name] = TensorStorageMetadata(properties, torch.Size(tensor["shape"]), chunks)
        self._metadata = Metadata(described)

    def reset(self, checkpoint_id: Any = None) -> None:
        """Nothing is kept from one checkpoint to the next."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        return self._metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *_: Any, **__: Any) -> None:
        """The card was read at the beginning."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_file: dict[str, list[Any]] = {}
        for item in plan.items:
            by_file.setdefault(self._held_in[_chunk(item.storage_index)], []).append(item)
        for file, items in by_file.items():
            with self._reading(file):
                tensors = decode_safetensors(self._content(file, self._files[file]))
            for item in items:
                part = tensors[_chunk(item.storage_index)]
                for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                    part = part.narrow(dimension, offset, length)
                target = planner.resolve_tensor(item).detach()
                target.copy_(part)
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def _content(self, file: str, digest: str) -> bytes:
        content = self._workspace.read_bytes(f"{self._folder}/{file}")
        if hashlib.sha256(content).hexdigest() != digest:
            raise UnreadableError("is not the one that was written with it")
        return content

    @contextmanager
    def _reading(self, file: str) -> Iterator[None]:
        try:
            yield
        except (UnreadableError, FileNotFoundError) as error:
            cause = "is missing" if isinstance(error, FileNotFoundError) else str(error)
            raise WorkspaceError(
                f"{self._workspace.path(f'{self._folder}/{file}')} is no readable part of a checkpoint ({cause}): it "
                f"was damaged after it was written; {self._remedy}"
            ) from error


def _chunk(index: MetadataIndex) -> str:
    """The name of a chunk among the tensors of a file: the tensor's, and where in it the chunk begins."""
    return f"{index.fqn} {json.dumps(list(index.offset or ()))}"


@contextmanager
def _own_errors(exchange: Exchange) -> Iterator[None]:
    """This process's own error, where it has one, in place of torch's collection of those of all."""
    try:
        yield
    except CheckpointException as error:
        if exchange.rank in error.failures:
            raise error.failures[exchange.rank][0] from None
        rank, (cause, _) = min(error.failures.items())
        raise OtherRankError(f"rank {rank} has failed ({type(cause).__name__}: {cause})") from None
