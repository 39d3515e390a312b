"""What a run was trained on, step by step, read back from its ledger."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import Workspace
from rhostream.schema import LEDGER

_COLUMNS: Final = ["key", "shard", "row", "epoch", "trained"]


@dataclass(frozen=True, kw_only=True)
class LedgerRows:
    """The n samples of one step's batch, in the order of the ledger, one rank after the other.

    Attributes:
        keys, shards: texts.
        rows: int32, positions in the shards.
        epoch: of the candidates that completed it.
    """

    step: int
    keys: Sequence[str]
    shards: Sequence[str]
    rows: npt.NDArray[np.int32]
    epoch: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A file of one rank's ledger, and the steps whose batches it tells of."""

    name: str
    first: int
    last: int


class LedgerReader:
    """The batches of a run. Memory is that of a row group for each rank.

    Attributes:
        steps: how many there are.

    Raises:
        WorkspaceError: there is no such ledger, something of it is missing, or samples were drawn with weights.
    """

    def __init__(self, workspace: Workspace, run: str) -> None:
        self._workspace, self._run = workspace, run
        self._folder = f"runs/{run}/ledger"
        self._parts = self._found()
        self.steps = self._complete()

    @property
    def ranks(self) -> int:
        """Of the run that wrote it."""
        return len(self._parts)

    def batches(self, first: int) -> Iterator[LedgerRows]:
        """The batch of every step from this one on; what lies before it is not read.

        Raises:
            WorkspaceError: a step is missing.
        """
        ranks = [self._of_rank(parts, first) for parts in self._parts]
        for step in range(first, self.steps + 1):
            found = [next(rank) for rank in ranks]
            if any(rows.step != step for rows in found):
                raise self._lacks(step, step)
            yield LedgerRows(
                step=step,
                keys=[key for rows in found for key in rows.keys],
                shards=[shard for rows in found for shard in rows.shards],
                rows=np.concatenate([rows.rows for rows in found]),
                epoch=found[-1].epoch,
            )

    def _of_rank(self, parts: Sequence[_Part], first: int) -> Iterator[LedgerRows]:
        """The batches of one rank, from a step on.

        One super-batch may give several batches, and one batch come of several super-batches, but none that is
        recorded under a step is trained on before it.
        """
        waiting: dict[int, list[dict[str, Any]]] = {}
        for part in parts:
            if part.last < first:
                continue
            for rows, reached in self._selected(part, first):
                for row in rows:
                    waiting.setdefault(row["trained"], []).append(row)
                for step in sorted(step for step in waiting if step < reached):
                    yield _batch(step, waiting.pop(step))
        for step in sorted(waiting):
            yield _batch(step, waiting[step])

    def _selected(self, part: _Part, first: int) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The selected rows of a part from a step on, row group by row group, and the last step recorded so far."""
        import pyarrow.compute as pc

        with self._workspace.opened_table(part.name, LEDGER) as file:
            for group in range(file.num_row_groups):
                bounds, steps = _bounds(file, group, "trained"), _bounds(file, group, "step")
                if bounds is not None and steps is not None and bounds[1] >= first:
                    table = file.read_row_group(group, columns=_COLUMNS)
                    yield table.filter(pc.greater_equal(table["trained"], first)).to_pylist(), steps[1]

    def _found(self) -> list[list[_Part]]:
        """The parts of each rank, in the order of their steps; those without a selected row are left out."""
        ranks: dict[int, list[_Part]] = {}
        for name in self._workspace.names(self._folder, ".parquet"):
            path = f"{self._folder}/{name}"
            with self._workspace.opened_table(path, LEDGER) as file:
                if "trained" not in file.schema_arrow.names:
                    raise WorkspaceError(
                        f"run {self._run!r} was recorded by a former release, whose ledger does not tell in which step "
                        "a sample was trained on: train it again to replay it"
                    )
                bounds = _all_bounds(file, "trained")
                if any(found != (1, 1) for found in _all_bounds(file, "weight")):
                    raise WorkspaceError(
                        f"run {self._run!r} drew samples with weights (importance sampling): its ledger does not tell "
                        "how often a sample was drawn, so it cannot be replayed"
                    )
            rank = int(name.removesuffix(".parquet").partition("-rank")[2])
            parts = ranks.setdefault(rank, [])
            if bounds:
                parts.append(_Part(name=path, first=min(b[0] for b in bounds), last=max(b[1] for b in bounds)))
        if not any(ranks.values()):
            runs = [run for run in self._workspace.names("runs") if self._workspace.names(f"runs/{run}/ledger")]
            known = f"runs with one are {', '.join(runs)}" if runs else "no run has one"
            raise WorkspaceError(f"run {self._run!r} has no ledger to replay; {known}")
        missing = next((rank for rank in range(len(ranks)) if rank not in ranks), None)
        if missing is not None:
            raise WorkspaceError(f"the ledger of run {self._run!r} is incomplete: nothing of rank {missing} is there")
        return [ranks[rank] for rank in sorted(ranks)]

    def _complete(self) -> int:
        """The last step that is there on every rank, where none before it is missing."""
        for parts in self._parts:
            before = 0
            for part in parts:
                if part.first > before + 1:
                    raise self._lacks(before + 1, part.first - 1)
                before = part.last
        return min(parts[-1].last if parts else 0 for parts in self._parts)

    def _lacks(self, first: int, last: int) -> WorkspaceError:
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        return WorkspaceError(
            f"the ledger of run {self._run!r} lacks {steps}: it is incomplete, and cannot be replayed"
        )


def _batch(step: int, rows: Sequence[dict[str, Any]]) -> LedgerRows:
    return LedgerRows(
        step=step,
        keys=[row["key"] for row in rows],
        shards=[row["shard"] for row in rows],
        rows=np.array([row["row"] for row in rows], np.int32),
        epoch=rows[-1]["epoch"],
    )


def _all_bounds(file: Any, name: str) -> list[tuple[Any, Any]]:
    """Of each row group that has a value."""
    return [found for group in range(file.num_row_groups) if (found := _bounds(file, group, name)) is not None]


def _bounds(file: Any, group: int, name: str) -> tuple[Any, Any] | None:
    """Lowest and highest value of a row group's column, by its statistics; None without any."""
    column = file.schema_arrow.get_field_index(name)
    statistics = file.metadata.row_group(group).column(column).statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else None
