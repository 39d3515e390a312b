"""The candidates of a training run."""

import torch

from rhostream.errors import ConfigError
from rhostream.loaders.decode import ReadOptions, available_cores
from rhostream.loaders.index import CorpusMetadata, Thumbnails, current_thumbnails, exact_thumbnails
from rhostream.loaders.reference import Prefilter
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import CandidateStream
from rhostream.pipeline.config import AUTO, TrainConfig
from rhostream.pipeline.models import takes_any_size
from rhostream.pipeline.training.validation_samples import validation_share_of

MAX_UNREADABLE = 100  # images in an epoch, and at most a hundredth of them


def train_stream(
    workspace: Workspace,
    corpus: CorpusMetadata,
    config: TrainConfig,
    *,
    il: str | None,
    thumbnails: str | None,
    device: torch.device,
) -> CandidateStream:
    """The stream that the settings ask for.

    Args:
        il, thumbnails: names of the IL table and the thumbnails, or None.
        device: where the model trains.
    """
    return CandidateStream(
        workspace,
        il=il,
        super_batch_size=config.drawn_at_once,
        seed=config.seed,
        spec=corpus.image_spec(config.image_size),
        thumbnails=thumbnails,
        augmentation=config.augmentation,
        core_set=config.core_set or None,
        validation_share=validation_share_of(sum(shard.rows for shard in corpus.split("train")))
        if config.select == AUTO
        else 0.0,
        prefilter=Prefilter(chance=config.prefilter or 1.0) if config.prefilter or config.select == AUTO else None,
        on_missing=config.on_missing,
        extra=("clean_label",),
        read_options=_read_options(corpus, config, on_cpu=device.type == "cpu"),
    )


def _read_options(corpus: CorpusMetadata, config: TrainConfig, on_cpu: bool) -> ReadOptions:
    """Where the model trains on the same cores, threads on half of them: more decoders slow the steps by a third."""
    return ReadOptions(
        threads=config.threads or (max(1, available_cores() // 2) if on_cpu else 0),
        workers="auto" if config.workers == "auto" else int(config.workers),
        max_unreadable=min(MAX_UNREADABLE, sum(shard.rows for shard in corpus.split("train")) // 100),
        pin_memory=not on_cpu,
    )


def thumbnails_for(workspace: Workspace, corpus: CorpusMetadata, config: TrainConfig) -> str | None:
    """The thumbnails that a run reads, or None.

    An exact one serves every run. Another is for runs that score, of another size than the images only where the model
    takes any size.
    """
    if config.thumbnails == "none":
        return None
    trained = corpus.image_spec(config.image_size)
    if config.thumbnails != "auto":
        asked = Thumbnails.read(workspace, corpus, config.thumbnails)
        if asked.shows(trained):
            return asked.name
        if not config.scores:
            return None
        if not takes_any_size(config.model) and asked.size != trained.size:
            raise ConfigError(
                f"thumbnails {config.thumbnails!r}: model {config.model} takes images of {trained.size} pixels "
                "only; use --thumbnails none, or a convolutional model"
            )
        return config.thumbnails
    made = current_thumbnails(workspace, corpus)
    if exact := exact_thumbnails(made, trained, {"train"}):
        return exact
    if not config.scores or not takes_any_size(config.model):
        return None
    smaller = [spec for spec in made if "train" in spec.splits and spec.size < trained.size]
    return max(smaller, key=lambda spec: (spec.size, spec.name)).name if smaller else None
