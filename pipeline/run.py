"""The folder of a training run: what was asked, what was measured, and where to continue."""

import io
import json
from collections.abc import Mapping
from typing import Any

import torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.workspace import Workspace
from rhostream.schema import METRICS


class Run:
    """`runs/<name>`: run.json, metrics.jsonl, checkpoints/, ledger/, model.safetensors.

    Args:
        facts: what determines the run's result, as JSON values: its settings, the corpus, the IL table.
        overwrite: start afresh, whatever is there.

    Raises:
        WorkspaceError: a run of this name was made from other facts.
    """

    def __init__(self, workspace: Workspace, name: str, facts: Mapping[str, Any], *, overwrite: bool = False) -> None:
        if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("."):
            raise ConfigError(f"run name {name!r}: use letters, digits, '.', '_' and '-'")
        self.workspace, self.name = workspace, name
        self.folder = f"runs/{name}"
        if overwrite:
            workspace.remove(self.folder)
        card = f"{self.folder}/run.json"
        if workspace.exists(card):
            _compare(workspace.read_json(card), json.loads(json.dumps(facts)), name)
        else:
            workspace.remove(self.folder)
            workspace.write_json(card, facts)
        self.metrics = self._read_metrics()

    @property
    def finished(self) -> bool:
        return self.workspace.exists(self._model)

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
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.workspace.write_bytes(self._checkpoint, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None; metrics of later steps are taken back."""
        if not self.workspace.exists(self._checkpoint):
            self.metrics = []
            return None
        content = io.BytesIO(self.workspace.read_bytes(self._checkpoint))
        state: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
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


def _compare(found: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    old, new = _flat(found), _flat(wanted)
    differing = [f"{key} {old.get(key)!r} then, {new.get(key)!r} now" for key in sorted(old.keys() | new.keys())
                 if old.get(key) != new.get(key)]  # fmt: skip
    if differing:
        raise WorkspaceError(
            f"run {name!r} exists and was made with other settings ({'; '.join(differing[:3])}): continue it with the "
            "old ones, choose another --name, or start afresh with --overwrite"
        )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
