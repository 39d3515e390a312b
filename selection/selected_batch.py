"""What a selector hands to a trainer: a batch, and the candidates it was chosen from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rhostream.loaders.decode import InputSpec, spec_of
from rhostream.loaders.stream import Batch, CandidateTable, SuperBatch, labels_of, raw_texts


@dataclass(frozen=True, kw_only=True)
class SelectedBatch(Batch):
    """b_t, what one gradient step is taken on, n_b samples on the model's device; of several ranks each has its share.

    While samples wait in a selector to fill a batch, their fields are as they were decoded.

    Attributes:
        fields: "image" is float32 (n_b, C, H, W), normalized; "thumbnail" is there, too, where other pixels than these
            were scored. Of texts "input_ids" and "attention_mask", int64 (n_b, longest).
        labels: as of `Batch`.
        weights: float32 (n_b,), of each sample's loss; ones unless the selector draws by importance, or the ranks'
            shares are uneven.
        il: float32 (n_b,), nats, or None.
        correct: bool (n_b,), did the model predict the label when they were scored? None where not known of all.
        candidates: the same n_b as the index has them.
        specs: of the fields.
        epoch: of the super-batch that completed it.
        state: for the stream's `load_state_dict`: continues after that super-batch.
        super_batch: that super-batch, of all ranks; None for what was waiting in a selector whose state was loaded.
        considered: the super-batches that were chosen from since the last batch: one, unless batches are filled from
            several (a score floor, say) or one gives several (`SelectionConfig.share`). All but the last have given
            their pixels back, as have those that ranks share out.
        unreadable: how many of these were chosen whose full images could not be read.
        places: int64 (n_b,), where they stand in the batch of all ranks; None where this process has all of it.
    """

    weights: Tensor
    il: Tensor | None
    correct: Tensor | None = field(repr=False)
    candidates: CandidateTable = field(repr=False)
    specs: dict[str, InputSpec] = field(repr=False)
    epoch: int
    state: dict[str, Any] = field(repr=False)
    super_batch: SuperBatch | None = field(repr=False, default=None)
    considered: tuple[SuperBatch, ...] = field(repr=False, default=())
    unreadable: int = 0
    places: npt.NDArray[np.int64] | None = field(repr=False, default=None)

    _columns: ClassVar[tuple[str, ...]] = ("labels", "weights", "il", "correct")

    @property
    def keys(self) -> Sequence[str]:
        return self.candidates.keys

    @property
    def extra(self) -> dict[str, npt.NDArray[Any]]:
        """The stream's further columns, (n_b,) each."""
        return self.candidates.extra

    @property
    def thumbnails(self) -> Tensor:
        """float32 (n_b, C, h, w), normalized: the pixels that were scored; `images` itself where those were."""
        return self.fields.get("thumbnail", self.images)

    @property
    def texts(self) -> Sequence[str]:
        """The raw texts; ConfigError where the corpus has none."""
        return raw_texts(self.candidates)

    @property
    def scored_fields(self) -> dict[str, Tensor]:
        """Those that were scored, normalized: the thumbnails under the name "image", or `fields` as they are."""
        if "image" not in self.fields:
            return self.fields
        others = {name: field for name, field in self.fields.items() if name != "thumbnail"}
        return {**others, "image": self.thumbnails}

    @property
    def candidate_accuracy(self) -> float | None:
        """Share of the scored candidates whose label the model predicted, where that is known.

        That of the selected is much lower, as they are selected for being hard: it says little of the training.
        """
        known = [super_batch.correct for super_batch in self.considered if super_batch.correct is not None]
        return float(torch.cat(known).float().mean()) if known else None

    def take(self, positions: npt.NDArray[np.int64]) -> Self:
        """The samples at these positions, in this order."""
        at = torch.from_numpy(positions).to(self.labels.device)
        return self._each_tensor(lambda tensor: tensor[at], candidates=self.candidates.take(positions))

    def split(self, size: int) -> tuple[Self, Self]:
        """The first samples, so many, and the rest."""
        return self._part(slice(None, size)), self._part(slice(size, None))

    def _part(self, part: slice) -> Self:
        return self._each_tensor(lambda tensor: tensor[part], candidates=self.candidates.take(part))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """One part after the other; of what not all know, nothing. All else is that of the last part."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: [getattr(part, name) for part in parts] for name in cls._columns}
        known: dict[str, Any] = {
            name: None if any(tensor is None for tensor in tensors) else torch.cat(tensors)
            for name, tensors in columns.items()
        }
        return replace(
            parts[-1],
            fields={name: spec.joined([part.fields[name] for part in parts]) for name, spec in parts[0].specs.items()},
            candidates=CandidateTable.concat([part.candidates for part in parts]),
            **known,
        )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, on the CPU; copies, as a slice would be saved with all that it is cut from."""
        copied = self._each_tensor(lambda tensor: tensor.cpu().clone())
        return {
            "fields": copied.fields,
            **{name: getattr(copied, name) for name in self._columns},
            "candidates": {
                "keys": list(self.keys),
                "shards": list(self.candidates.shards),
                "rows": self.candidates.rows.tolist(),
                "extra": {name: column.tolist() for name, column in self.extra.items()},
                "texts": None if self.candidates.texts is None else list(self.candidates.texts),
            },
            "specs": {name: spec.to_dict() for name, spec in self.specs.items()},
            "epoch": self.epoch,
            "state": self.state,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any], device: torch.device) -> Self:
        columns: dict[str, Any] = {name: state[name] for name in cls._columns}
        table = state["candidates"]
        batch = cls(
            fields=state["fields"],
            **columns,
            candidates=CandidateTable(
                keys=table["keys"],
                shards=table["shards"],
                rows=np.asarray(table["rows"], np.int32),
                labels=labels_of(columns["labels"]),
                il=None if columns["il"] is None else columns["il"].numpy(),
                extra={name: np.asarray(column) for name, column in table["extra"].items()},
                texts=table["texts"],
            ),
            specs={name: spec_of(spec) for name, spec in state["specs"].items()},
            epoch=state["epoch"],
            state=state["state"],
        )
        return batch.to(device)
