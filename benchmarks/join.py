"""What the join with the IL table costs, and that memory does not grow with the number of samples.

    python benchmarks/join.py --rows 100000 10000000 100000000

Makes a synthetic index of each size: every shard is a link to one tar of 10,000 JPEGs of 64 pixels (the hardest case
for the join: they decode fastest), and its index and IL part are links to one of 64 pairs, so that 10^8 rows take
100 MB of disk and not 20 GB. Streams the same number of super-batches of 320 from each in a process of its own, and
prints the share of the loader's CPU time that goes into reading and comparing IL parts, the time to the first
super-batch, and the memory: before (PyTorch and this package imported), at its peak, and how much more that is.

Expected: the join at 0.2% of the loader's time; some 80 MB above PyTorch's import at 10^5 rows, 20 MB more at 10^8
(a bit for each row that has been verified, a record for each shard). A minute on 2 cores.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from rhostream.loaders.decode.rgb import content_hash
from rhostream.loaders.index.corpus_metadata import (
    IL_MODEL_KEY,
    SHARD_DIGEST_KEY,
    CorpusMetadata,
    read_shard_rows,
)
from rhostream.loaders.index.shard_list import Shard, ShardList, list_in_card
from rhostream.loaders.reference.il_table import RowAlignedTable, il_digest
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.schema import IL, SAMPLES

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))
from usage import cpu_seconds, memory_mb

SHARD_ROWS = 10_000
DISTINCT = 64  # shards with keys of their own; the others repeat them
SIDE = 64
DIGEST = "bench"  # of every shard


def jpeg(number: int) -> bytes:
    """A photograph-like 64-pixel JPEG of about 2 KB: smooth light with texture."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 255, (5, 5, 3)).astype(np.uint8)).resize((SIDE, SIDE))
    pixels = np.asarray(coarse, np.int16) + generator.normal(0, 12, (SIDE, SIDE, 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def make(folder: Path, rows: int, only: Callable[[ShardList], Iterable[int]]) -> None:
    """A workspace of `rows` samples with an index and an IL table of full size.

    Args:
        only: numbers of the shards that have files, where those of others are never read.
    """
    workspace = Workspace(folder)
    if workspace.exists("corpus.json"):
        return
    offsets, sizes, hashes = [], [], []
    with workspace.writing("shards/train-000000.tar") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(SHARD_ROWS):
            data = jpeg(number)
            info = tarfile.TarInfo(f"s{number}.jpg")
            info.size = len(data)
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            sizes.append(len(data))
            hashes.append(content_hash(data))
            tar.addfile(info, io.BytesIO(data))
    classes = [f"class {i}" for i in range(14)]
    names = [f"train-{number:06d}" for number in range(-(-rows // SHARD_ROWS))]
    shards = ShardList.of(Shard(name=name, split="train", fold=-1, rows=SHARD_ROWS, digest=DIGEST) for name in names)
    workspace.write_json("il/bench/model.json", {"classes": classes, "fingerprint": shards.fingerprint()})
    made_of = {SHARD_DIGEST_KEY: DIGEST.encode(), IL_MODEL_KEY: il_digest(workspace, "bench").encode()}
    labels = np.arange(SHARD_ROWS) % 14
    with_files = {*only(shards)}
    for number, name in enumerate(names):
        if number >= DISTINCT and number not in with_files:
            continue
        first = f"train-{number % DISTINCT:06d}"
        if number:
            Path(workspace.path(f"shards/{name}.tar")).symlink_to("train-000000.tar")
        if number >= DISTINCT:
            for part in ("index", "il/bench/scores"):
                os.link(workspace.path(f"{part}/{first}.parquet"), workspace.path(f"{part}/{name}.parquet"))
            continue
        keys = [f"images-{row % 10}-{row % 100:02d}-{number:06d}-{row:08d}" for row in range(SHARD_ROWS)]
        constant = {
            "split": "train",
            "fold": -1,
            "shard": name,
            "ext": "jpg",
            "class": "Shirt",
            "width": SIDE,
            "height": SIDE,
        }
        columns = {
            column: pa.repeat(pa.scalar(value, SAMPLES.field(column).type), SHARD_ROWS)
            for column, value in constant.items()
        }
        columns |= {
            "key": keys,
            "source": keys,
            "row": range(SHARD_ROWS),
            "offset": offsets,
            "size": sizes,
            "content_hash": hashes,
            "label": labels,
        }
        described = SAMPLES.with_metadata({SHARD_DIGEST_KEY: DIGEST.encode()})
        workspace.write_table(f"index/{name}.parquet", pa.table({c: columns[c] for c in SAMPLES.names}, described))
        losses = np.random.default_rng(number).gamma(1.0, 1.0, SHARD_ROWS)
        scores = {
            "il_model": ["bench"] * SHARD_ROWS,
            "key": keys,
            "shard": [name] * SHARD_ROWS,
            "row": range(SHARD_ROWS),
            "label": labels,
            "il": losses,
            "predicted": labels,
            "confidence": [0.9] * SHARD_ROWS,
            "entropy": [0.3] * SHARD_ROWS,
            "in_sample": [False] * SHARD_ROWS,
        }
        workspace.write_table(f"il/bench/scores/{name}.parquet", pa.table(scores, IL.with_metadata(made_of)))
    workspace.write_json(
        "corpus.json",
        {
            "manifest": {"image": {"size": SIDE}},
            "classes": classes,
            "counts": {"entries": len(shards) * SHARD_ROWS, "samples": len(shards) * SHARD_ROWS, "rejects": 0},
            "shards": list_in_card(workspace, shards),
            "fingerprint": shards.fingerprint(),
        },
    )


def every_one(shards: ShardList) -> range:
    return range(len(shards))


def measure(folder: Path, super_batches: int) -> dict[str, float]:
    """Stream, then join alone."""
    before = _forget_peak_mb()
    begin, cpu = time.perf_counter(), cpu_seconds()
    stream = CandidateStream(folder, il="bench", super_batch_size=320, seed=1)
    candidates, first, left = 0, 0.0, super_batches
    while left:
        for batch in stream:
            first = first or time.perf_counter() - begin
            candidates += len(batch)
            left -= 1
            if not left:
                break
    seconds, cpu, peak = time.perf_counter() - begin, cpu_seconds() - cpu, memory_mb("VmHWM")
    join = join_microseconds(Workspace(folder))
    return {
        "candidates_per_second": candidates / seconds,
        "seconds_to_first_super_batch": first,
        "cpu_microseconds_per_candidate": cpu / candidates * 1e6,
        "join_microseconds_per_candidate": join,
        "join_share_of_cpu": join / (cpu / candidates * 1e6),
        "memory_before_mb": before,
        "peak_memory_mb": peak,
        "memory_mb": peak - before,
    }


def join_microseconds(workspace: Workspace) -> float:
    """CPU time of reading and comparing an IL part, per candidate. On its own, as Arrow reads in threads of its own."""
    corpus = CorpusMetadata.read(workspace)
    table = RowAlignedTable(workspace, corpus, "bench")
    parts = [read_shard_rows(workspace, shard) for shard in corpus.shards[:8]]
    begin = time.process_time()
    for _ in range(5):
        for part in parts:
            table.join(part)
    return (time.process_time() - begin) / (5 * sum(len(part) for part in parts)) * 1e6


def _forget_peak_mb() -> float:
    """What is in memory now; the peak counts from here, not from the imports."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 10_000_000, 100_000_000])
    parser.add_argument("--super-batches", type=int, default=600)
    parser.add_argument("--workspaces", default="workspaces/join")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure), arguments.super_batches)))
        return
    results = {}
    for rows in arguments.rows:
        folder = Path(arguments.workspaces) / str(rows)
        make(folder, rows, every_one)
        command = [sys.executable, __file__, "--measure", str(folder), "--super-batches", str(arguments.super_batches)]
        results[rows] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(rows, "rows:", json.dumps({name: round(value, 4) for name, value in results[rows].items()}), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps({"benchmark": "join", "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
