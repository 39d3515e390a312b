"""`rho il score`: the irreducible loss of every sample, shard by shard, by a model that was not trained on it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow.compute as pc

from rhostream.loaders.index import CorpusMetadata, Shard, current_thumbnails, exact_thumbnails
from rhostream.loaders.storage import Workspace, launched
from rhostream.pipeline.config import ILScoreConfig
from rhostream.pipeline.il.metadata import ILMetadata, costs_folder, default_il_model
from rhostream.pipeline.il.pair_scorer import PairScorer
from rhostream.pipeline.il.quality import ILQuality, il_quality
from rhostream.pipeline.il.scorer import ILScorer, ScorerSettings
from rhostream.pipeline.jobs import (
    Advance,
    Maker,
    ShardUnit,
    chosen_engine,
    exclusive_lock,
    make_shards,
    shards_asked_for,
    units_due,
    units_of,
)
from rhostream.pipeline.shards import remove_temporaries
from rhostream.schema import IL

_FEWEST: Final = 200
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
    units = units_of(shards_asked_for(workspace, corpus, config.splits, config.only), engine)
    shards = tuple(unit.shard for unit in units)
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
        check = _scorer(workspace, metadata, scorer)
        due = units_due(units, check.is_done, overwrite=config.overwrite)
        make_shards(maker, due, engine, f"il score {metadata.name}")
        if not engine.is_shared:
            remove_temporaries(workspace, (maker.folder, costs_folder(metadata.name)))
        return _summary(workspace, corpus, metadata, shards, len(due))


def _scorer(workspace: Workspace, metadata: ILMetadata, settings: ScorerSettings) -> ILScorer:
    return (PairScorer if metadata.task == "pairs" else ILScorer)(workspace, metadata, settings)


@dataclass(frozen=True, kw_only=True)
class _ScoreMaker(Maker[ShardUnit, int]):
    """Scores shards, by an `ILScorer` in each worker."""

    metadata: ILMetadata
    settings: ScorerSettings

    @property
    def folder(self) -> str:
        return f"il/{self.metadata.name}/scores"

    @property
    def gpus(self) -> int:
        return 0 if self.settings.device == "cpu" else 1

    def begin(self, number: int) -> Callable[[ShardUnit, Advance], int]:
        scorer = _scorer(self.workspace, self.metadata, replace(self.settings, number=number))

        def score(unit: ShardUnit, advance: Advance) -> int:
            rows = scorer.score(unit.shard)
            advance(rows)
            return rows

        return score

    def __call__(self, unit: ShardUnit, advance: Advance) -> int:
        return self.begin(0)(unit, advance)


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
    training = {*corpus.split("train").names}
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
