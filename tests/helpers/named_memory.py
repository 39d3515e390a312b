"""What of named shared memory a process has: seen from outside, and of nobody else."""

import contextlib
from pathlib import Path

_NAMED = "/dev/shm/"


def named_shared_memory(pid: int) -> set[str]:
    """The paths under /dev/shm, semaphores among them, that this process has mapped or open at this moment.

    What has been unlinked since is there with the kernel's " (deleted)".
    """
    held = set()
    # A process that has ended holds nothing.
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            _, at, rest = line.partition(_NAMED)
            held.add(at + rest)
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held.add(str(descriptor.readlink()))
    return {path for path in held if path.startswith(_NAMED)}


def family(pid: int) -> list[int]:
    """This process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found
