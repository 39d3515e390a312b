"""`rho il train`: a small model trained on the holdout only, or one per fold on all the other folds."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import safetensors.torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.device import choose_device
from rhostream.pipeline.identity import require_same
from rhostream.pipeline.il_card import ILCard, ILWeights, card_file, il_costs, write_il_cost
from rhostream.pipeline.il_config import ILTrainConfig
from rhostream.pipeline.il_fit import REMEDY, Fit, FitPlan
from rhostream.pipeline.lock import only_writer, remove_contents
from rhostream.pipeline.models import build_model, count_parameters
from rhostream.schema import COST_UNITS


@dataclass(frozen=True, kw_only=True)
class ILTraining:
    """What `train_il` gives: the card, whether the model was there already, and what its training took.

    Attributes:
        seconds, flops: over all models and, where the training was interrupted, all of its parts.
    """

    card: ILCard
    already_trained: bool
    seconds: float
    flops: float

    def to_dict(self) -> dict[str, Any]:
        """What `rho il train --json` prints; "models" has one entry, or one per fold."""
        return {
            "name": self.card.name,
            "model": self.card.architecture,
            "parameters": self.card.parameters,
            "already_trained": self.already_trained,
            "seconds": self.seconds,
            "flops": self.flops,
            "models": [_summary(model) for model in self.card.models],
        }


def train_il(workspace: Workspace | str, config: ILTrainConfig, *, overwrite: bool = False) -> ILTraining:
    """Train the IL model, or go on with a training that was interrupted: the result is the same, byte for byte.

    Args:
        overwrite: remove a model of this name, with its scores, and start anew.

    Raises:
        WorkspaceError: nothing to train or validate on, a model of this name was trained otherwise, or another process
            is at work on it.
        ConfigError: an unknown model, device or weights file.
        IrreducibleLossError: the training diverged.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE {os.environ['WORLD_SIZE']}: IL training runs in one process; start it without torchrun"
        )
    workspace = Workspace(workspace)
    corpus = CorpusCard.read(workspace)
    name = config.resolved_name
    with only_writer(workspace, "rho il", f"il/{name}", workers=f"il/{name}/scores"):
        if overwrite:
            # Nothing is removed for a command that could not have been carried out.
            choose_device(config.device)
            view = corpus.view(config.image_size)
            build_model(config.model, len(corpus.classes), view, seed=config.seed, weights=config.weights)
            _plans(workspace, corpus)
            workspace.remove(card_file(name))  # first, so that a half-removed model never looks whole
            remove_contents(workspace, f"il/{name}")
        there = workspace.exists(card_file(name))
        card = _trained(workspace, corpus, config) if there else _train(workspace, corpus, config)
        workspace.remove(f"il/{name}/checkpoints")
    costs = il_costs(workspace, name)
    seconds, flops = costs["seconds"]["il_train"], costs["flops"]["il_train"]
    return ILTraining(card=card, already_trained=there, seconds=seconds, flops=flops)


def _trained(workspace: Workspace, corpus: CorpusCard, config: ILTrainConfig) -> ILCard:
    """The model that is there already, if it is the one asked for."""
    card = ILCard.read(workspace, config.resolved_name)
    card.require_fit(corpus)
    made = {"fingerprint": card.fingerprint, "classes": list(card.classes), "view": card.view.to_dict()}
    found = {"model": card.architecture} | made | card.config
    require_same(f"IL model {card.name!r} was trained", found, _identity(config, corpus), REMEDY)
    return card


def _train(workspace: Workspace, corpus: CorpusCard, config: ILTrainConfig) -> ILCard:
    name, view, identity = config.resolved_name, corpus.view(config.image_size), _identity(config, corpus)
    models, spent = [], dict.fromkeys(COST_UNITS, 0.0)
    for plan in _plans(workspace, corpus):
        checkpoint = f"il/{name}/checkpoints/model{plan.label}.pt"
        fit = Fit(workspace, corpus, config, plan, checkpoint=checkpoint, identity=identity)
        fit.run()
        models.append(_write_weights(workspace, name, fit))
        spent = {unit: spent[unit] + more for unit, more in fit.costs.spent("il_train").items()}
    parameters = count_parameters(build_model(config.model, len(corpus.classes), view, seed=config.seed))
    card = ILCard(
        name=name,
        architecture=config.model,
        parameters=parameters,
        classes=corpus.classes,
        view=view,
        fingerprint=corpus.fingerprint,
        config=config.of_result(),
        models=tuple(models),
    )
    write_il_cost(workspace, name, "train", "il_train", **spent)
    card.write(workspace)
    return card


def _identity(config: ILTrainConfig, corpus: CorpusCard) -> dict[str, Any]:
    """Everything that the bytes of the result depend on."""
    view = corpus.view(config.image_size).to_dict()
    split = {"fingerprint": corpus.fingerprint, "classes": list(corpus.classes), "view": view}
    return {"model": config.model} | split | config.of_result()


def _plans(workspace: Workspace, corpus: CorpusCard) -> list[FitPlan]:
    """The models to train. The validation samples come from D, which no model here is trained on."""
    training, holdout = corpus.split("train"), corpus.split("holdout")
    folds = sorted({shard.fold for shard in training if shard.fold >= 0})
    if len(folds) > 1:
        return [
            FitPlan(
                fold=fold,
                train=tuple(shard for shard in training if shard.fold != fold),
                validate=tuple(shard for shard in training if shard.fold == fold),
            )
            for fold in folds
        ]
    for split, shards in (("holdout", holdout), ("train", training)):
        if not sum(shard.rows for shard in shards):
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no samples in its {split} split, and no folds: run `rho shards` "
                "with a larger --holdout, or with --folds 2"
            )
    return [FitPlan(fold=-1, train=holdout, validate=training)]


def _write_weights(workspace: Workspace, name: str, fit: Fit) -> ILWeights:
    file = f"model{fit.plan.label}.safetensors"
    content = safetensors.torch.save(fit.best)
    workspace.write_bytes(f"il/{name}/{file}", content)
    return ILWeights(
        fold=fit.plan.fold,
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        trained_on={shard.name: shard.digest for shard in fit.plan.train},
        trained_samples=sum(shard.rows for shard in fit.plan.train),
        validated_samples=len(fit.validation),
        best_epoch=fit.best_epoch,
        epochs=tuple(fit.epochs),
    )


def _summary(model: ILWeights) -> dict[str, Any]:
    return {
        "fold": model.fold,
        "trained_samples": model.trained_samples,
        "validated_samples": model.validated_samples,
        "epochs": model.epochs[-1].epoch,
        "best_epoch": model.best_epoch,
        "validation_loss": model.best.validation_loss,
        "validation_accuracy": model.best.validation_accuracy,
    }
