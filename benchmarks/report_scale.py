"""How long `rho report` takes over 1M samples, in how much memory, and how soon its page is open.

    python benchmarks/report_scale.py --rows 10e6 --output benchmarks/results/report_scale.json

The workspace is that of `explain_scale.py`, with images: 64 photographs of noise stand for all 1M samples. A second run
is beside the one that is shown. The report is written by a process of its own, whose peak memory is measured; Chromium,
where it is installed, then opens the page three times.

Expected: below 4 GiB whatever the rows, a page of few MB, open in less than 2 s on a machine at rest. At 10M rows 22 s
of one core and 2.0 GiB; the page of 2.8 MB was open in 1.0 to 1.2 s, beside other work.
"""

import argparse
import hashlib
import io
import json
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from explain_scale import OTHER, OTHER_ROWS, RUN, SAMPLES, SHARD_ROWS, Corpus, write_run
from machine import machine
from PIL import Image

from rhostream.loaders.index.shard_list import Shard, ShardList
from rhostream.loaders.storage.workspace import Workspace

IMAGES = 64


def write_images(workspace: Workspace) -> None:
    """A tar of a few photographs, to which all rows of the index point, and the metadata that say so."""
    offsets, sizes, hashes = [], [], []
    with workspace.writing("photographs.tar") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(IMAGES):
            buffer = io.BytesIO()
            coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(buffer.getvalue())
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            sizes.append(member.size)
            hashes.append(hashlib.sha256(buffer.getvalue()).hexdigest()[:32])
            tar.addfile(member, io.BytesIO(buffer.getvalue()))
    shards = []
    for name in workspace.names("index", ".parquet"):
        rows = workspace.read_table(f"index/{name}")
        which = np.arange(rows.num_rows) % IMAGES
        for column, values in (("offset", offsets), ("size", sizes), ("content_hash", hashes)):
            place = rows.schema.get_field_index(column)
            field = rows.schema.field(column)
            rows = rows.set_column(place, field, pa.array(np.array(values)[which].tolist(), field.type))
        workspace.write_table(f"index/{name}", rows)
        shards.append(
            Shard(
                name=name.removesuffix(".parquet"),
                split="train",
                fold=-1,
                rows=rows.num_rows,
                digest=name,
                source=workspace.path("photographs.tar"),
            )
        )
    metadata = workspace.read_json("corpus.json")
    counts = {"entries": SAMPLES + 50_000, "samples": SAMPLES, "rejects": 50_000}
    manifest = {"name": "report_scale"}
    described = {"shards": [asdict(shard) for shard in shards], "fingerprint": ShardList.of(shards).fingerprint()}
    workspace.write_json("corpus.json", metadata | {"manifest": manifest, "counts": counts} | described)
    workspace.write_json("il/resnet18/model.json", {})


def write_metrics(workspace: Workspace) -> None:
    """Complete the lines of both runs: the generator's tell no accuracy and no cost."""
    for run, reaches in ((RUN, 0.9), (OTHER, 0.8)):
        file = f"runs/{run}/metrics.jsonl"
        lines = workspace.read_lines(file)
        for number, line in enumerate(lines):
            part = (number + 1) / len(lines)
            line |= {"test_accuracy": reaches * part**0.3, "seconds_train": 100.0 * part, "flops_train": 1e15 * part}
        workspace.write_lines(file, lines)
        select = "uniform" if run == OTHER else "rho_loss"
        workspace.write_json(
            f"runs/{run}/run.json", {"format_version": 2, "il": "resnet18", "config": {"select": select}}
        )


def opening(page: Path) -> list[float]:
    """Seconds from navigation to the end of the load event, three times."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return []
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(3):
            tab = browser.new_page()
            tab.goto(page.as_uri())
            timing = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
            seconds.append(round(timing / 1000, 2))
            tab.close()
        browser.close()
    return seconds


def measure(workspace: Workspace, page: Path, rows: int) -> dict[str, Any]:
    rho = "from rhostream.cli.main import main; main()"
    command = [sys.executable, "-c", rho, "report", "--workspace", workspace.root, "--run", RUN, "--run", OTHER]
    start = time.perf_counter()
    subprocess.run([*command, "--output", str(page)], check=True)
    seconds = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "ledger_rows": rows,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_gib": round(used.ru_maxrss / 2**20, 2),
        "page_mb": round(page.stat().st_size / 1e6, 2),
        "open_seconds": opening(page),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=10e6, help="candidates in the ledger of the run that is shown")
    parser.add_argument("--workspaces", default="workspaces/report_scale", help="where to work; can be continued")
    parser.add_argument("--output", help="JSON file for the results")
    arguments = parser.parse_args()
    rows = int(arguments.rows)
    workspace = Workspace(Path(arguments.workspaces) / str(rows))
    corpus = Corpus()
    if not workspace.exists("photographs.tar"):
        corpus.write(workspace)
        write_images(workspace)
    write_run(workspace, corpus, OTHER, OTHER_ROWS, seed=2)
    write_run(workspace, corpus, RUN, rows, seed=1)
    write_metrics(workspace)
    assert len(workspace.names("index")) == SAMPLES // SHARD_ROWS
    result = measure(workspace, Path(workspace.path("report.html")).resolve(), rows)
    report = {"benchmark": "report_scale", "machine": machine(), "samples": SAMPLES, "results": [result]}
    print(json.dumps(report, indent=1))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
