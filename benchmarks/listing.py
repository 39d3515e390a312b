"""What a corpus of a billion samples asks of one process: to list it, and to open a stream over it.

    python benchmarks/listing.py --entries 1000000 4000000 --rows 100000000 1000000000 10000000000

Lists synthetic corpora of so many entries, each in a process of its own: keys, duplicates, seeded order and units, as
`rho shards` does before it reads an image; no image is read here, as they would take a hundred times as long. Then
opens a stream, joined with an IL table, over an index of so many rows in shards of 10,000 (see join.py, whose
workspaces these are), and takes its first super-batch of 320.

Beyond 10^9 rows only those shards have files that are read meanwhile, which spares millions of links.

Expected: some 20 CPU-seconds and 150 bytes of scratch space for a million entries, within 500 MB whatever their
number; the first super-batch within 2 s of opening, and 1 GB, at a billion rows. Half an hour, mostly for 10^7 entries.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rhostream.loaders.index import ShardList
from rhostream.loaders.stream.order import EpochOrder, Order
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.shards.listing import list_entries
from rhostream.pipeline.shards.scratch import Scratch

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))
from usage import cpu_seconds, memory_mb

CLASSES = 14
UNIT_SIZE = 10_000
SEED = 1  # of the order
MOST_WITH_FILES = 1_000_000_000  # rows; of more, only the shards of the first blocks have files


def entries(count: int) -> Iterator[Entry]:
    """Distinct sources as Clothing-1M names them, but for one in 1,000 that comes twice."""
    for number in range(count):
        known = number - number // 1000 if number % 1000 == 999 else number
        source = f"images/{known % 10}/{known % 100:02d}/{known},{known * 31 % 1_000_003}.jpg"
        yield Entry(source=source, label=number % CLASSES)


def measure_listing(count: int, folder: Path) -> dict[str, float]:
    before = _forget_peak_mb()
    begin, cpu = time.perf_counter(), cpu_seconds()
    scratch = Scratch(folder)
    listing = list_entries(entries(count), scratch, classes=CLASSES, seed=0, unit_size=UNIT_SIZE)
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert listing.entries == count, (listing.entries, count)
    assert sum(len(listing.unit(number)) for number in (0, listing.units - 1)) <= 2 * UNIT_SIZE
    scratch.remove()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "cpu_microseconds_an_entry": cpu / count * 1e6,
        "memory_before_mb": before,
        "peak_memory_mb": memory_mb("VmHWM"),
        "bytes_an_entry": size / count,
        "units": listing.units,
        "refused": sum(number for number, _ in listing.refused.values()),
    }


def measure_opening(folder: Path) -> dict[str, float]:
    from rhostream.loaders.stream.candidate_stream import CandidateStream

    before = _forget_peak_mb()
    begin, cpu = time.perf_counter(), time.process_time()
    stream = CandidateStream(folder, il="bench", super_batch_size=320, seed=SEED)
    opened = time.perf_counter() - begin
    batch = next(iter(stream))
    assert len(batch) == 320
    return {
        "seconds_to_open": opened,
        "seconds_to_first_super_batch": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - cpu,
        "shards": len(stream.shards),
        "memory_before_mb": before,
        "peak_memory_mb": memory_mb("VmHWM"),
    }


def first_blocks(shards: ShardList) -> list[int]:
    """Numbers of the shards of two blocks, all that a stream holds when it has given its first super-batch."""
    order = EpochOrder(shards.rows, 0, seed=SEED, block_shards=Order().block_shards)
    return [*order.shards_of(0), *order.shards_of(1)]


def _forget_peak_mb() -> float:
    """What is in memory now; the peak counts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_mb("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="*", default=[1_000_000, 4_000_000])
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000_000, 1_000_000_000, 10_000_000_000])
    parser.add_argument("--workspaces", type=Path, default=Path("workspaces/join"))
    parser.add_argument("--output", type=Path, help="a JSON file for the results; others of earlier calls stay in it")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, where = arguments.measure
        if what == "opening":
            print(json.dumps(measure_opening(Path(where))))
            return
        with tempfile.TemporaryDirectory(dir=where) as folder:
            print(json.dumps(measure_listing(int(what), Path(folder))))
        return
    found: dict[str, Any] = {"benchmark": "listing", "listing": {}, "opening": {}}
    if arguments.output and arguments.output.exists():
        found = json.loads(arguments.output.read_text())
    for count in arguments.entries:
        arguments.workspaces.mkdir(parents=True, exist_ok=True)
        found["listing"][str(count)] = _in_a_process(str(count), str(arguments.workspaces))
        print(count, "entries:", found["listing"][str(count)], flush=True)
    for rows in arguments.rows:
        from join import every_one, make  # here: PyTorch is no part of a listing

        folder = arguments.workspaces / str(rows)
        make(folder, rows, first_blocks if rows > MOST_WITH_FILES else every_one)
        # Of three: what the disk has not read yet is not what is measured.
        tried = [_in_a_process("opening", str(folder)) for _ in range(3)]
        found["opening"][str(rows)] = sorted(tried, key=lambda each: each["seconds_to_first_super_batch"])[1]
        print(rows, "rows:", found["opening"][str(rows)], flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n")


def _in_a_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


if __name__ == "__main__":
    main()
