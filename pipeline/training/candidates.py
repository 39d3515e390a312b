"""The candidates of a training run, or the batches of one that is replayed."""

from rhostream.loaders.decode import ReadOptions, available_cores
from rhostream.loaders.storage import launched
from rhostream.loaders.stream import CandidateStream, Order, Ranks
from rhostream.pipeline.config import AUTO
from rhostream.pipeline.training.plan import TrainPlan
from rhostream.pipeline.training.validation_samples import validation_share_of
from rhostream.selection.replay import ReplayStream

#: Columns that tell which samples are wrong, where they are known: of labels, and of the captions of pairs.
TRUTH = ("clean_label", "mismatched")
MAX_UNREADABLE = 100  # images in an epoch, and at most a hundredth of them


def train_stream(plan: TrainPlan, ranks: Ranks) -> CandidateStream:
    """The stream that the plan asks for, each super-batch of which these ranks share out."""
    config, auto = plan.config, plan.config.select == AUTO
    return CandidateStream(
        plan.workspace,
        il=plan.il,
        super_batch_size=plan.selection.drawn_at_once,
        seed=config.seed,
        spec=plan.spec,
        text_spec=plan.text_spec,
        thumbnails=plan.thumbnails,
        augmentation=config.augmentation,
        core_set=config.core_set or None,
        clusters=config.clusters or None,
        validation_share=validation_share_of(plan.samples) if auto else 0.0,
        prefilter=plan.prefilter,
        on_missing=config.on_missing,
        extra=TRUTH,
        order=Order(last=config.last, within_clusters=config.within_clusters, chunk_size=plan.score_chunk or None),
        read_options=_read_options(plan),
        dp_rank=ranks.rank,
        dp_world_size=ranks.size,
    )


def replay_stream(plan: TrainPlan) -> ReplayStream:
    """The batches of the run that the plan replays."""
    config = plan.config
    return ReplayStream(
        plan.workspace,
        config.replay,
        steps=plan.steps,
        spec=plan.spec,
        thumbnails=plan.thumbnails,
        augmentation=config.augmentation,
        seed=config.seed,
        extra=("clean_label",),
        device=plan.device,
        read_options=_read_options(plan),
    )


def _read_options(plan: TrainPlan) -> ReadOptions:
    """Where the model trains on the same cores, threads on half of them: more decoders slow the steps by a third."""
    config, on_cpu = plan.config, plan.device.type == "cpu"
    cores = available_cores() // launched("LOCAL_WORLD_SIZE", 1)
    return ReadOptions(
        threads=config.threads or (max(1, cores // 2) if on_cpu else 0),
        workers="auto" if config.workers == "auto" else int(config.workers),
        max_unreadable=min(MAX_UNREADABLE, plan.samples // 100),
        pin_memory=not on_cpu,
    )
