"""Checkpoints: what a training needs to go on, as tensors and plain values, checked when written and when read."""

import io
from collections.abc import Mapping
from typing import Any, Final

import torch

from rhostream.errors import WorkspaceError
from rhostream.loaders.storage import UnreadableError, Workspace, decode_torch

_PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes))


def save_checkpoint(workspace: Workspace, name: str, state: Mapping[str, Any]) -> None:
    """Replace the file as a whole.

    Raises:
        TypeError: the state holds what `load_checkpoint` would refuse, such as a NumPy number.
    """
    _require_plain(dict(state), "state")
    # Through memory: on a full disk torch's own writer to a file ends in an error of its own kind.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    workspace.write_bytes(name, buffer.getvalue())


def load_checkpoint(workspace: Workspace, name: str, remedy: str) -> dict[str, Any] | None:
    """The state, its tensors on the CPU; None where there is no such file.

    Args:
        remedy: what to do about a damaged one, for the message.

    Raises:
        WorkspaceError: the file is damaged. A single flipped bit is noticed, by the check sums of the archive.
    """
    if not workspace.exists(name):
        return None
    try:
        state: dict[str, Any] = decode_torch(workspace.read_bytes(name))
        if not isinstance(state, dict):
            raise UnreadableError("holds no state")
    except UnreadableError as error:
        raise WorkspaceError(
            f"{workspace.path(name)} is not a readable checkpoint: it was damaged after it was written; {remedy}"
        ) from error
    return state


def _require_plain(value: Any, where: str) -> None:
    if type(value) in _PLAIN or isinstance(value, torch.Tensor):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            _require_plain(item, f"{where}[{number}]")
    else:
        raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__name__}, which no checkpoint may hold")
