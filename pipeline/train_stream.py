"""The candidates of a training run."""

import logging

import torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.join import Prefilter
from rhostream.loaders.reading import Reading, available_cores
from rhostream.loaders.scoring_view import ScoringView, scoring_views
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.held_back import held_back_share
from rhostream.pipeline.models import takes_any_size
from rhostream.pipeline.train_config import AUTO, TrainConfig

_log = logging.getLogger(__name__)
MAX_UNREADABLE = 100  # images in an epoch, and at most a hundredth of them


def train_stream(
    workspace: Workspace,
    card: CorpusCard,
    config: TrainConfig,
    *,
    il: str | None,
    scoring_view: str | None,
    device: torch.device,
) -> CandidateStream:
    """The stream that the settings ask for.

    Args:
        il, scoring_view: names of the IL table and the scoring view, or None.
        device: where the model trains.
    """
    return CandidateStream(
        workspace,
        il=il,
        super_batch_size=config.drawn_at_once,
        seed=config.seed,
        view=card.view(config.image_size),
        scoring_view=scoring_view,
        augmentation=config.augmentation,
        core_set=config.core_set or None,
        held_back=held_back_share(sum(shard.rows for shard in card.split("train"))) if config.select == AUTO else 0.0,
        prefilter=Prefilter(chance=config.prefilter or 1.0) if config.prefilter or config.select == AUTO else None,
        on_missing=config.on_missing,
        extra=("clean_label",),
        reading=_reading(card, config, on_cpu=device.type == "cpu"),
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
    """The scoring view that a run reads: one of another size than the images only where the model takes any size."""
    if not config.scores or config.scoring_view == "none":
        return None
    size = card.view(config.image_size).size
    if config.scoring_view != "auto":
        if not takes_any_size(config.model) and ScoringView.read(workspace, card, config.scoring_view).size != size:
            raise ConfigError(
                f"scoring view {config.scoring_view!r}: model {config.model} takes images of {size} pixels only; use "
                "--scoring-view none, or a convolutional model"
            )
        return config.scoring_view
    views = [view for name in scoring_views(workspace) if (view := _current(workspace, card, name)) is not None]
    smaller = [view for view in views if view.size < size and "train" in view.splits and takes_any_size(config.model)]
    return max(smaller, key=lambda view: (view.size, view.name)).name if smaller else None


def _current(workspace: Workspace, card: CorpusCard, name: str) -> ScoringView | None:
    """A view of other shards than there are now is not one to choose."""
    try:
        return ScoringView.read(workspace, card, name)
    except WorkspaceError as error:
        _log.warning("not used: %s", error)
        return None
