"""The candidates of a training run."""

import torch

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.join import Prefilter
from rhostream.loaders.reading import Reading, available_cores
from rhostream.loaders.scoring_view import ScoringView, current_views, exact_view
from rhostream.loaders.stream import CandidateStream
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.held_back import held_back_share
from rhostream.pipeline.models import takes_any_size
from rhostream.pipeline.train_config import AUTO, TrainConfig

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
    """The scoring view that a run reads, or None.

    An exact one serves every run. Another is for runs that score, of another size than the images only where the model
    takes any size.
    """
    if config.scoring_view == "none":
        return None
    trained = card.view(config.image_size)
    if config.scoring_view != "auto":
        asked = ScoringView.read(workspace, card, config.scoring_view)
        if asked.shows(trained):
            return asked.name
        if not config.scores:
            return None
        if not takes_any_size(config.model) and asked.size != trained.size:
            raise ConfigError(
                f"scoring view {config.scoring_view!r}: model {config.model} takes images of {trained.size} pixels "
                "only; use --scoring-view none, or a convolutional model"
            )
        return config.scoring_view
    views = current_views(workspace, card)
    if exact := exact_view(views, trained, {"train"}):
        return exact
    if not config.scores or not takes_any_size(config.model):
        return None
    smaller = [view for view in views if "train" in view.splits and view.size < trained.size]
    return max(smaller, key=lambda view: (view.size, view.name)).name if smaller else None
