"""The model that a run begins with."""

from torch import nn

from rhostream.pipeline.models import model_of_samples
from rhostream.pipeline.training.plan import TrainPlan


def untrained_model(plan: TrainPlan) -> nn.Module:
    """The model that the plan asks for, on the CPU.

    Raises:
        ConfigError: an unknown model, or weights that are not its own.
    """
    config = plan.config
    return model_of_samples(
        config.model,
        len(plan.corpus.classes),
        plan.spec,
        plan.text_spec,
        loss=config.contrastive_loss,
        seed=config.seed,
        weights=config.weights or None,
    )
