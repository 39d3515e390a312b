"""One measurement in a process of its own, or the preparation of one loader's format; `run.py` starts it.

python measure.py prepare ADAPTER IMAGES FOLDER
python measure.py rate ADAPTER VARIANT FOLDER --workers N --seconds S
python measure.py first VARIANT FOLDER
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from corpus import SIDE
from usage import busy_seconds, cpu_seconds

WARM_SECONDS = 2.0


def rate(adapter: str, variant: str, folder: Path, workers: int, seconds: float) -> dict[str, Any]:
    """In the steady state, the borders of epochs included.

    Returns:
        rate: images a second.
        cpu_us: CPU time of an image, all processes together.
        others: cores that were kept busy by what is no part of the measurement.
    """
    batches = importlib.import_module(f"adapters.{adapter}").batches(folder, variant, workers)
    begin = time.perf_counter()
    images, _ = next(batches)
    full_size = not variant.startswith("64-") or variant.endswith("+32")
    if sorted(images.shape[1:]) != ([3, SIDE, SIDE] if full_size else [3, 64, 64]) or images.numpy().dtype != "uint8":
        raise SystemExit(f"{adapter} {variant} gives {images.dtype} {tuple(images.shape)}")
    if adapter != "ceiling" and images.float().std() < 10:
        raise SystemExit(f"{adapter} {variant}: these are no photographs")
    while time.perf_counter() - begin < WARM_SECONDS:
        next(batches)
    seen = 0
    busy, cpu, begin = busy_seconds(), cpu_seconds(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        seen += len(next(batches)[0])
    elapsed, cpu, busy = time.perf_counter() - begin, cpu_seconds() - cpu, busy_seconds() - busy
    result = {"rate": seen / elapsed, "cpu_us": cpu / seen * 1e6, "others": max(0.0, busy - cpu) / elapsed}
    if adapter == "rhostream_stream":
        from adapters.rhostream_stream import join_microseconds

        result["join_us"] = join_microseconds(folder)
    return result


def first(variant: str, folder: Path) -> dict[str, float]:
    """Seconds to the first super-batch: the package is imported, the files are in the page cache."""
    from adapters.rhostream_stream import stream

    begin = time.perf_counter()
    batch = next(iter(stream(folder, variant)))
    return {"first": time.perf_counter() - begin, "candidates": len(batch)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("prepare")
    for name, kind in (("adapter", str), ("images", Path), ("folder", Path)):
        task.add_argument(name, type=kind)
    task = tasks.add_parser("rate")
    for name, kind in (("adapter", str), ("variant", str), ("folder", Path)):
        task.add_argument(name, type=kind)
    task.add_argument("--workers", type=int, required=True)
    task.add_argument("--seconds", type=float, required=True)
    task = tasks.add_parser("first")
    for name, kind in (("variant", str), ("folder", Path)):
        task.add_argument(name, type=kind)
    values = vars(parser.parse_args())
    match values.pop("task"):
        case "prepare":
            importlib.import_module(f"adapters.{values['adapter']}").prepare(values["images"], values["folder"])
            result = {}
        case "rate":
            result = rate(**values)
        case _:
            result = first(**values)
    # The last line; loaders print too.
    print(json.dumps(result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
