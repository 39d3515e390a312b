"""The ledger: one row per candidate of a run, with what became of it."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from rhostream.loaders.index import concat_labels
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import SuperBatch
from rhostream.schema import LEDGER, of_task
from rhostream.selection.ledger.history import forget_history, update_history

#: A part of so many rows is written without waiting for `flush`: what bounds the memory.
PART_ROWS: Final = 1_000_000
#: Of the Parquet: the unit that a query reads, or skips by the steps and runs in it.
ROW_GROUP_ROWS: Final = 1 << 17


#: In the metadata of a part that `save` wrote: more rows of the same part are to follow.
_UNFINISHED: Final = b"rhostream.unfinished"


class Ledger:
    """Collects the rows of `runs/<run>/ledger` and writes them in parts, in the order of the steps.

    Parts are named by their first step and rank, and end where `flush` is called or `PART_ROWS` are reached. A run that
    goes back to a checkpoint at which `save` was called writes the same parts, byte for byte, as one that never did.
    `runs/<run>/history` holds the same rolled up to one row a sample, as of the last `flush`.

    Args:
        workspace: where `runs/` lies.
        run: name of the run.
        rank: of this process in a distributed run.
    """

    def __init__(self, workspace: Workspace | str, run: str, rank: int = 0) -> None:
        self._workspace = Workspace(workspace)
        self._run, self._rank = run, rank
        self._tables: list[pa.Table] = []
        self._rows = 0  # in these
        self._first_step = self._last_step = 0

    @property
    def folder(self) -> str:
        return f"runs/{self._run}/ledger"

    def record(
        self,
        step: int,
        batch: SuperBatch,
        selected: npt.NDArray[np.int64],
        *,
        selection: str,
        weights: Tensor,
        loss: Tensor | None,
        score: Tensor | None,
        correct: Tensor | None,
        unscored: str | None = None,
        unreadable: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Add the candidates of one step.

        Args:
            step: the next one; what waits to fill a batch is trained on a little later, or not at all where the run
                ends before.
            selected: int64 (m,), positions in the super-batch.
            selection: what was chosen by.
            weights: float32 (m,), of the selected; those of a candidate that is chosen twice add up.
            loss, score: float32 (n,), or None where not computed.
            correct: bool (n,), whether the model in training already predicts the label.
            unscored: why these candidates were not scored, or not trained on.
            unreadable: int64 (m,), positions that would have been selected, had their full images been readable.
        """
        if self._rows >= PART_ROWS and step != self._last_step:  # parts of one first step would have one name
            self._write_part()
        n, passed = len(batch), batch.passed_over
        total = n + len(passed)
        chosen = np.zeros(total, bool)
        chosen[selected] = True
        weight = np.zeros(total, np.float32)
        np.add.at(weight, selected, weights.cpu().numpy())
        reasons = [unscored] * n
        for position in unreadable if unreadable is not None else ():
            reasons[position] = "unreadable"

        def column(values: object, kind: pa.DataType) -> pa.Array:
            """Values of the scored candidates, null for those passed over."""
            known = pa.nulls(n, kind) if values is None else pa.array(values, kind)
            return pa.concat_arrays([known, pa.nulls(len(passed), kind)])

        columns = {
            "run": pa.repeat(self._run, total),
            "epoch": pa.repeat(pa.scalar(batch.epoch, pa.int32()), total),
            "step": pa.repeat(pa.scalar(step, pa.int64()), total),
            "rank": pa.repeat(pa.scalar(self._rank, pa.int16()), total),
            "key": [*batch.keys, *passed.keys],
            "shard": [*batch.shards, *passed.shards],
            "row": np.concatenate([batch.rows, passed.rows]),
            ("labels" if batch.candidates.multi_label else "label"): concat_labels(
                [batch.candidates.labels, passed.labels]
            ),
            "loss": column(_numpy(loss), pa.float32()),
            "il": pa.concat_arrays([_losses(n, _numpy(batch.il)), _losses(len(passed), passed.il)]),
            "score": column(_numpy(score), pa.float32()),
            "correct": column(_numpy(correct), pa.bool_()),
            "selected": chosen,
            "selection": pa.repeat(selection, total),
            "weight": pa.array(weight, pa.float32(), mask=~chosen),
            "reason": [*reasons, *(() if passed.reasons is None else passed.reasons)],
        }
        self._first_step = self._first_step if self._tables else step
        schema = of_task(LEDGER, "multi_label" if batch.candidates.multi_label else "classification")
        self._tables.append(pa.table({name: columns[name] for name in schema.names}, schema=schema))
        self._rows, self._last_step = self._rows + total, step

    def save(self) -> None:
        """Write all that was recorded. The part goes on; `go_on_after` takes it up again."""
        if self._tables:
            self._write(unfinished=True)

    def flush(self) -> None:
        """Write all that was recorded, end the part, and bring the history up to date."""
        if self._tables:
            self._write_part()
        update_history(self._workspace, self._run, self._rank)

    def go_on_after(self, step: int) -> None:
        """Forget what this rank wrote of later steps, as the run goes back to a checkpoint, and take up its last part.

        That part goes on where it was not finished, or held later steps as well.
        """
        parts = self._workspace.names(self.folder, f"-rank{self._rank}.parquet")
        kept = [name for name in parts if _first_step(name) <= step]
        for name in parts[len(kept) :]:
            self._workspace.remove(f"{self.folder}/{name}")
        self._tables, self._rows = [], 0
        if kept:
            part = self._workspace.read_table(f"{self.folder}/{kept[-1]}")
            rows = part.filter(pc.less_equal(part["step"], step)).replace_schema_metadata()
            if _UNFINISHED in (part.schema.metadata or {}) or len(rows) < len(part):
                self._tables, self._rows = [rows.cast(LEDGER)], len(rows)
                self._first_step, self._last_step = _first_step(kept.pop()), step
                self.save()
        forget_history(self._workspace, self._run, self._rank, kept)

    def _write_part(self) -> None:
        self._write()
        self._tables, self._rows = [], 0

    def _write(self, *, unfinished: bool = False) -> None:
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        marked = self._tables[0].replace_schema_metadata({_UNFINISHED: b"1"} if unfinished else None)
        name = f"{self.folder}/{self._first_step:09d}-rank{self._rank}.parquet"
        self._workspace.write_table(name, marked, row_group_rows=ROW_GROUP_ROWS)


def _first_step(part: str) -> int:
    return int(part.split("-")[0])


def _numpy(values: Tensor | None) -> Any:
    return None if values is None else values.cpu().numpy()


def _losses(count: int, il: npt.NDArray[np.float32] | None) -> pa.Array:
    """Nulls where they are not known."""
    return pa.nulls(count, pa.float32()) if il is None else pa.array(il, pa.float32(), mask=~np.isfinite(il))
