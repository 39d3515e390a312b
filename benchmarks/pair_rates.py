"""Pairs that a CPU-second reads: our stream, webdataset, and open_clip's own pipeline on the same tars.

    python ../shared/data/pairs/unpack_pairs.py fashion PAIRS
    python benchmarks/pair_rates.py PAIRS=32 ../shared/data/img2dataset=224

Each FOLDER=SIZE holds tars of `.jpg` and `.txt`, as img2dataset writes them; the images are decoded, resized and
cropped to SIZE pixels, normalized, and the captions tokenized. All but open_clip's shuffle, all give batches of 64 in
float32, in one process without workers, one thread each; what is counted is user and system time of that process, so
that other work on the machine matters little. Ours reads an index of the same tars (`rho index`), by the tokenizer
that the others have, and by the built-in one; webdataset's recipe is the one of its documentation, with torchvision's
transforms; open_clip's is `open_clip_train.data.get_wds_dataset` with its `image_transform`, as for validation: for
training it reads no tars with the newest webdataset.

What the output holds of other folders is kept. Expected: the table of docs/pairs.md. About three CPU-minutes.
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
from typing import Any, Final

import torch
from machine import machine

OUTPUT = Path(__file__).parent / "results" / "pair_rates.json"
BATCH: Final = 64
#: A batch: images float32 (n, 3, size, size) and the tokens.
Batches = Iterator[tuple[torch.Tensor, Any]]


def ours(tars: list[str], size: int, *, words: bool) -> Batches:
    from rhostream.loaders import CandidateStream, ImageSpec, ReadOptions, TextSpec, Workspace
    from rhostream.pipeline.config import Manifest
    from rhostream.pipeline.in_place import index_tars

    text = TextSpec(length=77) if words else TextSpec(tokenizer=_ids, length=77, vocabulary=49_408)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(f"{folder}/workspace")
        manifest = Manifest(name="rates", format="webdataset", task="pairs", holdout=0.01)
        index_tars(workspace, tars, manifest, workers=0)
        stream = CandidateStream(
            workspace,
            super_batch_size=BATCH,
            spec=ImageSpec(size=size),
            text_spec=text,
            read_options=ReadOptions(threads=1, workers=0),
        )
        while True:
            for batch in stream:
                given = batch.normalized()
                yield given.images, given.tokens


def _ids(texts: list[str]) -> list[list[int]]:
    from open_clip.tokenizer import SimpleTokenizer

    global _TOKENIZER
    _TOKENIZER = _TOKENIZER or SimpleTokenizer()
    return [[_TOKENIZER.sot_token_id, *_TOKENIZER.encode(text)[:75], _TOKENIZER.eot_token_id] for text in texts]


_TOKENIZER: Any = None


def webdataset(tars: list[str], size: int) -> Batches:
    import webdataset as wds
    from open_clip.tokenizer import SimpleTokenizer
    from torchvision import transforms

    prepared = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.48, 0.46, 0.41), (0.27, 0.26, 0.28)),
        ]
    )
    tokenizer = SimpleTokenizer()
    dataset = (
        wds.WebDataset(tars, shardshuffle=100)
        .shuffle(1000)
        .decode("pilrgb")
        .to_tuple("jpg;png;webp", "txt")
        .map_tuple(prepared, lambda text: tokenizer(text)[0])
        .batched(BATCH, partial=False)
    )
    while True:
        yield from dataset


def open_clip(tars: list[str], size: int) -> Batches:
    from open_clip import image_transform
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip_train.data import get_wds_dataset

    options = argparse.Namespace(
        val_data="::".join(tars),
        val_num_samples=None,
        train_data_upsampling_factors=None,
        batch_size=BATCH,
        world_size=1,
        workers=0,
        seed=0,
    )
    prepared = image_transform(size, is_train=False)
    # Its training pipeline reads no tars with the newest webdataset; this one is the same but for the shuffling.
    loader: Any = get_wds_dataset(options, prepared, is_train=False, tokenizer=SimpleTokenizer())
    while True:
        yield from loader.dataloader


READERS: Final[dict[str, Callable[[list[str], int], Batches]]] = {
    "rhostream": lambda tars, size: ours(tars, size, words=False),
    "rhostream, its own words": lambda tars, size: ours(tars, size, words=True),
    "webdataset": webdataset,
    "open_clip": open_clip,
}


def measured(reader: str, folder: str, size: int, seconds: float) -> dict[str, Any]:
    """Pairs per CPU-second, after a first batch."""
    torch.set_num_threads(1)
    batches = READERS[reader](sorted(str(tar) for tar in Path(folder).glob("*.tar")), size)
    images, _ = next(batches)
    assert images.shape[1:] == (3, size, size)
    assert images.dtype == torch.float32
    begun, pairs = _cpu_seconds(), 0
    while (spent := _cpu_seconds() - begun) < seconds:
        pairs += len(next(batches)[0])
    return {"reader": reader, "pairs": pairs, "cpu_seconds": spent, "rate": pairs / spent}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER=SIZE")
    parser.add_argument("--seconds", type=float, default=8.0, help="of CPU, for each")
    parser.add_argument("--reader", choices=[*READERS], help="measure this one here, and print it")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()
    places = [(folder, int(size)) for folder, _, size in (each.rpartition("=") for each in asked.folders)]
    if asked.reader:
        print(json.dumps(measured(asked.reader, *places[0], asked.seconds)))
        return
    before = json.loads(asked.output.read_text())["corpora"] if asked.output.exists() else []
    corpora = {corpus["corpus"]: corpus for corpus in before}
    for folder, size in places:
        rows = []
        for reader in READERS:
            command = [
                sys.executable,
                __file__,
                f"{folder}={size}",
                "--reader",
                reader,
                "--seconds",
                str(asked.seconds),
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(Path(folder).name, rows[-1], flush=True)
        corpora[Path(folder).name] = {"corpus": Path(folder).name, "size": size, "readers": rows}
    found = {"benchmark": "pair_rates", "machine": machine(), "batch": BATCH, "corpora": [*corpora.values()]}
    asked.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
