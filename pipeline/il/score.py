"""`rho il score`: the irreducible loss of every sample, shard by shard, by a model that was not trained on it."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow.compute as pc

from rhostream.errors import WorkspaceError
from rhostream.loaders.index import CorpusMetadata, Shard, current_thumbnails, exact_thumbnails
from rhostream.loaders.storage import Workspace, launched
from rhostream.pipeline.config import ILScoreConfig
from rhostream.pipeline.il.metadata import ILMetadata, costs_folder, default_il_model
from rhostream.pipeline.il.quality import ILQuality, il_quality
from rhostream.pipeline.il.scorer import ILScorer, ScorerSettings
from rhostream.pipeline.jobs import (
    Advance,
    Maker,
    chosen_engine,
    exclusive_lock,
    make_units,
    progress,
    read_ahead,
)
from rhostream.pipeline.shards import remove_temporaries
from rhostream.schema import IL

_FEWEST: Final = 200
_READ_AHEAD: Final = 8  # parts being read
_VALUES: Final = 2_000_000  # few enough that a pass takes moderate memory, and so many that starting it takes no time


@dataclass(frozen=True, kw_only=True)
class ILScores:
    """What the table holds for the shards that this process was asked for.

    Attributes:
        shards, scored_shards: how many in all, and how many of them only now.
        mean_il: nats, over all rows.
        accuracy: share of rows whose label the IL model predicts; None of a multi-label corpus.
        in_sample: rows scored by a model that was trained on them.
        quality: what the table is good for; None where this process was not asked for all of the training split.
    """

    name: str
    shards: int
    scored_shards: int
    rows: int
    mean_il: float
    accuracy: float | None
    in_sample: int
    quality: ILQuality | None


def score_il(workspace: Workspace | str, config: ILScoreConfig) -> ILScores:
    """Write `il/<name>/scores/<shard>.parquet` for every shard asked for that has no valid part yet.

    Under torchrun each rank scores its own share of the shards.

    Raises:
        ConfigError: no name, and none or several models to choose from.
        WorkspaceError: no such model, split or shard, or another process is at work on this model.
        IrreducibleLossError: the model was made for other classes or shards, or a loss is not finite.
        ShardError: an image does not decode.
    """
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    metadata = ILMetadata.read(workspace, config.name or default_il_model(workspace, corpus))
    metadata.require_fit(corpus)
    # Under torchrun each rank does its share, whether asked or not.
    shared = config.engine == "local" and launched("WORLD_SIZE", 1) > 1
    engine = chosen_engine("static" if shared else config.engine, config.workers)
    asked = _asked_for(workspace, corpus, config)
    # Shared out before looking at what is done, so that ranks which start at different times agree.
    numbered = [ShardToScore(number=number, shard=shard) for number, shard in enumerate(asked) if engine.makes(number)]
    shards = tuple(unit.shard for unit in numbered)
    scorer = ScorerSettings(
        batch_size=config.batch_size or max(_FEWEST, _VALUES // metadata.spec.values),
        device=config.device,
        precision=config.precision,
        threads=config.threads,
        thumbnails=exact_thumbnails(
            current_thumbnails(workspace, corpus), metadata.spec, {shard.split for shard in shards}
        ),
        processes=1 if engine.name == "ray" else max(1, config.workers),
    )
    maker = _ScoreMaker(workspace=workspace, metadata=metadata, settings=scorer)
    with exclusive_lock(workspace, "rho il", f"il/{metadata.name}", workers=maker.folder, engine=engine):
        check = ILScorer(workspace, metadata, scorer)
        done = read_ahead(check.is_done, shards, _READ_AHEAD)
        due = [unit for unit, is_done in zip(numbered, done, strict=True) if config.overwrite or not is_done]
        with progress(f"il score {metadata.name}", sum(unit.shard.rows for unit in due), "samples") as reporter:
            for _ in make_units(maker, due, engine=engine, advance=reporter.advance):
                pass
        if not engine.is_shared:
            remove_temporaries(workspace, (maker.folder, costs_folder(metadata.name)))
        return _summary(workspace, corpus, metadata, shards, len(due))


@dataclass(frozen=True, kw_only=True)
class ShardToScore:
    """A unit of work."""

    number: int
    shard: Shard


@dataclass(frozen=True, kw_only=True)
class _ScoreMaker(Maker[ShardToScore, int]):
    """Scores shards, by an `ILScorer` in each worker."""

    metadata: ILMetadata
    settings: ScorerSettings

    @property
    def folder(self) -> str:
        return f"il/{self.metadata.name}/scores"

    @property
    def gpus(self) -> int:
        return 0 if self.settings.device == "cpu" else 1

    def begin(self, number: int) -> Callable[[ShardToScore, Advance], int]:
        scorer = ILScorer(self.workspace, self.metadata, replace(self.settings, number=number))

        def score(unit: ShardToScore, advance: Advance) -> int:
            rows = scorer.score(unit.shard)
            advance(rows)
            return rows

        return score

    def __call__(self, unit: ShardToScore, advance: Advance) -> int:
        return self.begin(0)(unit, advance)


def _asked_for(workspace: Workspace, corpus: CorpusMetadata, config: ILScoreConfig) -> tuple[Shard, ...]:
    names, splits = {shard.name for shard in corpus.shards}, {shard.split for shard in corpus.shards}
    for kind, asked, known in (("shard", config.only, names), ("split", config.splits, splits)):
        missing = next((name for name in asked if name not in known), None)
        if missing is not None and not (kind == "split" and config.only):
            close = difflib.get_close_matches(missing, known, 1) or sorted(known)[:5]
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no {kind} {missing!r}; there is {', '.join(close)}: name one of "
                "those"
            )
    if config.only:
        return tuple(shard for shard in corpus.shards if shard.name in config.only)
    return corpus.split(*config.splits)


def _summary(
    workspace: Workspace, corpus: CorpusMetadata, metadata: ILMetadata, shards: tuple[Shard, ...], scored: int
) -> ILScores:
    judged = ["label", "predicted"] if metadata.task == "classification" else []
    rows, total, right, in_sample = 0, 0.0, 0, 0
    for shard in shards:
        table = workspace.read_table(shard.scores(metadata.name), ["il", "in_sample", *judged], IL)
        rows += table.num_rows
        total += float(table.column("il").to_numpy().sum(dtype=np.float64))
        if judged:
            right += pc.sum(pc.equal(*(table.column(name) for name in judged))).as_py() or 0
        in_sample += pc.sum(table.column("in_sample")).as_py() or 0
    training = {shard.name for shard in corpus.split("train")}
    whole = bool(training) and training <= {shard.name for shard in shards}
    return ILScores(
        name=metadata.name,
        shards=len(shards),
        scored_shards=scored,
        rows=rows,
        mean_il=total / rows if rows else 0.0,
        accuracy=(right / rows if rows else 0.0) if judged else None,
        in_sample=in_sample,
        quality=il_quality(workspace, corpus, metadata.name) if whole else None,
    )
