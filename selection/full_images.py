"""The fields of the chosen candidates: what was not read to be scored here is read for these alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.loaders.decode import InputReader, PendingInputs
from rhostream.loaders.stream import SuperBatch, Tolerance
from rhostream.selection.scoring import Meter


@dataclass(frozen=True, kw_only=True)
class PendingFields:
    """Fields of chosen candidates that are being read.

    Attributes:
        positions: int64 (m,), of the candidates: in the super-batch, or in the `Part.whole` of one that is shared out.
        rows: int64 (m,), of the part that was read here; -1 for what another rank has read.
        reading: by field, the images and which of the m they are.
    """

    positions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    reading: dict[str, tuple[PendingInputs, npt.NDArray[np.int64]]]


def _read_field(super_batch: SuperBatch) -> str:
    """The field whose stored bytes are read; of pairs the texts are known with the candidates."""
    return "image" if "image" in super_batch.specs else next(iter(super_batch.specs))


class FullImageReading:
    """Begins to read the images of what was chosen, and hands out those that could be read."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._reader: InputReader | None = None  # held from step to step
        self._tolerance: tuple[int, Tolerance] | None = None  # with its epoch

    def begin(self, super_batch: SuperBatch, positions: npt.NDArray[np.int64]) -> PendingFields:
        """Begin to read what is to be trained on and is not there.

        Args:
            super_batch: what this rank has read.
            positions: int64 (m,), see `PendingFields`.
        """
        part, every = super_batch.part, np.arange(len(positions))
        rows = positions
        wanted = {} if super_batch.full is None else {"image": (super_batch.full, every)}
        if part is not None:
            row_of = np.full(len(part.whole), -1, np.int64)
            row_of[part.positions] = np.arange(len(part.positions))
            rows = row_of[positions]
            missing = np.flatnonzero(rows < 0)
            if super_batch.full is None:
                field = _read_field(super_batch)
                wanted = {field: (part.images[field], missing)}
            else:
                wanted = {"image": (part.images["image"], every), "thumbnail": (part.images["thumbnail"], missing)}
        reading = {}
        for name, (images, which) in wanted.items():
            if len(which):
                self._reader = images.reader()
                at = rows if images is super_batch.full else positions
                reading[name] = images.submit(at[which]), which
        return PendingFields(positions=positions, rows=rows, reading=reading)

    def of(self, super_batch: SuperBatch, pending: PendingFields) -> tuple[dict[str, Tensor], npt.NDArray[np.bool_]]:
        """uint8 fields of the chosen that could be read, and which of the chosen these are: bool (m,).

        "thumbnail" is there where other pixels than the images were scored.

        Args:
            super_batch: what this rank has read, on the model's device.
            pending: what `begin` returned.

        Raises:
            ShardError: more full images in an epoch cannot be read than are tolerated.
        """
        readable = np.ones(len(pending.positions), bool)
        name = _read_field(super_batch)
        device, stored = super_batch.labels.device, super_batch.fields[name]
        here = torch.from_numpy(pending.rows.clip(min=0)).to(device)
        # A rank that has read none of its part's candidates has read those of others.
        scored = stored[here] if len(stored) else None
        fields = {name: scored} if super_batch.full is None else {"image": None, "thumbnail": scored}
        with self._meter.charge("load"):
            for name, (images, which) in pending.reading.items():
                pixels, failures = images.result()
                read = torch.from_numpy(pixels).to(device)
                for position, cause in failures:
                    if readable[which[position]]:
                        self._tolerate(super_batch, int(pending.positions[which[position]]), cause)
                        readable[which[position]] = False
                field = fields[name]
                if field is None or len(which) == len(readable):
                    fields[name] = read
                    continue
                if field.shape[1:] != read.shape[1:]:  # of texts, each padded to the longest that was read with it
                    field, read = super_batch.specs[name].joined([field, read]).split([len(field), len(read)])
                field[torch.from_numpy(which).to(device)] = read
                fields[name] = field
        found = {name: field for name, field in fields.items() if field is not None}
        # The captions of pairs: every rank knows those of all.
        known = super_batch if super_batch.part is None else super_batch.part.whole
        for other in super_batch.specs.keys() - {_read_field(super_batch)}:
            found[other] = known.fields[other][torch.from_numpy(pending.positions)].to(device)
        if not readable.all():
            at = torch.from_numpy(readable).to(device)
            found = {name: field[at] for name, field in found.items()}
        return found, readable

    def _tolerate(self, super_batch: SuperBatch, candidate: int, cause: str) -> None:
        """Count one that cannot be read; as many an epoch are allowed as of the candidates."""
        part = super_batch.part
        images, of = (super_batch.full, super_batch) if part is None else (next(iter(part.images.values())), part.whole)
        assert images is not None
        if self._tolerance is None or self._tolerance[0] != super_batch.epoch:
            self._tolerance = super_batch.epoch, Tolerance(images.read_options.max_unreadable)
        self._tolerance[1].count(of.keys[candidate], of.shards[candidate], cause)
