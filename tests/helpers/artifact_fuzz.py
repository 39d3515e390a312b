"""A seeded fuzz of artifacts: damage one of a small workspace, run a command that reads it, compare the answer.

A trial ends "told" (one line says what is wrong, or a warning does), "same" (the answer is that of the whole
workspace, or the command has made the artifact again byte for byte), or it has failed: "changed" without a message,
"traceback", or "hang".
"""

import hashlib
import json
import logging
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Literal

import click
import pyarrow as pa
import torch
from click.testing import CliRunner

from helpers.shards_corpus import manifest_of, write_corpus
from rhostream.cli.main import rho
from rhostream.errors import RhostreamError
from rhostream.loaders.decode.image_spec import ImageSpec
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, read_shard_rows
from rhostream.loaders.reference.il_table import open_il_table
from rhostream.loaders.storage.workspace import Workspace
from rhostream.loaders.stream.candidate_stream import CandidateStream
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.metadata import ILMetadata
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.models.registry import build_model
from rhostream.pipeline.shards.clean_list import CleanList
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.sql.database import query
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.run import Run
from rhostream.selection.ledger.history import update_history

Outcome = Literal["told", "same", "changed", "traceback", "hang"]
FAILURES: Final[tuple[Outcome, ...]] = ("changed", "traceback", "hang")
SECONDS: Final = 10  # after which a trial hangs

_IMAGES: Final = 72
_STEPS: Final = 4
_RUNS: Final = ("uniform", "rho_loss")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was done, and what came of it; `detail` is the message, or the last line of the traceback."""

    number: int
    artifact: str
    damage: str
    asked: str
    outcome: Outcome
    detail: str


class SmallWorkspace:
    """A workspace `w`, one that indexes its tars (`indexed`), an IL table, a clean list and weights of a user's.

    `fresh` puts everything back as it was.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._whole = folder / "place", folder / "whole"
        self.workspace = Workspace(self.folder / "w")
        self.indexed = Workspace(self.folder / "indexed")
        self.corpus = write_corpus(folder / "corpus", _IMAGES, [("gone.jpg", "cat")])
        self.manifest = manifest_of(self.corpus, shard_size=40, holdout=0.4, image={"size": 16})
        self._make()
        shutil.copytree(self.folder, self._whole)

    def _make(self) -> None:
        write_shards(self.workspace, self.manifest, workers=0)
        self.thumbnails()
        self.il()
        score_il(self.workspace, ILScoreConfig(device="cpu"))
        write_core_set(self.workspace, CoreSetConfig(keep=0.8))
        for select in _RUNS:
            train(self.workspace, self.run(select))
        self.index()
        rows = "SELECT key, il, predicted FROM il WHERE NOT in_sample"
        self.cli("query", rows, "--output", str(self.folder / "il.parquet"))
        listed = str(self.folder / "clean.parquet")
        self.cli("export", "list", "--max-drop-share", "1", "--output", listed)
        shutil.copy(self.workspace.path("runs/uniform/model.safetensors"), self.folder / "weights.safetensors")

    def run(self, select: str, steps: int = _STEPS) -> TrainConfig:
        return TrainConfig(
            model="mlp",
            select=select,
            steps=steps,
            batch_size=4,
            super_batch_size=12,
            schedule="constant",
            evaluate_every=2,
            workers="0",
            device="cpu",
        )

    def thumbnails(self) -> None:
        write_thumbnails(self.workspace, ThumbnailsConfig(size=8, workers=0))

    def il(self) -> None:
        train_il(self.workspace, ILTrainConfig(model="mlp", steps=4, device="cpu"))

    def index(self) -> None:
        manifest = manifest_of(Path(), format="webdataset", root="", holdout=0.4, image={"size": 16})
        index_tars(self.indexed, [self.workspace.path("shards")], manifest, workers=0)

    def fresh(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._whole, self.folder)

    def cli(self, *arguments: str) -> str:
        """What a command prints; raises what it fails with."""
        workspace = () if "--workspace" in arguments else ("--workspace", self.workspace.location)
        result = CliRunner().invoke(rho, [*arguments, *workspace], standalone_mode=False, catch_exceptions=False)
        if result.exit_code:
            raise click.ClickException(result.output)
        return result.stdout

    def artifacts(self) -> list[str]:
        names = [path.relative_to(self._whole).as_posix() for path in self._whole.rglob("*") if path.is_file()]
        return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in READ_BY))


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
    for select in _RUNS:
        train(place.workspace, place.run(select, _STEPS + 2))
    losses = query(place.workspace, "SELECT run, step, key, loss, il, selected FROM ledger ORDER BY ALL").to_pylist()
    return losses, [_files(place.folder / f"w/runs/{run}/history") for run in _RUNS]


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
    for run in _RUNS:
        update_history(place.workspace, run, 0)
    return [_files(place.folder / f"w/runs/{run}/history") for run in _RUNS]


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
        _tensors(Run(place.workspace, run).load_checkpoint(kept=lambda step: True)) for run in _RUNS
    ],
    "metrics of a run": lambda place: [Run(place.workspace, run).metrics for run in _RUNS],
    "history": _history,
    "IL model": _il_model,
    "IL table of a Parquet": _foreign,
    "clean list": lambda place: CleanList.read(str(place.folder / "clean.parquet")),
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

#: Of these nothing else tells what they hold, so that a file that was written by somebody, whole, is another answer:
#: no types are changed in them, no entry is taken out, and they are not put in each other's place.
_USERS: Final = ("il.parquet", "clean.parquet", "weights.safetensors")


def flip(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _flips(content: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(2, 20)):
        content = flip(content, chance)
    return content


def _truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _zeros(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    count = min(chance.choice((1, 16, 512)), len(content) - start)
    return content[:start] + bytes(count) + content[start + count :]


def _inserted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + chance.randbytes(chance.randrange(1, 64)) + content[at:]


def _cut(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randrange(1, 64) :]


def _repeated(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    piece = content[start : start + chance.randrange(1, 256)]
    return content[:start] + piece + content[start:]


BYTES: Final[dict[str, Callable[[bytes, random.Random], bytes]]] = {
    "one bit": flip,
    "some bits": _flips,
    "truncated": _truncated,
    "emptied": lambda _content, _chance: b"",
    "zeros": _zeros,
    "bytes put in": _inserted,
    "bytes cut out": _cut,
    "bytes repeated": _repeated,
    "noise": lambda content, chance: chance.randbytes(len(content)),
}
#: What another artifact lists: only of these a stream can tell that one has vanished.
_LISTED: Final = (
    "w/index/*",
    "w/shards/*",
    "w/thumbnails/*/index/*",
    "w/thumbnails/*/shards/*",
    "w/il/*/model.safetensors",
    "w/il/*/scores/*",
    "w/core_sets/*/rows/*",
    "indexed/index/*",
)
FILES: Final = ("folder", "pipe", "another of its kind", "another kind", "types", "vanished")
DAMAGES: Final = (*BYTES, *FILES)


class _HangError(BaseException):
    """No `Exception`: nothing under test may catch it."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield told
    finally:
        logging.getLogger().removeHandler(handler)


class Fuzz:
    """Trials over one place, each a function of the seed and its number alone."""

    def __init__(self, place: SmallWorkspace, seed: int = 0) -> None:
        self._place, self._seed = place, seed
        self._artifacts = place.artifacts()
        self._kinds = sorted({self._pattern(name) for name in self._artifacts})
        self._answers: dict[str, Any] = {}

    def trial(self, number: int) -> Trial:
        """Damage one artifact and ask for one answer."""
        chance = random.Random(f"{self._seed} {number}")
        kind = chance.choice(self._kinds)
        name = chance.choice([name for name in self._artifacts if self._pattern(name) == kind])
        damage, asked = chance.choice(DAMAGES), chance.choice(READ_BY[kind])
        if damage == "vanished" and (kind not in _LISTED or asked.startswith(("rho query", "rho explain"))):
            damage = "one bit"  # what is not there was not made: the question has another answer
        expected = self._answer(asked)
        self._place.fresh()
        if not self._damage(name, damage, chance):
            damage = "one bit"  # this artifact cannot be damaged so
            self._damage(name, damage, chance)
        outcome, detail = self._asked(asked, expected)
        return Trial(number=number, artifact=kind, damage=damage, asked=asked, outcome=outcome, detail=detail)

    def _pattern(self, name: str) -> str:
        return next(pattern for pattern in READ_BY if fnmatch(name, pattern))

    def _answer(self, asked: str) -> Any:
        if asked not in self._answers:
            self._place.fresh()
            self._answers[asked] = READERS[asked](self._place)
        return self._answers[asked]

    def _asked(self, asked: str, expected: Any) -> tuple[Outcome, str]:
        with _warnings() as warned:
            try:
                with _limited():
                    found = READERS[asked](self._place)
            except (RhostreamError, click.ClickException) as error:
                text = error.format_message() if isinstance(error, click.ClickException) else str(error)
                return ("told", text) if "\n" not in text.strip() else ("traceback", text)
            except _HangError:
                return "hang", ""
            except BaseException as error:  # noqa: BLE001 - what a user would see as a traceback
                return "traceback", f"{type(error).__name__}: {error}"
        if _same(found, expected):
            return "same", ""
        return ("told", warned[0]) if warned else ("changed", "")

    def _damage(self, name: str, damage: str, chance: random.Random) -> bool:
        """False where this artifact cannot be damaged so."""
        path = self._place.folder / name
        content = path.read_bytes()
        if damage in BYTES:
            path.write_bytes(BYTES[damage](content, chance))
            return True
        if damage == "types":
            return name not in _USERS and _types_changed(path, chance)
        if damage in ("another of its kind", "another kind"):
            own = self._pattern(name)
            others = [
                other
                for other in self._artifacts
                if other != name and (self._pattern(other) == own) == (damage == "another of its kind")
            ]
            if not others:
                return False
            path.write_bytes((self._place.folder / chance.choice(others)).read_bytes())
            return True
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "pipe":
            os.mkfifo(path)
        return True


def _same(found: Any, expected: Any) -> bool:
    return repr(found) == repr(expected)  # NaN is itself


def _types_changed(path: Path, chance: random.Random) -> bool:
    """A column or an entry of another type, or none at all, in a file that is sealed again."""
    place = Workspace(path.parent)
    if path.suffix == ".parquet":
        table = place.read_table(path.name)
        if not table.num_rows:
            return False
        at = chance.randrange(table.num_columns)
        name = table.column_names[at]
        changes: list[pa.Array] = [
            pa.array([[1]] * len(table)),
            pa.array([{"a": 1}] * len(table)),
            pa.array([b"\xff"] * len(table)),
        ]
        if not table.schema.field(at).nullable:
            changes.append(pa.nulls(len(table), table.schema.field(at).type))
        kind = chance.randrange(len(changes) + 1)
        changed = table.drop_columns([name]) if kind == len(changes) else table.set_column(at, name, changes[kind])
        place.write_table(path.name, changed.replace_schema_metadata(table.schema.metadata))
        return True
    if path.suffix == ".json":
        place.write_json(path.name, _entry_changed(place.read_json(path.name), chance))
        return True
    if path.suffix == ".jsonl":
        lines = place.read_lines(path.name)
        at = chance.randrange(len(lines))
        lines[at] = _entry_changed(lines[at], chance, absent=False)  # what a line does not tell was not measured
        place.write_lines(path.name, lines)
        return True
    return False


def _entry_changed(value: Any, chance: random.Random, *, absent: bool = True) -> Any:
    """One of its entries, at any depth, of another type or taken out."""
    changed = json.loads(json.dumps(value))
    inside = changed
    while True:
        key = chance.choice(list(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
        if isinstance(inside[key], (dict, list)) and inside[key] and chance.random() < 0.8:
            inside = inside[key]
            continue
        if absent and chance.random() < 0.2:
            del inside[key]
        else:
            inside[key] = chance.choice(
                [other for other in ("x", [1], {"x": 1}) if type(other) is not type(inside[key])]
            )
        return changed


def run(place: SmallWorkspace, count: int, seed: int = 0) -> tuple[list[Trial], float]:
    """All trials, and the seconds they took."""
    begin, fuzz = time.monotonic(), Fuzz(place, seed)
    trials = [fuzz.trial(number) for number in range(count)]
    place.fresh()
    return trials, time.monotonic() - begin
