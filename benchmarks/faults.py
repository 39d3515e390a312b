"""Damaged artifacts, by the thousand: what the commands that read them make of it.

    python benchmarks/faults.py --trials 10000

Makes a small workspace by every stage, and in each trial damages one file of it (a flipped bit, a truncation, bytes put
in, another file in its place, a column of another type, a folder or a pipe …), runs one command or stream that reads
it, and compares the answer with that of the whole workspace. Trials are a function of the seed and their number. Writes
`benchmarks/results/faults.json`, from which the docs take their table.

Expected: nothing but "told" and "same". An hour for 10,000 trials on one core.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RHO_CACHE"] = f"{folder}/cache"
        place = SmallWorkspace(Path(folder))
        trials, seconds = artifact_fuzz.run(place, arguments.trials, arguments.seed)
    by_artifact = {
        pattern: Counter(trial.outcome for trial in trials if trial.artifact == pattern) for pattern in READ_BY
    }
    failed = [trial for trial in trials if trial.outcome in artifact_fuzz.FAILURES]
    result = {
        "benchmark": "faults",
        "machine": machine(),
        "trials": len(trials),
        "seed": arguments.seed,
        "seconds": round(seconds),
        "artifacts": {name: dict(sorted(counts.items())) for name, counts in by_artifact.items()},
        "failed": [asdict(trial) for trial in failed],
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(trials)} trials in {seconds:.0f} s, {len(failed)} failed")
    for trial in failed:
        print(trial)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
