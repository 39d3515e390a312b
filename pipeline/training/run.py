"""The folder of a training run: what was asked, what was measured, and where to continue."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.storage import Workspace, encode_safetensors
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.jobs import (
    read_run_facts,
    read_run_metrics,
    remove_contents,
    run_facts_file,
    run_metrics_file,
    write_run_facts,
)
from rhostream.pipeline.models import load_checkpoint, save_checkpoint
from rhostream.schema import METRICS

RUN_FORMAT: Final = 3  # of run.json
_PARTS: Final = "parts-"  # and the step: a folder of what processes share out
_AFRESH: Final = "start the run afresh with --overwrite"


class Run:
    """`runs/<name>`: run.json, metrics.jsonl, checkpoints/, ledger/, model.safetensors.

    Args:
        overwrite: `begin` starts afresh, whatever is there.
        writes: False for all processes of a job but one, which change nothing in the folder.

    Attributes:
        facts: what determines the result of a run that has begun, as its run.json has it; None for one that begins.

    Raises:
        ConfigError: a name that is none.
        WorkspaceError: a run of this name was made by a former release.
    """

    def __init__(self, workspace: Workspace, name: str, *, overwrite: bool = False, writes: bool = True) -> None:
        if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("."):
            raise ConfigError(f"run name {name!r}: use letters, digits, '.', '_' and '-'")
        self.workspace, self.name, self._writes = workspace, name, writes
        self.folder = f"runs/{name}"
        self._facts_file = run_facts_file(name)
        # Without a checkpoint nothing has been done that could be lost.
        started = workspace.exists(self._facts_file) and (
            workspace.exists(self._checkpoint) or workspace.exists(self._model)
        )
        self._afresh = overwrite or not started
        self.facts: dict[str, Any] | None = None if self._afresh else read_run_facts(workspace, name)
        if self.facts is not None and self.facts.get("format_version") != RUN_FORMAT:
            raise WorkspaceError(
                f"run {name!r} is of a former release (format {self.facts.get('format_version')}, this one writes "
                f"{RUN_FORMAT}), which can be read but not continued: choose another --name, or start afresh with "
                "--overwrite"
            )
        self._parts = ""  # the folder that the checkpoint names
        self.metrics = [] if self._afresh else read_run_metrics(workspace, name)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Make the folder anew, or keep it where the run goes on; with a larger budget it is no longer finished.

        Call it under the lock on the folder, and when nothing is left that a user can get wrong.

        Args:
            facts: what determines the result: settings, budget, corpus, IL table.
        """
        if not self._writes:
            return
        if self._afresh:
            self.workspace.remove(self._facts_file)  # first: what is left of a folder without it is never taken up
            remove_contents(self.workspace, self.folder)
        if self.facts != facts:
            self.workspace.remove(self._model)
            write_run_facts(self.workspace, self.name, dict(facts))

    @property
    def finished(self) -> bool:
        return not self._afresh and self.workspace.exists(self._model)

    @property
    def _model(self) -> str:
        return f"{self.folder}/model.safetensors"

    @property
    def _checkpoint(self) -> str:
        return f"{self.folder}/checkpoints/last.pt"

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append a line of `rhostream.schema.METRICS`; the file is replaced as a whole, never half-written."""
        self.metrics.append({name: line.get(name) for name in METRICS.names} | {"run": self.name})
        self._write_metrics()

    def save_checkpoint(self, state: Mapping[str, Any], exchange: Exchange) -> None:
        """Replace the checkpoint; tensors, numbers and texts only.

        All processes call it: of tensors that they share out, each writes its part, in a folder that the checkpoint
        names. Killed anywhere, the former checkpoint is whole, or this one.
        """
        parts: Mapping[str, Any] = {}
        if exchange.size > 1:
            from rhostream.pipeline.models import save_parts, take_parts  # they import much of torch.distributed

            state, parts = take_parts(state)
        folder, digest = "", ""
        if parts:
            self._remove_parts(but=self._parts)  # of a process that was killed before it named them
            exchange.wait()
            folder = f"{_PARTS}{state['step']:09d}"
            digest = save_parts(self.workspace, f"{self.folder}/checkpoints/{folder}", parts, exchange)
        self._parts = folder
        if self._writes:
            place = {"parts": {"folder": folder, "sha256": digest}} if parts else {}
            save_checkpoint(self.workspace, self._checkpoint, {**state, **place, "run": self.name})
            self._remove_parts(but=folder)

    def load_checkpoint(self, kept: Callable[[int], bool]) -> dict[str, Any] | None:
        """The last checkpoint, or None; metrics of later steps are taken back.

        Args:
            kept: is a step one of those to evaluate at? Where a smaller budget ended between two, its line goes.
        """
        state = load_checkpoint(self.workspace, self._checkpoint, _AFRESH)
        if state is None:
            self.metrics = []
            return None
        if (run := state.pop("run", self.name)) != self.name:
            raise WorkspaceError(f"{self.workspace.path(self._checkpoint)} is of the run {run!r}: restore its own")
        self.metrics = [line for line in self.metrics if line["step"] <= state["step"] and kept(line["step"])]
        self._write_metrics()
        self._parts = state.get("parts", {}).get("folder", "")
        return state

    def with_parts(
        self, state: dict[str, Any], own: Callable[[str], torch.Tensor | None], exchange: Exchange
    ) -> dict[str, Any]:
        """A checkpoint that was loaded, with the tensors that were shared out where it was written.

        Args:
            own: a tensor of this training that is shared out as the one of such a name is to be; None for it whole.
        """
        if (place := state.pop("parts", None)) is None:
            return state
        from rhostream.pipeline.models import load_parts, with_parts

        folder = f"{self.folder}/checkpoints/{place['folder']}"
        parts = load_parts(self.workspace, folder, place["sha256"], own=own, exchange=exchange, remedy=_AFRESH)
        found: dict[str, Any] = with_parts(state, parts)
        return found

    def _remove_parts(self, *, but: str) -> None:
        if self._writes:
            for name in self.workspace.names(f"{self.folder}/checkpoints"):
                if name.startswith(_PARTS) and name != but:
                    self.workspace.remove(f"{self.folder}/checkpoints/{name}")

    def save_model(self, state: Mapping[str, torch.Tensor]) -> None:
        """Write the weights, which marks the run as finished."""
        if self._writes:
            weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
            self.workspace.write_bytes(self._model, encode_safetensors(weights))

    def _write_metrics(self) -> None:
        if self._writes:
            self.workspace.write_lines(run_metrics_file(self.name), self.metrics)
