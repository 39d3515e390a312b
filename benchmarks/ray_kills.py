"""Stages on Ray, whose actors, drivers and nodes are killed at random moments: what became of their results.

    python benchmarks/ray_kills.py --kills 10 --raylet-kills 2

For each stage that takes an engine a small workspace is made as far as it needs, and what the stage makes of it in one
process, without Ray, is kept. Then two actors of a cluster on this machine make it; so many actors and so many drivers
get a SIGKILL, and a fifth as many drivers a SIGTERM and a SIGINT, when a random number of files is there. What is done
stays, and the next driver goes on from there. At last it may finish. Every file, temporary ones too, must be byte for
byte that of one process, measured times aside; no end may tell of an error. A stage that is done before it is ended is
compared and begins anew. `--raylet-kills N` makes shards on a cluster of N nodes and one more on this machine, of which
all but one are killed, one after the other.

Writes `benchmarks/results/ray_kills.json` after each stage, from which the docs take their table. `--only` does some
stages, and leaves the figures of the others as they are. Expected: no stage fails. Half an hour on one core, half of it
for the index, which writes most of its files after its units.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from machine import machine

from rhostream.pipeline.jobs import on_ray
from rhostream.pipeline.shards import write_shards

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers.kills import digests_of
from helpers.ray_kills import ACTOR, STAGES, WORKERS, RaySweep, sweep
from helpers.small_workspace import SmallWorkspace

OUTPUT = Path(__file__).parent / "results" / "ray_kills.json"
IMAGES, SHARD = 480, 16


@dataclass(frozen=True, kw_only=True)
class KilledNodes:
    """How many nodes were killed while shards were made."""

    killed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of actors, and as many of drivers")
    parser.add_argument("--raylet-kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=STAGES, default=STAGES, metavar="STAGE")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    # A shell's background job ignores Ctrl-C, as would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    former = json.loads(arguments.output.read_text()) if arguments.output.exists() else {"stages": [], "raylets": None}
    stages = {one["stage"]: one for one in former["stages"]}
    raylets: dict[str, Any] | None = former["raylets"]

    def keep() -> None:
        found = [stages[stage] for stage in STAGES if stage in stages]
        kept = {"benchmark": "ray_kills", "machine": machine(), "seed": arguments.seed, "stages": found}
        arguments.output.write_text(json.dumps(kept | {"raylets": raylets}, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        os.environ["RHO_CACHE"] = f"{folder}/cache"
        place = SmallWorkspace(Path(folder), images=IMAGES, shard_size=SHARD)
        few = arguments.kills // 5
        ends = [ACTOR, "SIGKILL"] * arguments.kills + ["SIGTERM", "SIGINT"] * few
        with on_ray._cluster(WORKERS):
            for stage in arguments.only:
                swept = outcome(partial(sweep, place, stage, ends, arguments.seed))
                stages[stage] = {"stage": stage} | swept
                print(stages[stage], flush=True)
                keep()
        if arguments.raylet_kills:
            raylets = outcome(partial(kill_raylets, arguments.raylet_kills, place, Path(folder) / "nodes"))
            print(raylets, flush=True)
            keep()
    sys.exit(any(one["failed"] for one in (*stages.values(), *([raylets] if raylets else []))))


def outcome(work: Callable[[], RaySweep | KilledNodes]) -> dict[str, Any]:
    """What it found, and why it failed."""
    try:
        return asdict(work()) | {"failed": None}
    except AssertionError as error:
        return {"failed": str(error)[-2000:]}


def kill_raylets(kills: int, place: SmallWorkspace, made: Path) -> KilledNodes:
    """Make the shards on nodes of one worker each, and kill one after the other of them, but for the first."""
    from ray.cluster_utils import Cluster

    write_shards(place.folder / "alone", place.manifest, workers=0)
    node_of = {"num_cpus": 1, "object_store_memory": 128 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node_of, "include_dashboard": False})
    killed, ended, chance = 0, threading.Event(), random.Random(2)

    def done() -> int:
        return len(list(made.glob("rejects/*.parquet")))

    def kill() -> None:
        nonlocal killed
        for node in nodes:
            until = done() + chance.randrange(1, 8)
            while done() < until:
                if ended.wait(0.02):
                    return
            cluster.remove_node(node, allow_graceful=False)
            killed += 1

    thread = threading.Thread(target=kill)
    try:
        nodes = [cluster.add_node(**node_of) for _ in range(kills)]
        ray.init(cluster.address, log_to_driver=False)
        thread.start()
        write_shards(made, place.manifest, workers=1 + kills, engine="ray")
    finally:
        ended.set()
        thread.join()
        ray.shutdown()
        cluster.shutdown()
    assert digests_of(made) == digests_of(place.folder / "alone"), "the shards differ"
    return KilledNodes(killed=killed)


if __name__ == "__main__":
    main()
