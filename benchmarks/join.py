"""What the join with the IL table costs, and that memory does not grow with the number of samples.

    python benchmarks/join.py --rows 100000 10000000

Makes a synthetic index of each size (real JPEGs: every shard is a link to the same tar of 10,000 images of 64 pixels),
streams the same number of super-batches of 320 from each in a process of its own, and prints the share of the stream's
CPU time that goes into reading and comparing IL parts, the peak memory, and the time to the first one.

Expected: the join under 2% of the loader's time (64-pixel images are the hardest case, they decode fastest); peak
memory within a few MB between 10^5 and 10^7 rows. About 5 minutes on 2 cores, most of it making the index of 10^7 rows.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from rhostream.loaders.index import IL_MODEL_KEY, SHARD_DIGEST_KEY, CorpusCard
from rhostream.loaders.join import RowAlignedTable, il_digest
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.workspace import Workspace
from rhostream.schema import IL, SAMPLES

SHARD_ROWS = 10_000
SIDE = 64


def jpeg(number: int) -> bytes:
    """A photograph-like 64-pixel JPEG of about 2 KB: smooth light with texture."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 255, (5, 5, 3)).astype(np.uint8)).resize((SIDE, SIDE))
    pixels = np.asarray(coarse, np.int16) + generator.normal(0, 12, (SIDE, SIDE, 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def make(folder: Path, rows: int) -> None:
    """A workspace of `rows` samples with an index and an IL table of full size."""
    workspace = Workspace(folder)
    if workspace.exists("corpus.json"):
        return
    offsets, sizes = [], []
    with workspace.writing("shards/train-000000.tar") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(SHARD_ROWS):
            data = jpeg(number)
            info = tarfile.TarInfo(f"s{number}.jpg")
            info.size = len(data)
            offsets.append(tar.offset + tarfile.BLOCKSIZE)
            sizes.append(len(data))
            tar.addfile(info, io.BytesIO(data))
    shards = []
    classes = [f"class {i}" for i in range(14)]
    workspace.write_json("il/bench/model.json", {"classes": classes, "fingerprint": "bench"})
    made_of = {SHARD_DIGEST_KEY: b"", IL_MODEL_KEY: il_digest(workspace, "bench").encode()}
    labels = np.arange(SHARD_ROWS) % 14
    for number in range(-(-rows // SHARD_ROWS)):
        name = f"train-{number:06d}"
        if number:
            Path(workspace.path(f"shards/{name}.tar")).symlink_to("train-000000.tar")
        keys = [f"images-{row % 10}-{row % 100:02d}-{number:06d}-{row:08d}" for row in range(SHARD_ROWS)]
        constant = {"split": "train", "fold": -1, "shard": name, "ext": "jpg", "class": "Shirt",
                    "content_hash": "0" * 32, "width": SIDE, "height": SIDE}  # fmt: skip
        columns = {column: pa.repeat(pa.scalar(value, SAMPLES.field(column).type), SHARD_ROWS)
                   for column, value in constant.items()}  # fmt: skip
        columns |= {"key": keys, "source": keys, "row": range(SHARD_ROWS), "offset": offsets, "size": sizes,
                    "label": labels}  # fmt: skip
        workspace.write_table(f"index/{name}.parquet", pa.table({c: columns[c] for c in SAMPLES.names}, SAMPLES))
        losses = np.random.default_rng(number).gamma(1.0, 1.0, SHARD_ROWS)
        scores = {"il_model": ["bench"] * SHARD_ROWS, "key": keys, "shard": [name] * SHARD_ROWS,
                  "row": range(SHARD_ROWS), "label": labels, "il": losses, "predicted": labels,
                  "confidence": [0.9] * SHARD_ROWS, "in_sample": [False] * SHARD_ROWS}  # fmt: skip
        workspace.write_table(f"il/bench/scores/{name}.parquet", pa.table(scores, IL.with_metadata(made_of)))
        shards.append({"name": name, "split": "train", "fold": -1, "rows": SHARD_ROWS, "digest": ""})
    workspace.write_json("corpus.json", {"manifest": {"image": {"size": SIDE}}, "classes": classes, "counts": {},
                                         "shards": shards, "fingerprint": "bench"})  # fmt: skip


def measure(folder: Path, super_batches: int) -> dict[str, float]:
    """Stream, with the clock on the join."""
    spent = 0.0
    plain = RowAlignedTable.join

    def timed(table, rows):  # type: ignore[no-untyped-def]
        nonlocal spent
        begin = time.thread_time()
        try:
            return plain(table, rows)
        finally:
            spent += time.thread_time() - begin

    RowAlignedTable.join = timed  # type: ignore[method-assign]
    begin = time.perf_counter()
    stream = CandidateStream(folder, il="bench", super_batch_size=320, seed=1)
    candidates, first = 0, 0.0
    for number, batch in enumerate(stream, start=1):
        first = first or time.perf_counter() - begin
        candidates += len(batch)
        if number == super_batches:
            break
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    # A block of 8 shards is joined as a whole; charge this stream with the part of it that it has used.
    used = min(1.0, candidates / sum(shard.rows for shard in CorpusCard.read(Workspace(folder)).shards[:8]))
    seconds = time.perf_counter() - begin
    return {
        "candidates_per_second": candidates / seconds,
        "seconds_to_first_super_batch": first,
        "join_share_of_cpu": spent * used / cpu,
        "join_microseconds_per_candidate": spent / 8 / SHARD_ROWS * 1e6,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--super-batches", type=int, default=200)
    parser.add_argument("--workspaces", default="workspaces/join")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Path(arguments.measure), arguments.super_batches)))
        return
    for rows in arguments.rows:
        folder = Path(arguments.workspaces) / str(rows)
        make(folder, rows)
        command = [sys.executable, __file__, "--measure", str(folder), "--super-batches", str(arguments.super_batches)]
        print(rows, "rows:", subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())


if __name__ == "__main__":
    main()
