"""What thousands of small tars and a hundred thousand classes cost, stage by stage.

    python benchmarks/many_tars.py --tars 500 2000 --output benchmarks/results/many_tars.json
    python benchmarks/many_tars.py --tars 10000

Writes tars of two or three small photographs of noise each, as somebody else's data set, indexes them where they lie,
and runs the commands on them, each in a process of its own whose time and peak memory are measured. Then `rho shards`
of a table whose manifest names 100,000 classes. The docs project what two numbers of tars cost to 10,000.

Expected of 10,000 tars: 6 to 11 ms a tar for `index` and `il score`, 1 to 2 ms for the first question, which opens
all files, a tenth of that for later ones, and 2 GiB at most.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import simplejpeg
from machine import machine

CLASSES: Final = 14
SAMPLES_IN_A_TAR: Final = 2.4
SIDE: Final = 24
RHO: Final = [sys.executable, "-c", "from rhostream.cli.main import main; main()"]
CPU: Final = ["--device", "cpu", "--threads", "1"]


def write_tars(folder: Path, tars: int, samples: int) -> None:
    """`samples` photographs of noise in so many tars, as evenly as it goes."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for tar, numbers in enumerate(np.array_split(np.arange(samples), tars)):
        with tarfile.open(folder / f"{tar:06d}.tar", "w") as stream:
            for number in numbers:
                image = simplejpeg.encode_jpeg(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), quality=80)
                for ext, content in (("jpg", image), ("cls", b"%d" % (number % CLASSES))):
                    member = tarfile.TarInfo(f"{number:08d}.{ext}")
                    member.size = len(content)
                    stream.addfile(member, io.BytesIO(content))


def write_table(folder: Path, classes: int, samples: int) -> None:
    """So many photographs in a table, and a manifest that names so many classes."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(1)
    rows = ["path,label"]
    for number in range(samples):
        image = simplejpeg.encode_jpeg(random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8), quality=80)
        (folder / "images" / f"{number}.jpg").write_bytes(image)
        rows.append(f"images/{number}.jpg,class {number * 7919 % classes}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    names = ", ".join(f'"class {number}"' for number in range(classes))
    (folder / "many.toml").write_text(f'format = "table"\nroot = "{folder}"\nholdout = 0.1\nclasses = [{names}]\n')


def measure(asked: str, *arguments: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run one command; its seconds, its CPU-seconds with its children's, and the peak memory of its largest process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # A child of the child: the peak that rusage tells is that of the largest so far.
    measured = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:], stdout=sys.stderr); "
    measured += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", measured, *RHO, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{asked}: {done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {
        "asked": asked,
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(cpu, 2),
        "peak_memory_gib": round(int(done.stdout) / 2**20, 2),
    }
    print(
        f"{asked:<40} {found['seconds']:7.1f} s {found['cpu_seconds']:7.1f} CPU-s {found['peak_memory_gib']:6.2f} GiB",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, nargs="+", default=[500, 2_000])
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--workspaces", type=Path, default=Path("workspaces/many_tars"), help="where to work")
    parser.add_argument("--only", help="asks only what begins so")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    folder = arguments.workspaces.resolve()
    if not (folder / "table").exists():
        write_table(folder / "table", arguments.classes, arguments.classes // 10)
    environment = {"RHO_CACHE": str(folder / "cache")}

    def answers(commands: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [
            measure(asked, *words, environment=environment)
            for asked, words in commands.items()
            if arguments.only is None or asked.startswith(arguments.only)
        ]

    runs = []
    for tars in arguments.tars:
        place = folder / f"{tars}"
        if not (place / "tars").exists():
            write_tars(place / "tars", tars, round(tars * SAMPLES_IN_A_TAR))
        print(f"{tars:,} tars")
        runs.append({"tars": tars, "answers": answers(of_tars(place))})
    print(f"{arguments.classes:,} classes")
    report = {
        "benchmark": "many_tars",
        "machine": machine(),
        "samples_in_a_tar": SAMPLES_IN_A_TAR,
        "runs": runs,
        "classes": arguments.classes,
        "answers": answers(of_classes(folder)),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def of_tars(place: Path) -> dict[str, list[str]]:
    """The commands on tars, in their order; the first indexes them."""
    at = ["--workspace", str(place / "w")]
    steps = ["--steps", "20", "--evaluate-every", "20", "--batch-size", "32", "--super-batch-size", "320"]
    return {
        "index": ["index", str(place / "tars"), "--holdout", "0.1", *at],
        "il train": ["il", "train", "--model", "mlp", "--image-size", "16", "--steps", "20", *CPU, *at],
        "il score": ["il", "score", *CPU, *at],
        "train": ["train", "--model", "mlp", "--image-size", "16", "--select", "rho_loss", *steps, *CPU, *at],
        "query count(*), first": ["query", "SELECT count(*) FROM samples", *at],
        "query count(*)": ["query", "SELECT count(*) FROM samples", *at],
        "explain reasons, first": ["explain", "reasons", "--run", "rho_loss", *at],
        "explain reasons": ["explain", "reasons", "--run", "rho_loss", *at],
        "explain mislabeled": ["explain", "mislabeled", *at],
        "status": ["status", *at],
        "report": ["report", "--output", str(place / "report.html"), "--force", *at],
    }


def of_classes(folder: Path) -> dict[str, list[str]]:
    at = ["--workspace", str(folder / "classes")]
    return {
        "shards": ["shards", "--manifest", str(folder / "table" / "many.toml"), *at],
        "report": ["report", "--output", str(folder / "classes.html"), "--force", *at],
    }


if __name__ == "__main__":
    main()
