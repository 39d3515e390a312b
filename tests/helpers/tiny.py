"""A tiny workspace written directly in the promised format: real tars of real PNGs, index, IL table."""

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from helpers.made_once import made_once
from rhostream.loaders.index.corpus_metadata import IL_MODEL_KEY, SHARD_DIGEST_KEY, CorpusMetadata
from rhostream.loaders.index.shard_list import Shard, ShardList
from rhostream.loaders.storage.workspace import Workspace
from rhostream.schema import IL, SAMPLES

CLASSES = ("coat", "dress", "vest")


def image_of(number: int, label: int, side: int = 8) -> bytes:
    """A PNG whose first pixel encodes the sample's number, and whose brightness tells its class."""
    pixels = np.random.default_rng(number).integers(0, 60, (side, side, 3)).astype(np.uint8)
    pixels += np.uint8(80 * label)
    pixels[0, 0] = (number // 256 % 256, number % 256, label)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@made_once
def write_workspace(folder: Path, shard_rows: Sequence[int], test_rows: int = 0, side: int = 8) -> Workspace:
    """Train shards of so many rows each (and one test shard); the key of sample i is "s<i>"."""
    workspace = Workspace(folder)
    shards, number = [], 0
    plan = [("train", f"train-{i:06d}", rows) for i, rows in enumerate(shard_rows)]
    plan += [("test", "test-000000", test_rows)] if test_rows else []
    for split, name, rows in plan:
        members = []
        with workspace.writing(f"shards/{name}.tar") as stream, tarfile.open(fileobj=stream, mode="w") as tar:
            for row in range(rows):
                label = (number * 7 + number // 3) % 3
                data = image_of(number, label, side)
                offset = tar.offset + 512
                info = tarfile.TarInfo(f"s{number}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                members.append(
                    {
                        "key": f"s{number}",
                        "split": split,
                        "fold": -1,
                        "shard": name,
                        "row": row,
                        "offset": offset,
                        "size": len(data),
                        "ext": "png",
                        "label": label,
                        "class": CLASSES[label],
                        "source": f"{number}.png",
                        "content_hash": hashlib.sha256(data).hexdigest()[:32],
                        "width": side,
                        "height": side,
                    }
                )
                number += 1
        described = SAMPLES.with_metadata({SHARD_DIGEST_KEY: name.encode()})
        workspace.write_table(f"index/{name}.parquet", pa.Table.from_pylist(members, described))
        shards.append(Shard(name=name, split=split, fold=-1, rows=rows, digest=name))
    workspace.write_json(
        "corpus.json",
        {
            "manifest": {"image": {"size": side}, "il": {}, "train": {}},
            "classes": list(CLASSES),
            "counts": {"entries": number, "samples": number, "rejects": 0},
            "shards": [asdict(shard) for shard in shards],
            "fingerprint": ShardList.of(shards).fingerprint(),
        },
    )
    return workspace


def write_corpus_card(workspace: Workspace, corpus: dict[str, Any]) -> None:
    """Write `corpus.json` with the fingerprint of the shards that it lists."""
    shards = [Shard(**shard) for shard in corpus["shards"]]
    workspace.write_json("corpus.json", corpus | {"fingerprint": ShardList.of(shards).fingerprint()})


def another_split(workspace: Workspace) -> None:
    """As if the corpus had been split anew: its last shard holds other samples, and nothing else has changed."""
    corpus = workspace.read_json("corpus.json")
    *shards, last = corpus["shards"]
    write_corpus_card(workspace, corpus | {"shards": [*shards, last | {"digest": "another"}]})


def rewrite_shard(workspace: Workspace, name: str, digest: str) -> None:
    """As if the shard had been made anew with other labels or images: corpus.json and its index tell another digest.

    What was made of the corpus as a whole tells of the new one, so that its part of this shard alone is out of date.
    """
    corpus = workspace.read_json("corpus.json")
    shards = [shard | {"digest": digest} if shard["name"] == name else shard for shard in corpus["shards"]]
    write_corpus_card(workspace, corpus | {"shards": shards})
    index = f"index/{name}.parquet"
    stamped = workspace.read_table(index).replace_schema_metadata({SHARD_DIGEST_KEY: digest.encode()})
    workspace.write_table(index, stamped)
    now = CorpusMetadata.read(workspace).fingerprint
    for card in ("il/*/model.json", "core_sets/*/core_set.json", "thumbnails/*/thumbnails.json"):
        for path in Path(workspace.root).glob(card):
            name = path.relative_to(workspace.root).as_posix()
            workspace.write_json(name, workspace.read_json(name) | {"fingerprint": now})
    for path in Path(workspace.root).glob("il/*/scores/*.parquet"):
        part, model = path.relative_to(workspace.root).as_posix(), path.parents[1] / "model.json"
        table = workspace.read_table(part)
        digest = hashlib.sha256(model.read_bytes()).hexdigest().encode()
        metadata = {**(table.schema.metadata or {}), IL_MODEL_KEY: digest}
        workspace.write_table(part, table.replace_schema_metadata(metadata))


def il_of(number: int) -> float:
    """The irreducible loss that `write_il` gives to sample "s<number>"."""
    return number / 100


def write_il(workspace: Workspace, name: str = "strided_cnn", predicted: int | None = None) -> None:
    """An IL table for the train shards; the IL model predicts the label, or `predicted` for all."""
    corpus = CorpusMetadata.read(workspace)
    workspace.write_json(f"il/{name}/model.json", {"classes": list(corpus.classes), "fingerprint": corpus.fingerprint})
    for shard in corpus.split("train"):
        rows = workspace.read_table(shard.index, ["key", "shard", "row", "label"]).to_pylist()
        for row in rows:
            row |= {
                "il_model": name,
                "il": il_of(int(row["key"][1:])),
                "confidence": 0.9,
                "entropy": 0.3,
                "in_sample": False,
                "predicted": row["label"] if predicted is None else predicted,
            }
        model = hashlib.sha256(workspace.read_bytes(f"il/{name}/model.json")).hexdigest()
        made_of = {SHARD_DIGEST_KEY: shard.digest.encode(), IL_MODEL_KEY: model.encode()}
        workspace.write_table(shard.scores(name), pa.Table.from_pylist(rows, IL.with_metadata(made_of)))
