"""What each engine makes of the same cores, that it makes the same bytes, and that kills change none of them.

    python benchmarks/engines.py --images 4000 --actor-kills 20 --driver-kills 20

Every stage that takes an engine works on a table of so many names of 200 JPEGs of 256 pixels, by two local processes
and by two actors of a Ray cluster on this machine; each stage is timed from its second unit's end to its last one's,
so that what starting takes is left out. Then `rho shards` runs on Ray while its actors are killed at random moments,
and again and again while its drivers are. Trees are compared byte for byte, but for what stages have cost.

Expected: Ray at 0.95 of the local rate or more, equal trees. A quarter of an hour on two cores.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
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
CLASSES = ("a", "b")
#: Where each stage leaves a file for each unit.
MARKS = {"shards": "rejects", "thumbnails": "thumbnails/64-jpeg/index", "il score": "il/small_cnn/scores"}


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
        shard_size=max(20, images // 100),
        holdout=0.2,
        image={"size": 64},
    )


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "/costs/" not in path.as_posix()
    }


def rate(folder: Path, samples: int) -> float:
    """Samples a second, from the end of the units that were made first to that of the last."""
    ends = sorted(path.stat().st_mtime for path in folder.glob("*.parquet"))
    return samples * (len(ends) - WORKERS) / len(ends) / (ends[-1] - ends[WORKERS - 1])


def measure(engine: Any, corpus: Path, workspace: Path, images: int, model: Path | None) -> dict[str, float]:
    made = write_shards(str(workspace), manifest(corpus, images), workers=WORKERS, engine=engine)
    train = made.samples["train"]
    write_thumbnails(str(workspace), ThumbnailsConfig(workers=WORKERS, engine=engine))
    if model is None:
        train_il(str(workspace), ILTrainConfig(steps=5, device="cpu"))
    else:
        shutil.copytree(model, workspace / "il/small_cnn")
    score_il(str(workspace), ILScoreConfig(workers=WORKERS, engine=engine, device="cpu"))
    found = {stage: rate(workspace / marks, images if stage == "shards" else train) for stage, marks in MARKS.items()}
    indexed = workspace.with_name(f"{workspace.name}-indexed")
    options = manifest(corpus, images).to_dict() | {"format": "webdataset", "options": {}}
    index_tars(str(indexed), [str(workspace / "shards")], Manifest(**options), workers=WORKERS, engine=engine)
    found["index"] = rate(indexed / "scans", images)
    return found


def kill_actors(kills: int, corpus: Path, workspace: Path, images: int) -> int:
    """Make the shards, and meanwhile kill an actor every now and then; how many were killed."""
    chance, killed, ended = random.Random(0), 0, threading.Event()

    def kill() -> None:
        nonlocal killed
        done = 0
        while killed < kills and not ended.wait(chance.uniform(0, 0.3)):
            before, done = done, len(list(workspace.glob("rejects/*.parquet")))
            if done == before:
                continue  # whoever took a killed one's place has not begun
            actors = [each for each in psutil.process_iter(["name"]) if "ray::_Actor" in (each.info["name"] or "")]
            for actor in chance.sample(actors, min(1, len(actors))):
                if any(parent.pid == os.getpid() for parent in actor.parents()):
                    actor.kill()
                    killed += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        write_shards(str(workspace), manifest(corpus, images), workers=WORKERS, engine="ray")
    finally:
        ended.set()
        thread.join()
    return killed


def kill_drivers(kills: int, corpus: Path, workspace: Path, images: int) -> int:
    """Start a driver on the cluster that is there, kill it at a random moment, and so on; how many were at work."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from engines import *\n"
        "write_shards(sys.argv[2], manifest(Path(sys.argv[3]), int(sys.argv[4])), workers=WORKERS, engine='ray')"
    )
    arguments = [str(Path(__file__).parent), str(workspace), str(corpus), str(images)]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    chance, at_work = random.Random(1), 0
    for _ in range(kills):
        driver = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, stderr=subprocess.DEVNULL)
        there = len(list(workspace.glob("rejects/*.parquet")))
        more, deadline = chance.randrange(0, 4), time.monotonic() + 300
        while driver.poll() is None and time.monotonic() < deadline:
            if len(list(workspace.glob("rejects/*.parquet"))) >= there + more and (workspace / ".lease.json").exists():
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        at_work += driver.poll() is None
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    write_shards(str(workspace), manifest(corpus, images), workers=WORKERS, engine="ray")
    return at_work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--actor-kills", type=int, default=20)
    parser.add_argument("--driver-kills", type=int, default=20)
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    images = arguments.images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus"
        write_corpus(corpus, images)
        found: dict[str, Any] = {"benchmark": "engines", "images": images, "workers": WORKERS}
        local = folder / "local" / "w"
        found["local"] = measure("local", corpus, local, images, None)
        print("local:", found["local"], flush=True)
        model = folder / "model"
        shutil.copytree(local / "il/small_cnn", model, ignore=shutil.ignore_patterns("scores", "costs"))
        begin = time.perf_counter()
        with on_ray._cluster(WORKERS):
            found["ray_start_seconds"] = time.perf_counter() - begin
            # Under the same path, which the index tells.
            local.parent.rename(folder / "kept")
            found["ray"] = measure("ray", corpus, local, images, model)
            print("ray:", found["ray"], flush=True)
            kept, again = tree(folder / "kept" / "w"), tree(local)
            found["equal"] = kept == again
            made = ("shards/", "index/", "rejects/", "corpus.json")
            shards = {name: digest for name, digest in kept.items() if name.startswith(made)}
            killed = folder / "actors"
            found["actor_kills"] = kill_actors(arguments.actor_kills, corpus, killed, images)
            found["equal_after_actor_kills"] = shards.items() <= tree(killed).items()
            print("actors:", found["actor_kills"], found["equal_after_actor_kills"], flush=True)
            drivers = folder / "drivers"
            found["driver_kills"] = kill_drivers(arguments.driver_kills, corpus, drivers, images)
            found["equal_after_driver_kills"] = shards.items() <= tree(drivers).items()
            print("drivers:", found["driver_kills"], found["equal_after_driver_kills"], flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
