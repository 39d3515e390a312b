"""The candidates of a training run."""

import logging

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.join import Prefilter
from rhostream.loaders.reading import Reading, available_cores
from rhostream.loaders.scoring_view import ScoringView, scoring_views
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.models import takes_any_size
from rhostream.pipeline.train_config import TrainConfig
from rhostream.selection.functions import selection_function

_log = logging.getLogger(__name__)
MAX_UNREADABLE = 100  # images in an epoch, and at most a hundredth of them


def train_stream(
    workspace: Workspace,
    card: CorpusCard,
    config: TrainConfig,
    *,
    il: str | None,
    scoring_view: str | None,
    on_cpu: bool,
) -> CandidateStream:
    """The stream that the settings ask for.

    Args:
        il, scoring_view: names of the IL table and the scoring view, or None.
        on_cpu: does the model train on the cores that decode?
    """
    return CandidateStream(
        workspace,
        il=il,
        super_batch_size=config.drawn_per_step,
        seed=config.seed,
        view=card.view(config.image_size),
        scoring_view=scoring_view,
        augmentation=config.augmentation,
        prefilter=Prefilter(chance=config.prefilter) if config.prefilter else None,
        on_missing=config.on_missing,
        extra=("clean_label",),
        reading=_reading(card, config, on_cpu),
    )


def _reading(card: CorpusCard, config: TrainConfig, on_cpu: bool) -> Reading:
    """Where the model trains on the same cores, threads on half of them: more decoders slow the steps by a third."""
    return Reading(
        threads=config.threads or (max(1, available_cores() // 2) if on_cpu else 0),
        workers="auto" if config.workers == "auto" else int(config.workers),
        max_unreadable=min(MAX_UNREADABLE, sum(shard.rows for shard in card.split("train")) // 100),
        pin_memory=not on_cpu,
    )


def scoring_view_for(workspace: Workspace, card: CorpusCard, config: TrainConfig) -> str | None:
    """The scoring view that a run reads, or None.

    An exact one serves every run. Another is for runs that score, of another size than the images only where the model
    takes any size.
    """
    if config.scoring_view == "none":
        return None
    scores = selection_function(config.select).score is not None
    trained = card.view(config.image_size)
    if config.scoring_view != "auto":
        asked = ScoringView.read(workspace, card, config.scoring_view)
        if asked.shows(trained):
            return asked.name
        if not scores:
            return None
        if not takes_any_size(config.model) and asked.size != trained.size:
            raise ConfigError(
                f"scoring view {config.scoring_view!r}: model {config.model} takes images of {trained.size} pixels "
                "only; use --scoring-view none, or a convolutional model"
            )
        return config.scoring_view
    views = [view for name in scoring_views(workspace) if (view := _current(workspace, card, name)) is not None]
    views = [view for view in views if "train" in view.splits]
    fitting = [view for view in views if view.shows(trained)]
    if not fitting and scores and takes_any_size(config.model):
        fitting = [view for view in views if view.size < trained.size]
    return max(fitting, key=lambda view: (view.size, view.name)).name if fitting else None


def _current(workspace: Workspace, card: CorpusCard, name: str) -> ScoringView | None:
    """A view of other shards than there are now is not one to choose."""
    try:
        return ScoringView.read(workspace, card, name)
    except WorkspaceError as error:
        _log.warning("not used: %s", error)
        return None
