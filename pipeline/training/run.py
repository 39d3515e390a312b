"""The folder of a training run: what was asked, what was measured, and where to continue."""

import json
from collections.abc import Mapping
from typing import Any, Final

import torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.jobs import remove_contents, require_same
from rhostream.pipeline.models import load_checkpoint, save_checkpoint
from rhostream.schema import METRICS

RUN_FORMAT: Final = 2  # of run.json


class Run:
    """`runs/<name>`: run.json, metrics.jsonl, checkpoints/, ledger/, model.safetensors.

    Args:
        facts: what determines the run's result, as JSON values: its settings, the corpus, the IL table.
        overwrite: `begin` starts afresh, whatever is there.

    Raises:
        WorkspaceError: a run of this name was made from other facts.
    """

    def __init__(self, workspace: Workspace, name: str, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("."):
            raise ConfigError(f"run name {name!r}: use letters, digits, '.', '_' and '-'")
        self.workspace, self.name = workspace, name
        self.folder = f"runs/{name}"
        self._corpus, self._facts = f"{self.folder}/run.json", facts
        # Without a checkpoint nothing has been done that could be lost.
        started = workspace.exists(self._corpus) and (
            workspace.exists(self._checkpoint) or workspace.exists(self._model)
        )
        self._afresh = overwrite or not started
        if not self._afresh:
            found = workspace.read_json(self._corpus)
            if found.get("format_version") != RUN_FORMAT:
                raise WorkspaceError(
                    f"run {name!r} is of a former release (format {found.get('format_version')}, this one writes "
                    f"{RUN_FORMAT}), which can be read but not continued: choose another --name, or start afresh with "
                    "--overwrite"
                )
            require_same(
                f"run {name!r} was made",
                found,
                json.loads(json.dumps(facts)),  # tuples as JSON has them
                "continue it with the same ones, choose another --name, or start afresh with --overwrite",
            )
        self.metrics = [] if self._afresh else self._read_metrics()

    def begin(self) -> None:
        """Make the folder anew, or keep it where the run goes on.

        Call it under the lock on the folder, and when nothing is left that a user can get wrong.
        """
        if self._afresh:
            self.workspace.remove(self._corpus)  # first: what is left of a folder without it is never taken up
            remove_contents(self.workspace, self.folder)
            self.workspace.write_json(self._corpus, self._facts)

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

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; tensors, numbers and texts only."""
        save_checkpoint(self.workspace, self._checkpoint, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; metrics of later steps are taken back."""
        state = load_checkpoint(self.workspace, self._checkpoint, "start the run afresh with --overwrite")
        if state is None:
            self.metrics = []
            return None
        self.metrics = [line for line in self.metrics if line["step"] <= state["step"]]
        self._write_metrics()
        return state

    def save_model(self, model: torch.nn.Module) -> None:
        """Write the weights, which marks the run as finished."""
        from safetensors.torch import save

        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        self.workspace.write_bytes(self._model, save(weights))

    def _read_metrics(self) -> list[dict[str, Any]]:
        name = f"{self.folder}/metrics.jsonl"
        if not self.workspace.exists(name):
            return []
        return [json.loads(line) for line in self.workspace.read_bytes(name).decode().splitlines()]

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self.metrics)
        self.workspace.write_bytes(f"{self.folder}/metrics.jsonl", lines.encode())
