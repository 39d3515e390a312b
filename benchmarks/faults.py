"""Damaged artifacts, by the thousand: what the commands that read them make of it.

    python benchmarks/faults.py --trials 10000

Makes a small workspace by every stage, and in each trial damages one file of it (a flipped bit, a truncation, bytes put
in, another file in its place, a column of another type, a folder or a pipe …), runs one command or stream that reads
it, and compares the answer with that of the whole workspace. Trials are a function of the seed and their number. Writes
`benchmarks/results/faults.json`, from which the docs take their table, every hundred trials; `--minutes` ends it
sooner, with as many trials as it came to.

`--go-on` begins where the file of results ends, and adds to it: so a sweep is made in parts.

`--again` repeats those that failed in the file of results, and counts those that fail no more as they end now.

Expected: nothing but "told" and "same". An hour for 10,000 trials on one core.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import artifact_fuzz
from helpers.readers import READ_BY
from helpers.small_workspace import SmallWorkspace

OUTPUT = Path(__file__).parent / "results" / "faults.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--go-on", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin, trials = time.monotonic(), list[artifact_fuzz.Trial]()
    before = json.loads(arguments.output.read_text()) if arguments.go_on else {"trials": 0, "seed": arguments.seed}
    numbers = range(before["trials"], arguments.trials)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RHO_CACHE"] = f"{folder}/cache"
        place = SmallWorkspace(Path(folder))
        if arguments.again:
            sys.exit(again(place, arguments.output))
        for trial in artifact_fuzz.run(place, numbers, before["seed"]):
            trials.append(trial)
            if trial.outcome in artifact_fuzz.FAILURES:
                print(trial, flush=True)
            ends = time.monotonic() - begin > arguments.minutes * 60
            if ends or len(trials) % 100 == 0 or len(trials) == len(numbers):
                found = summary(trials, before, time.monotonic() - begin)
                arguments.output.write_text(json.dumps(found, indent=1) + "\n")
            if ends:
                break
    print(f"{found['trials']} trials, {len(found['failed'])} failed")
    sys.exit(bool(found["failed"]))


def again(place: SmallWorkspace, output: Path) -> bool:
    """Repeat the trials that failed; do any still?"""
    found = json.loads(output.read_text())
    former, found["failed"] = found["failed"], []
    for before, now in zip(
        former, artifact_fuzz.run(place, [trial["number"] for trial in former], found["seed"]), strict=True
    ):
        counts = found["artifacts"][before["artifact"]]
        counts[before["outcome"]] -= 1
        counts[now.outcome] = counts.get(now.outcome, 0) + 1
        still = now.outcome in artifact_fuzz.FAILURES
        if still:
            found["failed"].append(asdict(now))
        else:
            found.setdefault("mended", []).append(before)
        print(now, flush=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    return bool(found["failed"])


def summary(trials: list[artifact_fuzz.Trial], before: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Of these trials and those before them, which an earlier call has made."""
    by_artifact = {
        pattern: Counter(before.get("artifacts", {}).get(pattern, {}))
        + Counter(trial.outcome for trial in trials if trial.artifact == pattern)
        for pattern in READ_BY
    }
    failed = [asdict(trial) for trial in trials if trial.outcome in artifact_fuzz.FAILURES]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "benchmark": "faults",
        "machine": machine(),
        "trials": before["trials"] + len(trials),
        "seed": before["seed"],
        "seconds": round(before.get("seconds", 0) + seconds),
        "peak_memory_gib": round(max(before.get("peak_memory_gib", 0), peak), 2),
        "artifacts": {name: dict(sorted(counts.items())) for name, counts in by_artifact.items()},
        "failed": [*before.get("failed", []), *failed],
    }


if __name__ == "__main__":
    main()
