"""What reads each artifact of a `SmallWorkspace`, and answers with what it read."""

import hashlib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import torch

from helpers.small_workspace import RUNS, STEPS, SmallWorkspace
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.reference.il_table import open_il_table
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.metadata import ILMetadata
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.models.registry import build_model
from rhostream.pipeline.shards.clean_list import read_clean_list
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.run import Run
from rhostream.selection.ledger.history import update_history


def _files(folder: Path) -> dict[str, str]:
    """Digests by name, of all that must be byte for byte the same whenever it was made."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and "costs" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _tensors(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return hashlib.sha256(state.detach().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(state, dict):
        return {key: _tensors(value) for key, value in state.items()}
    return [_tensors(value) for value in state] if isinstance(state, (list, tuple)) else repr(state)


def _stream(place: SmallWorkspace, workspace: Workspace | None = None, **settings: Any) -> Any:
    stream = CandidateStream(
        workspace or place.workspace, super_batch_size=12, read_options=ReadOptions(workers=0, threads=1), **settings
    )
    return [
        (
            list(batch.keys),
            batch.candidates.labels.tolist(),
            None if batch.il is None else batch.il.tolist(),
            {name: _tensors(values) for name, values in batch.fields.items()},
            list(batch.passed_over.keys),
        )
        for batch in stream
    ]


def _view(name: str) -> "Reader":
    return lambda place: query(place.workspace, f"FROM {name} ORDER BY ALL").to_pylist()


def _made_again(folder: str, patterns: tuple[str, ...], make: "Reader") -> "Reader":
    def read(place: SmallWorkspace) -> Any:
        make(place)
        found = _files(place.folder / folder)
        return {name: found[name] for name in found if any(fnmatch(name, pattern) for pattern in patterns)}

    return read


def _il_model(place: SmallWorkspace) -> Any:
    metadata = ILMetadata.read(place.workspace, "mlp")
    return [_tensors(metadata.load(place.workspace, weights).state_dict()) for weights in metadata.models]


def _resumed(place: SmallWorkspace) -> Any:
    """Both runs, a little longer; measured times are no part of the answer."""
    for select in RUNS:
        train(place.workspace, place.run(select, STEPS + 2))
    losses = query(place.workspace, "SELECT run, step, key, loss, il, selected FROM ledger ORDER BY ALL").to_pylist()
    return losses, [_files(place.folder / f"w/runs/{run}/history") for run in RUNS]


def _foreign(place: SmallWorkspace) -> Any:
    corpus = CorpusMetadata.read(place.workspace)
    table = open_il_table(place.workspace, corpus, str(place.folder / "il.parquet"))
    rows = [read_shard_rows(place.workspace, shard) for shard in corpus.split("train")]
    joined = [table.join(part) for part in rows]
    return [(part.il.tolist(), part.predicted.tolist()) for part in joined]


def _weights(place: SmallWorkspace) -> Any:
    path = str(place.folder / "weights.safetensors")
    return _tensors(build_model("mlp", 3, ImageSpec(size=16), seed=0, weights=path).state_dict())


def _history(place: SmallWorkspace) -> Any:
    for run in RUNS:
        update_history(place.workspace, run, 0)
    return [_files(place.folder / f"w/runs/{run}/history") for run in RUNS]


Reader = Callable[[SmallWorkspace], Any]

#: What `rho shards` makes.
_OF_SHARDS: Final = ("corpus.json", "shards/*", "index/*", "rejects/*")

READERS: Final[dict[str, Reader]] = {
    "stream": lambda place: _stream(place, il="mlp"),
    "stream of thumbnails": lambda place: _stream(place, il="mlp", thumbnails="8-jpeg"),
    "stream of a core set": lambda place: _stream(place, core_set="svp"),
    "stream of indexed tars": lambda place: _stream(place, place.indexed),
    "stream with a Parquet of IL": lambda place: _stream(place, il=str(place.folder / "il.parquet")),
    "rho status": lambda place: place.cli("status", "--json"),
    **{f"rho query {view}": _view(view) for view in ("samples", "rejects", "il", "core_sets", "ledger", "history")},
    "rho query metrics": _view("metrics"),
    "rho explain reasons": lambda place: place.cli("explain", "reasons", "--run", "rho_loss", "--format", "json"),
    "rho explain mislabeled": lambda place: place.cli("explain", "mislabeled", "--format", "json"),
    "rho explain run": lambda place: place.cli("explain", "run", "--run", "rho_loss", "--format", "json"),
    "rho shards, again": _made_again(
        "w", _OF_SHARDS, lambda place: write_shards(place.workspace, place.manifest, workers=0)
    ),
    "rho index, again": _made_again("indexed", ("*",), lambda place: place.index()),
    "rho thumbnails, again": _made_again("w", ("thumbnails/*",), lambda place: place.thumbnails()),
    "rho il train, again": _made_again("w", ("il/mlp/model.*",), lambda place: place.il()),
    "rho il score, again": _made_again(
        "w", ("il/mlp/scores/*",), lambda place: score_il(place.workspace, ILScoreConfig(device="cpu"))
    ),
    "rho coreset, again": lambda place: write_core_set(place.workspace, CoreSetConfig(keep=0.8)),
    "rho train, longer": _resumed,
    "checkpoint": lambda place: [
        _tensors(Run(place.workspace, run).load_checkpoint(kept=lambda step: True)) for run in RUNS
    ],
    "metrics of a run": lambda place: [Run(place.workspace, run).metrics for run in RUNS],
    "history": _history,
    "IL model": _il_model,
    "IL table of a Parquet": _foreign,
    "clean list": lambda place: read_clean_list(str(place.folder / "clean.parquet")).to_pylist(),
    "weights": _weights,
}

_STREAMS: Final = ("stream", "stream of thumbnails", "stream of a core set")
_EXPLAIN: Final = ("rho explain reasons", "rho explain mislabeled", "rho explain run")

#: What reads each artifact.
READ_BY: Final[dict[str, tuple[str, ...]]] = {
    "w/corpus.json": (*_STREAMS, "rho status", "rho shards, again", "rho il score, again", "rho train, longer"),
    "w/index/*": (*_STREAMS, *_EXPLAIN, "rho query samples", "rho shards, again", "rho il score, again"),
    "w/shards/*": (*_STREAMS, "rho shards, again", "stream of indexed tars"),
    "w/rejects/*": ("rho query rejects", "rho shards, again"),
    "w/thumbnails/*/thumbnails.json": ("stream of thumbnails", "rho thumbnails, again"),
    "w/thumbnails/*/index/*": ("stream of thumbnails", "rho thumbnails, again"),
    "w/thumbnails/*/shards/*": ("stream of thumbnails",),
    "w/il/*/model.json": ("stream", "IL model", "rho il train, again", "rho il score, again", "rho coreset, again"),
    "w/il/*/model.safetensors": ("IL model",),
    "w/il/*/scores/*": ("stream", "rho query il", *_EXPLAIN, "rho il score, again", "rho coreset, again"),
    "w/il/*/costs/*": ("rho il train, again",),
    "w/core_sets/*/core_set.json": ("stream of a core set", "rho coreset, again"),
    "w/core_sets/*/rows/*": ("stream of a core set", "rho query core_sets"),
    "w/runs/*/run.json": ("rho status", *_EXPLAIN, "rho train, longer"),
    "w/runs/*/metrics.jsonl": ("rho status", "rho query metrics", "metrics of a run", "rho train, longer"),
    "w/runs/*/ledger/*": ("rho query ledger", "history", "rho train, longer"),
    "w/runs/*/history/*": ("rho query history", *_EXPLAIN, "history"),
    "w/runs/*/checkpoints/*": ("checkpoint", "rho train, longer"),
    "indexed/corpus.json": ("stream of indexed tars",),
    "indexed/index/*": ("stream of indexed tars", "rho index, again"),
    "indexed/scans/*": ("rho index, again",),
    "il.parquet": ("IL table of a Parquet", "stream with a Parquet of IL"),
    "clean.parquet": ("clean list",),
    "weights.safetensors": ("weights",),
}
