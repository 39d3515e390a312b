"""The ledger: one row per candidate of a run, with what became of it."""

import atexit
import logging
import os
import time
import weakref
from collections.abc import Container
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from rhostream.errors import RhostreamError, WorkspaceError
from rhostream.loaders.index import concat_labels
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.loaders.stream import CandidateTable, SuperBatch, distributed
from rhostream.schema import LEDGER, of_task
from rhostream.selection.ledger.history import forget_history, history_name, update_history

_LOG = logging.getLogger(__name__)

#: A part of so many rows is written without waiting for `flush`: what bounds the memory.
PART_ROWS: Final = 1_000_000
#: Of the Parquet: the unit that a query reads, or skips by the steps and runs in it.
ROW_GROUP_ROWS: Final = 1 << 17


#: In the metadata of a part that `save` wrote: more rows of the same part are to follow.
_UNFINISHED: Final = b"rhostream.unfinished"

_WHATEVER_THE_TASK: Final = pa.schema([field for field in LEDGER if field.name != "label"])

#: Ledgers of this process, to be closed when it ends.
_open: "weakref.WeakSet[Ledger]" = weakref.WeakSet()
#: Of each workspace and run the mark of the ledger that was opened last in this process.
_in_use: dict[tuple[str, str], object] = {}
#: Ledgers of former releases have parts of several ranks, each of its own candidates.
_WRITER: Final = 0


class Ledger:
    """Collects the rows of `runs/<run>/ledger` and writes them in parts, in the order of the steps.

    Of a job's processes the first one writes the rows of all; give the ledger to the selector in every process all the
    same. Parts are named by their first step, and end where `flush` is called or `PART_ROWS` are reached. A run that
    goes back to a checkpoint at which `save` was called writes the same parts, byte for byte, as one that never did.
    `runs/<run>/history` holds the same rolled up to one row a sample, as of the last `flush` or `close`.

    Nothing of it needs to be called by hand: a selector saves its ledger with its state and at the end of an epoch, and
    what is left is written when nobody holds the ledger any longer, and when the process ends. A `with` block around
    the training closes it there.

    Args:
        workspace: where `runs/` lies.
        run: name of the run.
        overwrite: start afresh where the run has a ledger; else that is an error, unless the run goes on from a state.
    """

    def __init__(self, workspace: Workspace | str, run: str, *, overwrite: bool = False) -> None:
        self._workspace = Workspace(workspace)
        self._run = run
        self._begun, self._overwrite = False, overwrite
        self._written = 0.0
        self._place, self._mark = (self._workspace.root, run), object()
        _in_use[self._place] = self._mark
        self._process = os.getpid()
        _open.add(self)
        self._tables: list[pa.Table] = []
        self._rows = 0  # in these
        self._closed = True  # nothing was recorded since the history was brought up to date
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
        trained: npt.NDArray[np.int64],
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
            step: the next one.
            selected: int64 (m,), positions in the super-batch.
            trained: int64 (m,), the steps that these are trained in: later ones for what waits to fill a batch, and
                none where the run ends before.
            selection: what was chosen by.
            weights: float32 (m,), of the selected; those of a candidate that is chosen twice add up.
            loss, score: float32 (n,), or None where not computed.
            correct: bool (n,), whether the model in training already predicts the label.
            unscored: why these candidates were not scored, or not trained on.
            unreadable: int64 (m,), positions that would have been selected, had their full images been readable.
        """
        if not self._writes:
            return
        n, passed = len(batch), batch.passed_over
        total = n + len(passed)
        chosen = np.zeros(total, bool)
        chosen[selected] = True
        weight = np.zeros(total, np.float32)
        np.add.at(weight, selected, weights.cpu().numpy())
        steps = np.zeros(total, np.int64)
        steps[selected] = trained
        reasons = [unscored] * n
        for position in unreadable if unreadable is not None else ():
            reasons[position] = "unreadable"

        def column(values: object, kind: pa.DataType) -> pa.Array:
            """Values of the scored candidates, null for those passed over."""
            known = pa.nulls(n, kind) if values is None else pa.array(values, kind)
            return pa.concat_arrays([known, pa.nulls(len(passed), kind)]) if len(passed) else known

        columns = {
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
            "weight": pa.array(weight, pa.float32(), mask=~chosen),
            "trained": pa.array(steps, pa.int64(), mask=~chosen),
            "reason": [*reasons, *(() if passed.reasons is None else passed.reasons)],
        }
        self._add(columns, total, step=step, epoch=batch.epoch, selection=selection)

    def record_batch(self, step: int, batch: CandidateTable, *, epoch: int, selection: str) -> None:
        """Add the samples of one step that were trained on without a choice among candidates."""
        if not self._writes:
            return
        total = len(batch)
        columns = {
            "key": batch.keys,
            "shard": batch.shards,
            "row": batch.rows,
            ("labels" if batch.multi_label else "label"): batch.labels,
            "loss": pa.nulls(total, pa.float32()),
            "il": _losses(total, batch.il),
            "score": pa.nulls(total, pa.float32()),
            "correct": pa.nulls(total, pa.bool_()),
            "selected": np.ones(total, bool),
            "weight": np.ones(total, np.float32),
            "trained": np.full(total, step, np.int64),
            "reason": ["not_needed"] * total,
        }
        self._add(columns, total, step=step, epoch=epoch, selection=selection)

    @property
    def _writes(self) -> bool:
        return distributed().rank == _WRITER

    def _begin(self) -> None:
        """Before the first row of a run that goes on from no state."""
        parts = self._workspace.names(self.folder, ".parquet")
        if parts and not self._overwrite:
            raise WorkspaceError(
                f"run {self._run!r} has a ledger already, {len(parts)} files in {self._workspace.path(self.folder)}: "
                "load the state of its selector to go on with it, or give Ledger another name, or overwrite=True"
            )
        self.go_on_after(0)

    def _add(self, columns: dict[str, Any], total: int, *, step: int, epoch: int, selection: str) -> None:
        if not self._begun:
            self._begin()
        if self._rows >= PART_ROWS and step != self._last_step:  # parts of one first step would have one name
            self._write_part()
        columns |= {
            "run": pa.repeat(self._run, total),
            "epoch": pa.repeat(pa.scalar(epoch, pa.int32()), total),
            "step": pa.repeat(pa.scalar(step, pa.int64()), total),
            "rank": pa.repeat(pa.scalar(_WRITER, pa.int16()), total),
            "selection": pa.repeat(selection, total),
        }
        self._first_step = self._first_step if self._tables else step
        schema = _schema(columns)
        self._tables.append(pa.table({name: columns[name] for name in schema.names}, schema=schema))
        self._rows, self._last_step, self._closed = self._rows + total, step, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The copy that a forked process has, one of a DataLoader for instance, is not to be written.
        if getattr(self, "_closed", True) or os.getpid() != self._process:
            return
        try:
            self.close()
        except (OSError, RhostreamError) as error:
            _LOG.warning("the ledger of run %r ends before its step %d: %s", self._run, self._last_step, error)

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Write all that was recorded. The part goes on; `go_on_after` takes it up again.

        Args:
            at_most_every: seconds; nothing is written if so many have not passed since the last time.
        """
        if self._tables and time.monotonic() - self._written >= at_most_every:
            self._write(unfinished=True)

    def close(self) -> None:
        """Write all that was recorded, and bring the history up to date; a run that goes on takes the part up again."""
        if self._tables and _in_use.get(self._place) is self._mark:
            self.save()
            update_history(self._workspace, self._run, _WRITER)
        self._closed = True

    def flush(self) -> None:
        """Write all that was recorded, end the part, and bring the history up to date."""
        if not self._writes:
            return
        if self._tables:
            self._write_part()
        update_history(self._workspace, self._run, _WRITER)
        self._closed = True

    def go_on_after(self, step: int) -> None:
        """Forget what was written of later steps, as the run goes back to a checkpoint, and take up the last part.

        That part goes on where it was not finished, or held later steps as well. Nothing is left of other ranks, whose
        candidates a former release wrote into parts of their own.
        """
        if not self._writes:
            return
        ours = f"-rank{_WRITER}.parquet"
        for name in self._workspace.names(self.folder, ".parquet"):
            if not name.endswith(ours):
                self._workspace.remove(f"{self.folder}/{name}")
                self._workspace.remove(
                    history_name(self._run, int(name.removesuffix(".parquet").rpartition("rank")[2]))
                )
        parts = self._workspace.names(self.folder, ours)
        kept = [name for name in parts if _first_step(name) <= step]
        for name in parts[len(kept) :]:
            self._workspace.remove(f"{self.folder}/{name}")
        self._tables, self._rows = [], 0
        self._begun, self._closed = True, False
        if kept:
            name = f"{self.folder}/{kept[-1]}"
            of_runs = self._workspace.check_table(name, _WHATEVER_THE_TASK, "run")
            with self._workspace.reading(name):
                if strange := of_runs - {self._run}:
                    raise UnreadableError(f"is of the run {min(strange)!r}")
            part = self._workspace.read_table(name)
            rows = part.filter(pc.less_equal(part["step"], step)).replace_schema_metadata()
            if _UNFINISHED in (part.schema.metadata or {}) or len(rows) < len(part):
                self._tables, self._rows = [rows.cast(_schema(rows.column_names))], len(rows)
                self._first_step, self._last_step = _first_step(kept[-1]), step
                self.save()
        forget_history(self._workspace, self._run, _WRITER)

    def _write_part(self) -> None:
        self._write()
        self._tables, self._rows = [], 0

    def _write(self, *, unfinished: bool = False) -> None:
        if _in_use.get(self._place) is not self._mark:
            return  # another ledger of this run is in use since: what this one knows is void
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        marked = self._tables[0].replace_schema_metadata({_UNFINISHED: b"1"} if unfinished else None)
        name = f"{self.folder}/{self._first_step:09d}-rank{_WRITER}.parquet"
        self._workspace.write_table(name, marked, row_group_rows=ROW_GROUP_ROWS)
        self._written = time.monotonic()


def _schema(columns: Container[str]) -> pa.Schema:
    return of_task(LEDGER, "multi_label" if "labels" in columns else "classification")


@atexit.register
def _close_all() -> None:
    for ledger in list(_open):
        if not ledger._closed:
            ledger.close()


def _first_step(part: str) -> int:
    return int(part.split("-")[0])


def _numpy(values: Tensor | None) -> Any:
    return None if values is None else values.cpu().numpy()


def _losses(count: int, il: npt.NDArray[np.float32] | None) -> pa.Array:
    """Nulls where they are not known."""
    return pa.nulls(count, pa.float32()) if il is None else pa.array(il, pa.float32(), mask=~np.isfinite(il))
