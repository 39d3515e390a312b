"""Mutated tables of texts, by the thousand: what `rho shards` and the stream make of them.

    python benchmarks/mutated_tables.py --trials 1000

In each trial a table of some thirty texts is written as CSV, TSV, JSON lines or Parquet: with hostile cells (quotes,
line ends, NULs, marks of direction, texts that are too long), or damaged in its bytes, its lines (ragged, odd quotes,
NULs, bytes that are not UTF-8) or its types. Shards are made of it, and read by the stream. Either samples and rejects
add up to the entries, which of hostile cells are the rows that were written, and the stream gives every sample; or one
line says what is wrong. Trials are a function of the seed and their number.

Writes `benchmarks/results/mutated_tables.json`, from which the docs take their table. Expected: nothing but "kept" and
"told". A minute on one core.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from machine import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import table_fuzz

OUTPUT = Path(__file__).parent / "results" / "mutated_tables.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trials = list(table_fuzz.run(Path(folder), range(arguments.trials), arguments.seed))
    forms = {form: Counter(trial.outcome for trial in trials if trial.form == form) for form in table_fuzz.FORMS}
    failed = [asdict(trial) for trial in trials if trial.outcome in table_fuzz.FAILURES]
    found = {
        "benchmark": "mutated_tables",
        "machine": machine(),
        "trials": len(trials),
        "seed": arguments.seed,
        "forms": {form: dict(sorted(counts.items())) for form, counts in forms.items()},
        "failed": failed,
    }
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(trials)} trials, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
