"""Folders that several tests begin with: made once a session, by whichever xdist worker comes first, then copied."""

import fcntl
import functools
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

from rhostream.loaders.storage.workspace import Workspace

P = ParamSpec("P")

#: Where the originals of this session lie; conftest.py sets it. In processes that a test starts there are none.
originals: Path | None = None


def made_once(make: Callable[Concatenate[Path, P], Workspace]) -> Callable[Concatenate[Path, P], Workspace]:
    """Have `make(folder, …)`, which writes a workspace, write it once for all tests that give it the same arguments."""

    @functools.wraps(make)
    def copy(folder: Path, /, *args: P.args, **kwargs: P.kwargs) -> Workspace:
        if originals is None or not isinstance(folder, Path):  # or a remote one
            return make(folder, *args, **kwargs)
        made_of = (make.__module__, make.__name__, args, sorted(kwargs.items()))
        original = originals / hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
        with original.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not original.exists():
                unfinished = original.with_suffix(".unfinished")
                make(unfinished, *args, **kwargs)
                unfinished.rename(original)
        shutil.copytree(original, folder, dirs_exist_ok=True)
        return Workspace(folder)

    return copy
