"""The model that a run begins with."""

from torch import nn

from rhostream.loaders.decode import ImageSpec
from rhostream.pipeline.models import build_model, build_pairs_model
from rhostream.pipeline.training.plan import TrainPlan


def untrained_model(plan: TrainPlan) -> nn.Module:
    """The model that the plan asks for, on the CPU.

    Raises:
        ConfigError: an unknown model, or weights that are not its own.
    """
    config, weights = plan.config, plan.config.weights or None
    if plan.text_spec is None or not isinstance(plan.spec, ImageSpec):
        return build_model(config.model, len(plan.corpus.classes), plan.spec, seed=config.seed, weights=weights)
    loss = config.contrastive_loss
    return build_pairs_model(config.model, plan.spec, plan.text_spec, loss=loss, seed=config.seed, weights=weights)
