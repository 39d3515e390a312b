"""What each engine makes of the same cores, and that it makes the same bytes.

    python benchmarks/engines.py --images 4000

Every stage that takes an engine works on a table of so many names of 200 JPEGs of 256 pixels, by a local process and
by an actor of a Ray cluster on this machine, both at the same time, so that whatever else the cores do meets both;
some rounds, whose medians count. A rate is that of the CPU time of the worker, from its first unit's end on: what
starting takes is not in it. A unit is of a twentieth of the images, far less than the 10,000 that a shard holds by
default. Trees are compared byte for byte, but for what stages have cost.

Expected: equal trees, and Ray at 0.95 of the local rate or more. A quarter of an hour on two cores.
"""

import argparse
import hashlib
import io
import json
import math
import os
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image

from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, Manifest, ThumbnailsConfig
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.in_place import index_tars
from rhostream.pipeline.jobs import on_ray
from rhostream.pipeline.shards import write_shards
from rhostream.pipeline.thumbnails import write_thumbnails

DISTINCT, SIDE, WORKERS = 200, 256, 2
UNITS = 20  # of a stage whose rate is measured
SECONDS_BETWEEN_LOOKS = 0.5  # for workers: they import for longer before their first unit
CLASSES = ("a", "b")
#: What the workers of an engine are called, among the processes of this one.
CALLED = {"local": "spawn_main", "ray": "_Actor"}
#: What others have published, to stand beside: what, and images a second, of what.
PUBLISHED = [
    ["img2dataset on Ray, downloads included", "21 a vCPU"],
    ["Ray Data's documentation, inference by a ResNet-18", "55 a vCPU"],
    ["Daft, the same", "79 a vCPU"],
    ["litdata's conversion of ImageNet", "some 2,000 a machine"],
]


def write_corpus(folder: Path, images: int) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = ["path,label"]
    for number in range(images):
        name = f"{number:06d}.jpg"
        if number < DISTINCT:
            coarse = Image.fromarray(generator.integers(0, 255, (9, 9, 3)).astype(np.uint8)).resize((SIDE, SIDE))
            pixels = np.asarray(coarse, np.int16) + generator.normal(0, 12, (SIDE, SIDE, 1))
            buffer = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
            (folder / name).write_bytes(buffer.getvalue())
        else:
            os.link(folder / f"{number % DISTINCT:06d}.jpg", folder / name)
        rows.append(f"{name},{CLASSES[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def manifest(corpus: Path, images: int) -> Manifest:
    return Manifest(
        name="engines",
        format="table",
        root=str(corpus),
        classes=CLASSES,
        shard_size=max(20, images // UNITS),
        holdout=0.2,
        image={"size": 64},
    )


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "/costs/" not in path.as_posix()
    }


class Watched:
    """What the worker of a stage takes, by the units that are done, while it runs within the block.

    Args:
        engine: whose worker it is.
        folder: where the stage leaves a file for each unit.
        samples: that it works on.
    """

    def __init__(self, engine: str, folder: Path, samples: int) -> None:
        self._called, self._folder, self._samples = CALLED[engine], folder, samples
        self._seen: list[tuple[int, float]] = []  # units done, CPU seconds so far
        self._of: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def rate(self) -> float:
        """Samples a second of one core."""
        units = max(done for done, _ in self._seen)
        begun = next((done, spent) for done, spent in self._seen if done)
        ended = next((done, spent) for done, spent in self._seen if done == units)
        return self._samples * (units - begun[0]) / units / (ended[1] - begun[1])

    def _watch(self) -> None:
        workers: list[psutil.Process] = []
        looked = -math.inf
        while not self._ended.wait(0.05):
            # To look for them each time would take a tenth of a core, of those that the workers share.
            if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                workers, looked = self._workers(), time.monotonic()
            for process in workers:
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._of[process.pid] = times.user + times.system
            self._seen.append((len(list(self._folder.glob("*.parquet"))), sum(self._of.values())))

    def _workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if self._called in process.name() + " ".join(process.cmdline()):
                    found.append(process)
        return found


def measure(engine: Any, corpus: Path, workspace: Path, images: int, model: Path, meet: Any) -> dict[str, float]:
    """Rates of the stages; before each of them the other engine is waited for by `meet`."""
    found = {}
    asked = manifest(corpus, images)
    meet()
    with Watched(engine, workspace / "rejects", images) as watched:
        made = write_shards(str(workspace), asked, workers=1, engine=engine)
    found["shards"], train = watched.rate, made.samples["train"]
    meet()
    with Watched(engine, workspace / "thumbnails/64-jpeg/index", train) as watched:
        write_thumbnails(str(workspace), ThumbnailsConfig(workers=1, engine=engine))
    found["thumbnails"] = watched.rate
    shutil.copytree(model, workspace / "il/strided_cnn")
    meet()
    with Watched(engine, workspace / "il/strided_cnn/scores", train) as watched:
        score_il(str(workspace), ILScoreConfig(workers=1, engine=engine, device="cpu"))
    found["il score"] = watched.rate
    indexed = workspace.with_name(f"{workspace.name}-indexed")
    options = asked.to_dict() | {"format": "webdataset", "options": {}}
    meet()
    with Watched(engine, indexed / "scans", images) as watched:
        index_tars(str(indexed), [str(workspace / "shards")], Manifest(**options), workers=1, engine=engine)
    found["index"] = watched.rate
    return found


def cost_of_an_actor(seconds: float = 10.0, calls: int = 200) -> dict[str, float]:
    """CPU milliseconds that an actor takes beside its units: a second in which it has nothing to do, and a call."""

    class Idle:
        def process(self) -> int:
            return os.getpid()

    actor = ray.remote(concurrency_groups={"tell": 1})(Idle).options(num_cpus=1).remote()
    process = psutil.Process(ray.get(actor.process.remote()))

    def spent() -> float:
        times = process.cpu_times()
        return 1000 * float(times.user + times.system)

    time.sleep(3)
    before, begin = spent(), time.perf_counter()
    time.sleep(seconds)
    a_second = (spent() - before) / (time.perf_counter() - begin)
    before = spent()
    for _ in range(calls):
        ray.get(actor.process.remote())
    return {"idle_ms_a_second": a_second, "ms_a_call": (spent() - before) / calls}


def compared(folder: Path, corpus: Path, images: int, rounds: int) -> dict[str, Any]:
    """Medians of the rates by engine and stage, and whether both have made the same files, byte for byte."""
    first, model = folder / "first" / "w", folder / "model"
    write_shards(str(first), manifest(corpus, images), workers=WORKERS)
    train_il(str(first), ILTrainConfig(steps=5, device="cpu"))
    shutil.copytree(first / "il/strided_cnn", model, ignore=shutil.ignore_patterns("costs"))
    rates: dict[str, list[dict[str, float]]] = {"local": [], "ray": []}
    equal = True
    begin = time.perf_counter()
    with on_ray._cluster(WORKERS), ThreadPoolExecutor(len(rates)) as pool:
        started = time.perf_counter() - begin
        for number in range(rounds):
            places = {engine: folder / f"{engine}-{number}" / "w" for engine in rates}
            meet = threading.Barrier(len(rates)).wait
            running = {
                engine: pool.submit(measure, engine, corpus, place, images, model, meet)
                for engine, place in places.items()
            }
            for engine, each in running.items():
                rates[engine].append(each.result())
                print(number, engine, rates[engine][-1], flush=True)
            local, ray_made = (tree(place) for place in places.values())
            equal = equal and local == ray_made
            for place in places.values():
                shutil.rmtree(place.parent)
        actor = cost_of_an_actor()
    medians = {
        engine: {stage: statistics.median(each[stage] for each in found) for stage in found[0]}
        for engine, found in rates.items()
    }
    ratios = {
        stage: statistics.median(
            on_ray_[stage] / local[stage] for local, on_ray_ in zip(rates["local"], rates["ray"], strict=True)
        )
        for stage in medians["local"]
    }
    return {
        **medians,
        "ratio": ratios,
        "rounds": rates,
        "actor": actor,
        "ray_start_seconds": started,
        "equal": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    images = arguments.images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus"
        write_corpus(corpus, images)
        found = {"benchmark": "engines", "images": images, "workers": 1, "units": UNITS, "published": PUBLISHED}
        found |= compared(folder, corpus, images, arguments.rounds)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
