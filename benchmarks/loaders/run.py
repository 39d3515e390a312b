"""Candidates a second of the stream, beside other loaders and the C decoder alone: one run, interleaved.

    uv venv peers && uv pip install --python peers -r benchmarks/loaders/requirements.txt --editable .
    uv venv mosaicml && uv pip install --python mosaicml -r benchmarks/loaders/requirements-mosaicml.txt
    peers/bin/python benchmarks/loaders/run.py --photographs DIR --mosaicml mosaicml/bin/python

FFCV is built from source: it needs a C++ compiler, pkg-config and the headers of OpenCV and libturbojpeg (Debian:
libopencv-dev, libturbojpeg0-dev). DIR is any folder of folders of JPEG files, at least 5,000: they are cropped and
resized to 256 x 256 pixels at a quality that makes 16 KB each, and written in every loader's own format.

Every loader gives shuffled uint8 batches of 320 with labels; the stream also joins its IL table and checks hashes. Its
thumbnails variants give candidates of 64 pixels, and those with "+32" the 32 selected at full size as well: their
rate is of trained samples. Peers are measured with 0, 1 and 2 workers, the best counts. Each measurement is a fresh
process pinned to its cores, its first two seconds left out. Round r runs everything once. Where other programs keep the
cores busy it waits a little, repeats a disturbed measurement, and notes what they used ("others", in cores).

`--best-of benchmarks/results/loaders.json` measures each peer only with the decoder with which it was
fastest there, on one core also with that number of workers; the result says so.

Expected, see benchmarks/results/loaders.json: on two cores 64-pixel thumbnails at 6 (JPEG) and 16 (raw) times the best
peer's images/s, full photographs at 1.1 times. A round takes about 10 minutes, 7 with --best-of.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus
from plan import LOADERS, Bench, Measurement, measurements
from report import report, worth_measuring

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from machine import machine

RESULTS = Path(__file__).resolve().parents[1] / "results" / "loaders.json"
PACKAGES = ("rhostream", "torch", "simplejpeg", "pillow", "webdataset", "litdata", "datasets", "ffcv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="needed once")
    parser.add_argument("--mosaicml", default=sys.executable, help="python of the environment with MosaicML streaming")
    parser.add_argument("--folder", type=Path, default=Path("workspaces/loaders"))
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1))
    parser.add_argument("--best-of", type=Path, help="an earlier run's file: peers as they were fastest there, only")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the process being measured ends too
    folder = arguments.folder.absolute()
    if not (folder / "images").exists():
        if arguments.photographs is None:
            parser.error("--photographs: name a folder of folders of JPEG files")
        corpus.make(arguments.photographs, folder / "unfinished", arguments.count)
        (folder / "unfinished").rename(folder / "images")
    bench = Bench(
        folder=folder,
        pythons={"mosaicml_streaming": arguments.mosaicml},
        cores=tuple(arguments.cores),
        seconds=arguments.seconds,
    )
    for loader in LOADERS:
        bench.prepare(loader.name)
    plan = list(measurements())
    if arguments.best_of:
        if arguments.output == arguments.best_of:
            parser.error("--output: name another file, that of --best-of would be lost")
        plan = worth_measuring(json.loads(arguments.best_of.read_text()), plan)
    results: dict[Measurement, list[dict[str, Any]]] = {measurement: [] for measurement in plan}
    images = corpus.files(folder / "images")
    loads: list[float] = []
    summary: dict[str, Any] = {
        "benchmark": "loaders",
        "machine": machine() | {"load_at_rounds": loads},
        "versions": {name: version(name) for name in PACKAGES},
        "best_of": str(arguments.best_of) if arguments.best_of else None,
        "corpus": {"images": len(images), "mean_bytes": sum(path.stat().st_size for path, _ in images) / len(images)},
    }
    for turn in range(arguments.rounds):
        loads.append(os.getloadavg()[0])
        print(f"round {turn + 1}, load {loads[-1]:.1f}, {time.strftime('%H:%M:%S')}", flush=True)
        for measurement in plan:
            results[measurement].append(bench.run(measurement))
        summary["measurements"] = [{**asdict(measurement), "rounds": results[measurement]} for measurement in plan]
        arguments.output.write_text(json.dumps(summary, indent=1) + "\n")
    print(report(summary))


if __name__ == "__main__":
    main()
