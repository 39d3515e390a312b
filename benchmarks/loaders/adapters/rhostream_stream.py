"""This package's CandidateStream, joined with an IL table, at its default settings.

The variants that end in "+32" also give the 32 selected of each super-batch at full size.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from corpus import SIDE, Batch

from rhostream.loaders.index.corpus_metadata import IL_MODEL_KEY, SHARD_DIGEST_KEY, CorpusMetadata, read_shard_rows
from rhostream.loaders.index.thumbnails import ThumbnailFormat
from rhostream.loaders.reference.il_table import il_digest, open_il_table
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.schema import IL

VARIANTS = ("full", "64-jpeg", "64-raw", "full+32", "64-jpeg+32", "64-raw+32")
WORKERS = (0,)

_IL = "bench"
_SELECTED = 32
_FORMATS: tuple[ThumbnailFormat, ...] = ("jpeg", "raw")


def prepare(images: Path, folder: Path) -> None:
    """Shards, two thumbnails, and an IL table of the size of a real one (its losses are random)."""
    manifest = Manifest(
        name="photographs", format="imagefolder", root=str(images), folds=2, holdout=0.0, image={"size": SIDE}
    )
    workspace = Workspace(folder)
    write_shards(workspace, manifest)
    for form in _FORMATS:
        write_thumbnails(workspace, ThumbnailsConfig(size=64, format=form))
    metadata = CorpusMetadata.read(workspace)
    model = {"classes": metadata.classes, "fingerprint": metadata.fingerprint}
    workspace.write_json(f"il/{_IL}/model.json", model)
    for shard in metadata.split("train"):
        rows = read_shard_rows(workspace, shard)
        count = len(rows)
        losses = np.random.default_rng(count).gamma(1.0, 1.0, count)
        columns = {
            "il_model": [_IL] * count,
            "key": rows.keys,
            "shard": [shard.name] * count,
            "row": range(count),
            "label": rows.labels,
            "il": losses,
            "predicted": rows.labels,
            "confidence": [0.9] * count,
            "entropy": [0.3] * count,
            "in_sample": [False] * count,
        }
        made_of = {SHARD_DIGEST_KEY: shard.digest.encode(), IL_MODEL_KEY: il_digest(workspace, _IL).encode()}
        workspace.write_table(shard.scores(_IL), pa.table(columns, IL.with_metadata(made_of)))


def stream(folder: Path, variant: str) -> CandidateStream:
    spec = variant.removesuffix("+32")
    return CandidateStream(folder, il=_IL, thumbnails=None if spec == "full" else spec)


def join_microseconds(folder: Path) -> float:
    """CPU time of reading IL parts and comparing their keys, per candidate."""
    workspace = Workspace(folder)
    metadata = CorpusMetadata.read(workspace)
    table = open_il_table(workspace, metadata, _IL)
    parts = [read_shard_rows(workspace, shard) for shard in metadata.split("train")]
    begin = time.process_time()
    for _ in range(10):
        for part in parts:
            table.join(part)
    return (time.process_time() - begin) / (10 * sum(len(part) for part in parts)) * 1e6


def batches(folder: Path, variant: str, workers: int) -> Iterator[Batch]:
    candidates = stream(folder, variant)
    chosen = np.random.default_rng(0)
    while True:
        for batch in candidates:
            if not variant.endswith("+32"):
                yield batch.images, batch.labels
                continue
            positions = chosen.permutation(len(batch))[:_SELECTED].astype(np.int64)
            if batch.full is None:
                images = batch.images[torch.from_numpy(positions)]
            else:
                pixels, failures = batch.full.submit(positions).result()
                if failures:
                    raise SystemExit(f"images of a whole corpus failed to decode: {failures}")
                images = torch.from_numpy(pixels)
            yield images, batch.labels[torch.from_numpy(positions)]
