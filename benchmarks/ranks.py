"""What the ranks of a job tell one another in a step: bytes and seconds, by the number of ranks.

    python benchmarks/ranks.py [--ranks 1,2,3,4] [--steps 200]

Ranks over gloo on this machine run a selector over super-batches of 320 candidates each, with a model of which a pass
takes next to nothing, and note what their exchange takes. Writes `benchmarks/results/ranks.json`, from which the docs
take their table; what 1,024 ranks would take is extrapolated there from the slope, and says so.

RHO_TEST_JOB_KILLS=20 python -m pytest tests/faults/test_job_killed.py kills jobs at 20 random moments.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from machine import machine
from torch import nn

from rhostream.loaders import CandidateStream, Order, ReadOptions
from rhostream.loaders.stream import Exchange
from rhostream.selection import OnlineSelector

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.ranks import on_jobs
from helpers.tiny import write_il, write_workspace

OUTPUT = Path(__file__).parent / "results" / "ranks.json"
CANDIDATES, BATCH = 320, 32  # of each rank


class Noting(Exchange):
    """Adds up what is sent, and the seconds from its sending to the last rank's answer."""

    sent, seconds, messages = 0, 0.0, 0

    def gathered(self, message: bytes) -> list[bytes]:
        dist.barrier()  # the ranks' own work is not the exchange's
        begin = time.perf_counter()
        found = super().gathered(message)
        Noting.seconds += time.perf_counter() - begin
        Noting.sent, Noting.messages = Noting.sent + len(message), Noting.messages + 1
        return found


def measured(workspace: str, steps: str) -> dict[str, Any]:
    """Of one rank."""
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    selector = OnlineSelector(model, batch_size=BATCH * ranks)
    selector._exchange = selector._scoring._exchange = Noting()
    stream = CandidateStream(
        workspace,
        il="strided_cnn",
        super_batch_size=CANDIDATES * ranks,
        order=Order(last="drop"),
        read_options=ReadOptions(threads=1),
    )
    done = 0
    while done < int(steps):
        for _ in selector(stream):
            done += 1
    found = {
        "bytes_a_step": Noting.sent / done,
        "messages_a_step": Noting.messages / done,
        "seconds_a_step": Noting.seconds / done,
    }
    dist.destroy_process_group()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2,3,4")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numbers = [int(number) for number in arguments.ranks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        workspace = write_workspace(Path(folder, "w"), (CANDIDATES,) * max(numbers))
        write_il(workspace)
        sys.path.insert(0, str(Path(__file__).parent))
        jobs = [(number, "measured", (workspace.location, str(arguments.steps))) for number in numbers]
        found = on_jobs("ranks", jobs, where=Path(__file__).parent)
    results = {
        str(number): {name: statistics.mean(rank[name] for rank in of_ranks) for name in of_ranks[0]}
        for number, of_ranks in zip(numbers, found, strict=True)
    }
    result = {
        "benchmark": "ranks",
        "machine": machine(),
        "candidates_of_a_rank": CANDIDATES,
        "steps": arguments.steps,
        "results": results,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    for number, row in results.items():
        print(f"{number} ranks: {row}")


if __name__ == "__main__":
    main()
