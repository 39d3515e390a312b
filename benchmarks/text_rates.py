"""Tokenized texts that a CPU-second reads: our stream, joined with an IL table, beside Hugging Face's `datasets`.

    python benchmarks/text_rates.py --texts data/text/sst2

needs `datasets` (`pip install datasets==5.2.0`). The corpus is SST-2, a tenth of it the holdout; its training texts are
tokenized once, by `rho tokenize`, and the very ids with their labels are written by `save_to_disk`, too. Every reader
gives them in random order, 320 at a time:

- the stream: tensors of token ids, padded, with masks and labels, each row joined with its key and irreducible loss,
  another order in every epoch, from any super-batch of which it could be resumed;
- `datasets`: the columns as they come, as lists or as Arrow, of `Dataset.shuffle`, or by torch's DataLoader; and the
  same padded to tensors as the stream's are.

One process without workers for each, one thread each; what is counted is user and system time of that process, so that
other work on the machine matters little. Five rounds, in each of which all are measured by turns; the ratio is that of
the medians. Expected: the table of docs/texts.md. About three CPU-minutes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from machine import machine

OUTPUT = Path(__file__).parent / "results" / "text_rates.json"
BATCH: Final = 320
LENGTH: Final = 48  # tokens of a text, at most
OURS: Final = "rhostream"


def prepare(texts: Path, folder: Path) -> None:
    """A workspace with tokens and an IL table, and the same rows as `datasets` stores them."""
    import datasets

    from rhostream.loaders import TextSpec, Workspace
    from rhostream.loaders.index import CorpusMetadata, read_shard_rows
    from rhostream.loaders.index.tokens import read_tokens, tokens_name
    from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig, TokenizeConfig, resolve_manifest
    from rhostream.pipeline.il import score_il, train_il
    from rhostream.pipeline.shards import write_shards
    from rhostream.pipeline.tokens import write_tokens

    options = {"file": "*.tsv", "quotes": False, "text_column": "sentence", "file_splits": {"dev.tsv": "test"}}
    asked = {"name": "sst2", "format": "table", "root": str(texts), "holdout": 0.1, "options": options}
    asked["text"] = {"length": LENGTH}
    workspace = Workspace(folder / "workspace")
    write_shards(workspace, resolve_manifest(("benchmark", asked)), workers=0)
    write_tokens(workspace, TokenizeConfig(workers=0))
    train_il(workspace, ILTrainConfig(model="bag_of_ngrams", name="il", steps=50, threads=1))
    score_il(workspace, ILScoreConfig(name="il", threads=1))
    ids, labels = list[list[int]](), list[int]()
    for shard in CorpusMetadata.read(workspace).split("train"):
        rows = read_shard_rows(workspace, shard)
        ids += read_tokens(workspace, tokens_name(TextSpec(length=LENGTH)), rows).to_pylist()
        labels += rows.labels.tolist()
    features = {"input_ids": datasets.List(datasets.Value("int32")), "label": datasets.Value("int64")}
    stored = datasets.Dataset.from_dict({"input_ids": ids, "label": labels}, datasets.Features(features))
    stored.save_to_disk(str(folder / "datasets"))


def ours(folder: Path) -> Iterator[int]:
    from rhostream.loaders import CandidateStream, ReadOptions

    options = ReadOptions(threads=1, workers=0)
    stream = CandidateStream(folder / "workspace", il="il", super_batch_size=BATCH, read_options=options)
    while True:
        for batch in stream:
            given = batch.normalized()
            assert given.fields["attention_mask"].shape == given.fields["input_ids"].shape
            assert batch.il is not None
            yield len(given)


def rows_of(folder: Path, form: str | None) -> Iterator[Any]:
    """Rows of `datasets` in another order every epoch."""
    import datasets

    dataset = datasets.load_from_disk(str(folder / "datasets"))
    epoch = 0
    while True:
        yield from dataset.shuffle(seed=epoch).with_format(form).iter(BATCH, drop_last_batch=True)
        epoch += 1


def loaded(folder: Path, collate: Callable[[list[dict[str, Any]]], Any]) -> Iterator[Any]:
    """The same by torch's DataLoader."""
    import datasets
    from torch.utils.data import DataLoader

    dataset: Any = datasets.load_from_disk(str(folder / "datasets"))
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, collate_fn=collate)
    while True:
        yield from loader


def padded(ids: Any, labels: Any) -> int:
    """What a model takes, of lists of ids."""
    lengths = [len(each) for each in ids]
    longest = max(lengths)
    tokens = torch.tensor([[*each, *[0] * (longest - len(each))] for each in ids])
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    assert tokens.shape == mask.long().shape
    return len(torch.tensor(labels))


def padded_arrow(batch: Any) -> int:
    """The same of Arrow, without a Python object for each number."""
    ids = batch.column("input_ids").combine_chunks()
    lengths = np.diff(ids.offsets.to_numpy())
    there = np.arange(int(lengths.max())) < lengths[:, None]
    tokens = np.zeros(there.shape, np.int64)
    tokens[there] = ids.flatten().to_numpy()
    given, mask = torch.from_numpy(tokens), torch.from_numpy(there).long()
    assert given.shape == mask.shape
    return len(torch.from_numpy(batch.column("label").to_numpy()))


def of_rows(rows: list[dict[str, Any]]) -> int:
    return padded([row["input_ids"] for row in rows], [row["label"] for row in rows])


#: Each gives the number of texts of one batch after another.
READERS: Final[dict[str, Callable[[Path], Iterator[int]]]] = {
    OURS: ours,
    "shuffle, lists": lambda folder: (len(batch["label"]) for batch in rows_of(folder, None)),
    "shuffle, lists, padded": lambda folder: (padded(**_named(batch)) for batch in rows_of(folder, None)),
    "shuffle, Arrow": lambda folder: (len(batch) for batch in rows_of(folder, "arrow")),
    "shuffle, Arrow, padded": lambda folder: map(padded_arrow, rows_of(folder, "arrow")),
    "DataLoader, lists": lambda folder: loaded(folder, len),
    "DataLoader, lists, padded": lambda folder: loaded(folder, of_rows),
}


def _named(batch: dict[str, Any]) -> dict[str, Any]:
    return {"ids": batch["input_ids"], "labels": batch["label"]}


def measured(reader: str, folder: Path, seconds: float) -> dict[str, Any]:
    """Texts per CPU-second, after a first epoch's beginning."""
    torch.set_num_threads(1)
    batches = READERS[reader](folder)
    for _ in range(10):
        next(batches)
    begun, texts = _cpu_seconds(), 0
    while (spent := _cpu_seconds() - begun) < seconds:
        texts += next(batches)
    return {"texts": texts, "cpu_seconds": spent, "rate": texts / spent}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="folder with SST-2's train.tsv and dev.tsv")
    parser.add_argument("--seconds", type=float, default=4.0, help="of CPU, for each in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reader", choices=[*READERS], help="measure this one here, and print it")
    parser.add_argument("--folder", type=Path, help="of what is prepared, with --reader")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    if asked.reader:
        print(json.dumps(measured(asked.reader, asked.folder, asked.seconds)))
        return
    rates: dict[str, list[float]] = {reader: [] for reader in READERS}
    with tempfile.TemporaryDirectory() as folder:
        prepare(asked.texts, Path(folder))
        for _ in range(asked.rounds):
            for reader in READERS:
                command = [sys.executable, __file__, "--folder", folder, "--reader", reader]
                command += ["--seconds", str(asked.seconds)]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                rates[reader].append(json.loads(done.stdout.splitlines()[-1])["rate"])
                print(reader, round(rates[reader][-1]), flush=True)
    readers = [{"reader": name, "rate": median(found), "rounds": found} for name, found in rates.items()]
    result = {"benchmark": "text_rates", "machine": machine(), "batch": BATCH, "readers": readers}
    asked.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
