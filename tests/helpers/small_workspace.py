"""A small workspace with something of every stage, that can be put back as it was."""

import shutil
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import click
from click.testing import CliRunner

from helpers.shards_corpus import manifest_of, write_corpus
from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.core_set_config import CoreSetConfig
from rhostream.pipeline.config.il_config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.config.thumbnails_config import ThumbnailsConfig
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.core_set import write_core_set
from rhostream.pipeline.il.score import score_il
from rhostream.pipeline.il.train import train_il
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.shards.write import write_shards
from rhostream.pipeline.thumbnails.write import write_thumbnails
from rhostream.pipeline.training.loop import train

STEPS: Final = 4
RUNS: Final = ("uniform", "rho_loss")


class SmallWorkspace:
    """A workspace `w`, one that indexes its tars (`indexed`), an IL table, a clean list and weights of a user's.

    `fresh` puts everything back as it was.
    """

    def __init__(self, folder: Path, images: int = 72, shard_size: int = 40) -> None:
        self.folder, self._whole = folder / "place", folder / "whole"
        self.workspace = Workspace(self.folder / "w")
        self.indexed = Workspace(self.folder / "indexed")
        self.corpus = write_corpus(folder / "corpus", images, [("gone.jpg", "cat")])
        self.manifest = manifest_of(self.corpus, shard_size=shard_size, holdout=0.4, image={"size": 16})
        self._make()
        shutil.copytree(self.folder, self._whole)

    def _make(self) -> None:
        write_shards(self.workspace, self.manifest, workers=0)
        self.thumbnails()
        self.il()
        score_il(self.workspace, ILScoreConfig(device="cpu"))
        write_core_set(self.workspace, CoreSetConfig(keep=0.8))
        for select in RUNS:
            train(self.workspace, self.run(select))
        self.index()
        rows = "SELECT key, il, predicted FROM il WHERE NOT in_sample"
        self.cli("query", rows, "--output", str(self.folder / "il.parquet"))
        listed = str(self.folder / "clean.parquet")
        self.cli("export", "list", "--max-drop-share", "1", "--output", listed)
        shutil.copy(self.workspace.path("runs/uniform/model.safetensors"), self.folder / "weights.safetensors")

    def run(self, select: str, steps: int = STEPS) -> TrainConfig:
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
        """Put back every file that was changed, told by its size and time, and remove what was added."""
        before = {path.relative_to(self._whole): path for path in self._whole.rglob("*")}
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before the folder
            if _state(path) != _state(before.get(path.relative_to(self.folder))):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, path in sorted(before.items()):
            if path.is_dir():
                (self.folder / name).mkdir(exist_ok=True)
            elif not (self.folder / name).exists():
                shutil.copy2(path, self.folder / name)

    def cli(self, *arguments: str) -> str:
        """What a command prints; raises what it fails with."""
        workspace = () if "--workspace" in arguments else ("--workspace", self.workspace.location)
        result = CliRunner().invoke(rho, [*arguments, *workspace], standalone_mode=False, catch_exceptions=False)
        if result.exit_code:
            raise click.ClickException(result.output)
        return result.stdout

    def artifacts(self, patterns: Collection[str]) -> list[str]:
        """Names of the files that one of these patterns fits, as they were at first."""
        names = [path.relative_to(self._whole).as_posix() for path in self._whole.rglob("*") if path.is_file()]
        return sorted(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def _state(path: Path | None) -> tuple[int, int, int] | None:
    """Of a file its mode, size and time; of a folder the mode; None of what is not there."""
    if path is None:
        return None
    found = path.lstat()
    return (found.st_mode, 0, 0) if path.is_dir() else (found.st_mode, found.st_size, found.st_mtime_ns)
