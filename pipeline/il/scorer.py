"""Scores one shard with an IL model: the forward passes, and the part of the table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from rhostream import schema
from rhostream.errors import IrreducibleLossError, ShardError, WorkspaceError
from rhostream.loaders.decode import InputReader, ReadOptions, StoredRefs, available_cores
from rhostream.loaders.index import (
    IL_MODEL_KEY,
    SHARD_DIGEST_KEY,
    Shard,
    ShardRows,
    distinct,
    read_shard_rows,
    read_thumbnail_rows,
    thumbnails_remedy,
    undecodable,
)
from rhostream.loaders.storage import Workspace, launched
from rhostream.loaders.stream import Batch
from rhostream.pipeline.config import Precision
from rhostream.pipeline.il.columns import il_columns, il_outputs
from rhostream.pipeline.il.cross_fit import TEXT_HASH, Corrections, last_layer, logits_and_inputs, part_hashes, parts_of
from rhostream.pipeline.il.metadata import ILMetadata, ILWeights, model_digest, write_il_cost
from rhostream.pipeline.jobs import read_ahead
from rhostream.pipeline.models import Costs, autocast, choose_device, one_thread, place, resolve_precision
from rhostream.selection.scoring import in_even_chunks
from rhostream.selection.tasks import Classification, MultiLabel, Task, logits_of

_PRECISION_KEY: Final = b"rhostream.precision"


@dataclass(frozen=True, kw_only=True)
class ScorerSettings:
    """How a process scores; `number` is its own among `processes` of this machine's rank.

    Attributes:
        thumbnails: name of one that holds the very pixels of all shards to score, which is then read; or None.
    """

    batch_size: int
    device: str
    precision: Precision
    threads: int
    thumbnails: str | None = None
    processes: int = 1
    number: int = 0


class ILScorer:
    """Scores shards in eval mode, un-augmented, with the spec of the model's metadata."""

    def __init__(self, workspace: Workspace, metadata: ILMetadata, settings: ScorerSettings) -> None:
        self._workspace, self._metadata, self._settings = workspace, metadata, settings
        self._device = _device(settings)
        self._costs = Costs(self._device)
        self._task: Task = MultiLabel() if metadata.task == "multi_label" else Classification()
        self._models: dict[str, nn.Module] = {}
        self._corrections: dict[str, Corrections | None] = {}
        shared = settings.processes * launched("LOCAL_WORLD_SIZE", 1)
        threads = settings.threads or max(1, available_cores() // shared)
        self._reader = InputReader(workspace, ReadOptions(threads=threads, workers=0))
        self._identity = {
            IL_MODEL_KEY: model_digest(workspace, metadata.name).encode(),
            _PRECISION_KEY: resolve_precision(self._device, settings.precision).encode(),
        }

    def is_done(self, shard: Shard) -> bool:
        """Is there a part, made from this shard as it is, by this model as it is?"""
        part = shard.scores(self._metadata.name)
        if not self._workspace.exists(part):
            return False
        try:
            found = self._workspace.read_schema(part, schema.of_task(schema.IL, self._metadata.task)).metadata or {}
        except WorkspaceError:
            return False
        return all(found.get(name) == value for name, value in self._part_metadata(shard).items())

    @torch.no_grad()
    def score(self, shard: Shard) -> int:
        """Write the part of this shard; returns its rows.

        Raises:
            ShardError: a sample does not decode.
            IrreducibleLossError: a loss is not finite.
        """
        before = self._costs.spent("il_score")
        weights = self._metadata.weights_for(shard)
        with self._costs.charge("il_score"), one_thread(self._device):
            rows = read_shard_rows(self._workspace, shard, (TEXT_HASH,))
            table = self._table(rows, self._columns(weights, rows), in_sample=shard.name in weights.trained_on)
        name = self._metadata.name
        spent = {unit: total - before[unit] for unit, total in self._costs.spent("il_score").items()}
        write_il_cost(self._workspace, name, f"score-{shard.name}", "il_score", **spent)
        self._workspace.write_table(shard.scores(name), table)
        return len(rows)

    def _columns(self, weights: ILWeights, rows: ShardRows) -> dict[str, Any]:
        """What the table says of these rows, see `il_columns`."""
        run = self._corrected(weights)
        first, which = distinct(rows.hashes)  # equal files make equal pixels
        hashes, size = np.array(part_hashes(rows))[first], self._settings.batch_size
        parts = [
            run(stored, hashes[number * size : number * size + len(stored)])
            for number, stored in enumerate(self._stored(rows, first))
        ]
        outputs = torch.cat(parts) if parts else torch.zeros(0, len(self._metadata.classes), dtype=torch.float64)
        return il_columns(outputs[which], rows.labels)

    def _corrected(self, weights: ILWeights) -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], torch.Tensor]:
        """How samples as they were read, and the hashes of these, become `il_outputs` on the CPU."""
        model = self._model(weights)
        if weights.file not in self._corrections:
            self._corrections = {weights.file: self._metadata.corrections(self._workspace, weights)}
        corrections = self._corrections[weights.file]
        classes = len(self._metadata.classes)
        if corrections is None:
            run: Callable[[Batch], Any] = partial(self._task.outputs, model)
        else:
            layer = last_layer(model, classes)
            assert layer is not None, "corrections are of a model that ends in such a layer"
            run = partial(logits_and_inputs, self._task, model, layer)

        def outputs(stored: npt.NDArray[Any], hashes: npt.NDArray[Any]) -> torch.Tensor:
            found = self._forward(run, stored).cpu()
            if corrections is not None:
                dealt = parts_of(hashes, len(corrections.weights))
                found = corrections(found[:, :classes], found[:, classes:], dealt)
            return il_outputs(found, self._metadata.task)

        return outputs

    def _forward(self, run: Callable[[Batch], Any], stored: npt.NDArray[Any]) -> torch.Tensor:
        """What a pass gives of samples as they were read, float32 (n, …), on the device."""
        spec = self._metadata.spec
        fields = spec.inputs(spec.field, torch.from_numpy(stored).to(self._device))
        batch = Batch(fields=fields, labels=torch.zeros(len(stored), dtype=torch.int64))

        def counted(part: Batch) -> Any:
            return self._costs.flops("il_score", part.shape, partial(run, part))

        with autocast(self._device, self._settings.precision):
            return logits_of(in_even_chunks(counted, batch))

    def _stored(self, rows: ShardRows, wanted: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[Any]]:
        """The samples of these rows, batch by batch, each read while the one before is scored."""
        size = self._settings.batch_size
        batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        read = partial(self._read, rows, self._refs(rows))
        # A thread for what is one batch would be most of the work on a small shard.
        yield from read_ahead(read, batches, 1) if len(batches) > 1 else map(read, batches)

    def _refs(self, rows: ShardRows) -> StoredRefs:
        """Where the shard's samples lie."""
        if self._settings.thumbnails is None:
            tar, offsets, sizes, hashes = rows.shard.tar, rows.offsets, rows.sizes, rows.hashes
        else:
            found = read_thumbnail_rows(self._workspace, self._settings.thumbnails, rows)
            tar, offsets, sizes, hashes = found.tar, found.offsets, found.sizes, found.hashes
        numbers = np.zeros(len(offsets), np.int32)
        return StoredRefs(tars=[tar], numbers=numbers, offsets=offsets, sizes=sizes, hashes=hashes.to_pylist())

    def _read(self, rows: ShardRows, refs: StoredRefs, numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        stored, failures = self._reader.submit(refs.take(numbers), self._metadata.spec).result()
        for position, reason in failures[:1]:
            row, thumbnails = int(numbers[position]), self._settings.thumbnails
            if thumbnails is None:
                raise undecodable(self._workspace, rows.shard, row, reason)
            raise ShardError(
                f"{self._workspace.path(refs.tars[0])} row {row}: {reason}; the thumbnails are damaged",
                thumbnails_remedy(self._workspace, thumbnails, rows.shard.split, overwrite=True),
            )
        return stored

    def _table(self, rows: ShardRows, found: dict[str, Any], *, in_sample: bool) -> pa.Table:
        count = len(rows)
        self._require_finite(rows.shard, found["il"])
        columns = {
            "il_model": pa.array([self._metadata.name] * count, pa.string()),
            "key": rows.keys,
            "shard": pa.array([rows.shard.name] * count, pa.string()),
            "row": np.arange(count, dtype=np.int32),
            **found,
            "il": found["il"] + np.float32(0),  # a certain and right model gives -0
            "in_sample": np.full(count, in_sample),
        }
        described = schema.of_task(schema.IL, self._metadata.task).with_metadata(self._part_metadata(rows.shard))
        return pa.table(columns, schema=described)

    def _require_finite(self, shard: Shard, il: npt.NDArray[np.float32]) -> None:
        bad = int((~np.isfinite(il)).sum())
        if bad:
            raise IrreducibleLossError(
                f"IL model {self._metadata.name!r} gives {bad} of {len(il)} samples of {shard.name} a loss that is not "
                "finite: train it again with --overwrite and a lower --learning-rate, or score with --precision float32"
            )

    def _part_metadata(self, shard: Shard) -> dict[bytes, bytes]:
        return {SHARD_DIGEST_KEY: shard.digest.encode(), **self._identity}

    def _model(self, weights: ILWeights) -> nn.Module:
        if weights.file not in self._models:
            self._models = {weights.file: place(self._metadata.load(self._workspace, weights), self._device)}
        return self._models[weights.file]


def _device(settings: ScorerSettings) -> torch.device:
    """With several GPUs and no number given, the processes of this machine take turns."""
    device = choose_device(settings.device)
    if device.type == "cuda" and ":" not in settings.device:
        turn = launched("LOCAL_RANK", 0) * settings.processes + settings.number
        return torch.device("cuda", turn % torch.cuda.device_count())
    return device
