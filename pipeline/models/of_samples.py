"""What is made for the samples of a corpus, whatever they are: its models, and what these are evaluated on."""

from collections.abc import Sequence

from torch import nn

from rhostream.loaders.decode import ImageSpec, InputSpec, TextSpec
from rhostream.loaders.index import Shard
from rhostream.loaders.reference import ContrastiveLoss
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.models.evaluation import EvaluationSet
from rhostream.pipeline.models.pair_evaluation import PairEvaluationSet, ZeroShot
from rhostream.pipeline.models.pair_models import build_pairs_model
from rhostream.pipeline.models.registry import build_model
from rhostream.selection.tasks import Pairs, Task


def model_of_samples(
    name: str,
    num_classes: int,
    spec: InputSpec,
    text_spec: TextSpec | None,
    *,
    loss: ContrastiveLoss,
    seed: int,
    weights: str | None = None,
) -> nn.Module:
    """A classifier, see `build_model`, or of pairs a two-tower model, see `build_pairs_model`.

    Args:
        text_spec: of the captions of pairs; None of other samples.
        loss: that a two-tower model is to be trained with.
    """
    if text_spec is None:
        return build_model(name, num_classes, spec, seed=seed, weights=weights)
    return build_pairs_model(name, _of_images(spec), text_spec, loss=loss, seed=seed, weights=weights)


def evaluation_set(
    workspace: Workspace,
    shards: Sequence[Shard],
    spec: InputSpec,
    text_spec: TextSpec | None,
    *,
    task: Task,
    at_most: int | None,
    threads: int,
    exchange: Exchange | None = None,
    zero_shot: ZeroShot | None = None,
) -> EvaluationSet | PairEvaluationSet:
    """Samples of these shards to evaluate on.

    Args:
        exchange: see `EvaluationSet`.
        zero_shot: see `PairEvaluationSet`.
    """
    if isinstance(task, Pairs) and text_spec is not None:
        return PairEvaluationSet(
            workspace,
            shards,
            _of_images(spec),
            text_spec,
            task=task,
            zero_shot=zero_shot,
            at_most=at_most,
            threads=threads,
            exchange=exchange,
        )
    return EvaluationSet(workspace, shards, spec, at_most=at_most, threads=threads, exchange=exchange)


def _of_images(spec: InputSpec) -> ImageSpec:
    assert isinstance(spec, ImageSpec), "the first field of pairs is the image"
    return spec
