"""What keeping the accounts costs, and what escapes them.

    python benchmarks/costs.py --workspace workspaces/synthetic

WORKSPACE holds shards and an IL table, such as `make demo` leaves behind; two short runs are added to it,
`costs-uniform` and `costs-rho_loss`. Printed are: microseconds of one charge, with and without the CPU clock, in turns;
milliseconds of asking for the figures, without and with a child process; and for each run the share of its wall-clock
and CPU-seconds, between the first and the last evaluation, that no cost was charged with.

Expected: a charge takes microseconds, and a step has three of them. About 1 minute on 2 cores.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.models.costs import COST_NAMES, Costs
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.run import Run

ROUNDS, CHARGES, LOOKS, STEPS = 7, 20_000, 50, 400


def each(count: int, work: Callable[[], object]) -> float:
    """Seconds of this thread that a call takes."""
    begin = time.thread_time()
    for _ in range(count):
        work()
    return (time.thread_time() - begin) / count


def charging() -> dict[str, float]:
    costs = Costs()

    def one() -> None:
        with costs.charge("load"):
            pass

    with_clock, without = [], []
    for _ in range(ROUNDS):
        with_clock.append(each(CHARGES, one))
        with mock.patch("time.process_time", lambda: 0.0):  # noqa: PT008 - a Mock is slow
            without.append(each(CHARGES, one))
    alone = each(LOOKS, costs.metrics)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        beside_a_child = each(LOOKS, costs.metrics)
        child.communicate(b"\n")
    return {
        "charge_us": round(1e6 * statistics.median(with_clock), 2),
        "charge_without_cpu_clock_us": round(1e6 * statistics.median(without), 2),
        "figures_ms": round(1e3 * alone, 3),
        "figures_with_a_child_ms": round(1e3 * beside_a_child, 3),
    }


def uncharged(workspace: str, select: str) -> dict[str, float]:
    seen: list[tuple[float, float, float, float]] = []
    original = Run.add_metrics

    def noting(run: Run, line: dict[str, Any]) -> None:
        sums = (sum(line[f"{unit}_{cost}"] for cost in COST_NAMES) for unit in ("seconds", "cpu_seconds"))
        seen.append((time.perf_counter(), time.process_time(), *sums))
        original(run, line)

    with mock.patch.object(Run, "add_metrics", noting):
        train(workspace, TrainConfig(name=f"costs-{select}", select=select, steps=STEPS, workers="0"), overwrite=True)
    wall, cpu, charged, cpu_charged = (last - first for first, last in zip(seen[0], seen[-1], strict=True))
    return {
        "ms_per_step": round(1e3 * wall / STEPS, 2),
        "seconds_uncharged": round(1 - charged / wall, 4),
        "cpu_seconds_uncharged": round(1 - cpu_charged / cpu, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", required=True)
    workspace = parser.parse_args().workspace
    result: dict[str, object] = {"charging": charging()}
    result |= {select: uncharged(workspace, select) for select in ("uniform", "rho_loss")}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
