"""What DnC's steps are worth beside SimCLR's: `examples/divide_and_contrast.py` on product photographs and emoji.

    python ../shared/data/pairs/unpack_pairs.py fashion PAIRS --foreign 0.25
    python benchmarks/divide_and_contrast.py PAIRS

PAIRS holds 39,556 training images (`train-*`), four in five of them photographs of products, the others emoji; 5,081
photographs (`reference-*`, the holdout) teach the linear probe their product's type, and 1,579 (`test-*`) measure it.
Captions are not read. The settings are the example's defaults, chosen beforehand and not tuned. One thread. Expected:
the table of docs/pairs.md; about nine CPU-minutes a seed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine

from rhostream.loaders import Workspace
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.shards import write_shards

HERE = Path(__file__).parent
OUTPUT = HERE / "results" / "divide_and_contrast.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--workspace", type=Path, help="kept, to go on from; default: a temporary one")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(asked.workspace or f"{folder}/workspace")
        prepare(workspace, asked.pairs)
        runs = [measured(workspace, asked.steps, seed, Path(folder)) for seed in asked.seeds]
    found = {"benchmark": "divide_and_contrast", "machine": machine(), "runs": runs}
    asked.output.write_text(json.dumps(found, indent=1) + "\n")


def prepare(workspace: Workspace, pairs: Path) -> None:
    """Shards; what is there is kept."""
    manifest = Manifest(
        name="mix",
        format="webdataset",
        task="pairs",
        root=str(pairs),
        holdout=0.0,
        options={
            "text": "txt",
            "extra": {"type": "string"},
            "splits": {"reference-*": "holdout", "test-*": "test"},
        },
        image={"size": 32},
        text={"tokenizer": "words", "length": 16},
    )
    write_shards(workspace, manifest, workers=0)


def measured(workspace: Workspace, steps: int, seed: int, folder: Path) -> Any:
    """What the example writes."""
    output, example = folder / f"{seed}.json", HERE.parent / "examples" / "divide_and_contrast.py"
    command = [sys.executable, str(example), workspace.location, "--steps", str(steps), "--seed", str(seed)]
    subprocess.run([*command, "--output", str(output)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads(output.read_text())


if __name__ == "__main__":
    main()
