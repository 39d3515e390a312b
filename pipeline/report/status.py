"""What is in a workspace, and which stage comes next: read from names and metadata, without opening a table."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rhostream.errors import Remedy, Stage
from rhostream.former import THUMBNAILS_FOLDER
from rhostream.loaders.index import METADATA_NAME, CorpusMetadata, clusters_file, core_set_file, metadata_file
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.jobs import read_run_facts, read_run_metrics

_GOES_ON = "the command that began it, with the same settings, goes on with it"
_AFRESH = "it is of a former release, and can only be started afresh"


@dataclass(frozen=True, kw_only=True)
class ModelStatus:
    """An IL model. `scored` of the `shards` of the training split have a part of its table."""

    name: str
    trained: bool
    scored: int
    shards: int


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run.

    Attributes:
        steps: those measured so far; None of a ledger alone, of somebody's own trainer.
        former: is it one of a former release that ended before its last step?
    """

    name: str
    select: str
    steps: int | None
    finished: bool
    former: bool


@dataclass(frozen=True, kw_only=True)
class WorkspaceStatus:
    """What is in a workspace.

    Attributes:
        corpus: name, format, classes, shards, entries, rejects and the samples by split; None where not finished.
        thumbnails, core_sets, clusters: the finished ones by name.
        missing: what is not there or not finished, in words.
        next: the stage to run.
    """

    workspace: str
    corpus: dict[str, Any] | None = None
    thumbnails: tuple[str, ...] = ()
    il_models: tuple[ModelStatus, ...] = ()
    core_sets: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    runs: tuple[RunStatus, ...] = ()
    missing: tuple[str, ...] = field(default=())
    next: Remedy


def workspace_status(workspace: Workspace | str) -> WorkspaceStatus:
    """Look through a workspace; an empty or missing one has nothing but a next stage.

    Raises:
        WorkspaceError: its metadata cannot be read.
    """
    workspace = Workspace(workspace)
    if not workspace.exists(METADATA_NAME):
        in_place = bool(workspace.names("scans"))
        begun = bool(workspace.names("rejects")) or in_place
        return WorkspaceStatus(
            workspace=workspace.location,
            missing=("the shards are not finished" if begun else "there are no shards",),
            next=Remedy(Stage.INDEX if in_place else Stage.SHARDS, workspace.location),
        )
    corpus = CorpusMetadata.read(workspace)
    models = tuple(_models(workspace, corpus))
    runs = tuple(_runs(workspace))
    former = [name for name in workspace.names(THUMBNAILS_FOLDER) if not workspace.exists(metadata_file(name))]
    missing = [
        *(f"thumbnails {name} are of a former release, which this one does not read" for name in former),
        *(f"IL model {model.name} is not trained" for model in models if not model.trained),
        *(
            f"IL model {model.name} has scored {model.scored} of {model.shards} shards"
            for model in models
            if model.trained and model.scored < model.shards
        ),
        *(f"run {run.name} is not finished: {_AFRESH if run.former else _GOES_ON}" for run in runs if not run.finished),
    ]
    for what, found in (("IL model", models), ("run", runs)):
        if not found:
            missing.append(f"there is no {what}")
    return WorkspaceStatus(
        workspace=workspace.location,
        corpus={
            "name": corpus.manifest.get("name", ""),
            "format": corpus.manifest.get("format", ""),
            "task": corpus.task,
            "classes": len(corpus.classes),
            "shards": len(corpus.shards),
            "entries": corpus.counts["entries"],
            "rejects": corpus.counts["rejects"],
            "samples": corpus.counts.get("splits", {}),
        },
        thumbnails=tuple(name for name in workspace.names("thumbnails") if workspace.exists(metadata_file(name))),
        il_models=models,
        core_sets=tuple(name for name in workspace.names("core_sets") if workspace.exists(core_set_file(name))),
        clusters=tuple(name for name in workspace.names("clusters") if workspace.exists(clusters_file(name))),
        runs=runs,
        missing=tuple(missing),
        next=_next(workspace, corpus, models, runs),
    )


def _models(workspace: Workspace, corpus: CorpusMetadata) -> Iterator[ModelStatus]:
    shards = {f"{name}.parquet" for name in corpus.split("train").names}
    for name in workspace.names("il"):
        yield ModelStatus(
            name=name,
            trained=workspace.exists(f"il/{name}/model.json"),
            scored=len(shards & {*workspace.names(f"il/{name}/scores", ".parquet")}),
            shards=len(shards),
        )


def _runs(workspace: Workspace) -> Iterator[RunStatus]:
    for name in workspace.names("runs"):
        folder = f"runs/{name}"
        facts = read_run_facts(workspace, name)
        lines = read_run_metrics(workspace, name)
        # A ledger alone is of somebody's own trainer, who alone knows whether it has ended.
        finished = not facts or workspace.exists(f"{folder}/model.safetensors")
        yield RunStatus(
            name=name,
            select=facts.get("config", {}).get("select", ""),
            steps=None if not facts else lines[-1]["step"] if lines else 0,
            finished=finished,
            former=not finished and facts.get("format_version") == 1,
        )


def _next(
    workspace: Workspace,
    corpus: CorpusMetadata,
    models: tuple[ModelStatus, ...],
    runs: tuple[RunStatus, ...],
) -> Remedy:
    """The first stage, in the pipeline's order, that is not finished."""

    def stage(stage: Stage, **settings: str | bool) -> Remedy:
        return Remedy(stage, workspace.location, settings)

    trained = [model for model in models if model.trained]
    if not trained:
        return stage(Stage.IL_TRAIN, **({"name": models[0].name} if models else {}))
    if not any(model.scored == model.shards for model in trained):
        return stage(Stage.IL_SCORE, name=trained[0].name)
    for run in runs:
        if not run.finished:
            return stage(Stage.TRAIN, name=run.name, select=run.select, **({"overwrite": True} if run.former else {}))
    if not runs:
        return stage(Stage.TRAIN, **({"select": "learnability"} if corpus.task == "pairs" else {}))
    return stage(Stage.MISLABELED if corpus.task == "pairs" else Stage.REPORT)
