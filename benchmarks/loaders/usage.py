"""What a process and its descendants have used."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """CPU time of this process and of all below it, but for those that have ended without their parent's notice."""
    ticks = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue  # it has ended
            ticks[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in ticks.items() if parent in family} - family:
        family |= more
    return sum(ticks[pid][1] for pid in family if pid in ticks) / _TICKS


def busy_seconds() -> float:
    """What the cores that this process may use have worked, for whomever."""
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in names:
            user, nice, system, _idle, _waiting, *others = map(int, ticks)
            busy += user + nice + system + sum(others[:3])  # interrupts, and what the host has taken
    return busy / _TICKS


def memory_mb(name: str) -> float:
    """Of this process: "VmRSS", or "VmHWM" for the most that it has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)
