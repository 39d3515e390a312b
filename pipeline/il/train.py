"""`rho il train`: a small model trained on the holdout only, or one per fold on all the other folds."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import Workspace, encode_safetensors, launched
from rhostream.pipeline.config import ILTrainConfig
from rhostream.pipeline.il.fit import REMEDY, Fit, FitPlan
from rhostream.pipeline.il.metadata import ILMetadata, ILWeights, il_costs, metadata_file, write_il_cost
from rhostream.pipeline.jobs import exclusive_lock, remove_contents, require_same
from rhostream.pipeline.models import build_model, choose_device, count_parameters
from rhostream.schema import COST_UNITS


@dataclass(frozen=True, kw_only=True)
class ILTraining:
    """What `train_il` gives: the metadata, whether the model was there already, and what its training took.

    Attributes:
        seconds, flops: over all models and, where the training was interrupted, all of its parts.
    """

    metadata: ILMetadata
    already_trained: bool
    seconds: float
    flops: float

    def to_dict(self) -> dict[str, Any]:
        """What `rho il train --json` prints; "models" has one entry, or one per fold."""
        return {
            "name": self.metadata.name,
            "model": self.metadata.architecture,
            "parameters": self.metadata.parameters,
            "already_trained": self.already_trained,
            "seconds": self.seconds,
            "flops": self.flops,
            "models": [_summary(model) for model in self.metadata.models],
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
    if launched("WORLD_SIZE", 1) > 1:
        raise ConfigError(
            f"WORLD_SIZE {os.environ['WORLD_SIZE']}: IL training runs in one process; start it without torchrun"
        )
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    name = config.resolved_name
    if overwrite or not workspace.exists(metadata_file(name)):
        # Nothing is removed, and no folder made, for a command that could not have been carried out.
        choose_device(config.device)
        spec = corpus.image_spec(config.image_size)
        build_model(config.model, len(corpus.classes), spec, seed=config.seed, weights=config.weights)
        _plans(workspace, corpus)
    with exclusive_lock(workspace, "rho il", f"il/{name}", workers=f"il/{name}/scores"):
        if overwrite:
            workspace.remove(metadata_file(name))  # first, so that a half-removed model never looks whole
            remove_contents(workspace, f"il/{name}")
        there = workspace.exists(metadata_file(name))
        metadata = _trained(workspace, corpus, config) if there else _train(workspace, corpus, config)
        workspace.remove(f"il/{name}/checkpoints")
    costs = il_costs(workspace, name)
    seconds, flops = costs["seconds"]["il_train"], costs["flops"]["il_train"]
    return ILTraining(metadata=metadata, already_trained=there, seconds=seconds, flops=flops)


def _trained(workspace: Workspace, corpus: CorpusMetadata, config: ILTrainConfig) -> ILMetadata:
    """The model that is there already, if it is the one asked for."""
    metadata = ILMetadata.read(workspace, config.resolved_name)
    metadata.require_fit(corpus)
    made = {"fingerprint": metadata.fingerprint, "classes": list(metadata.classes), "spec": metadata.spec.to_dict()}
    found = {"model": metadata.architecture} | made | metadata.config
    asked = {name: value for name, value in _identity(config, corpus).items() if name in found}  # a former one has few
    require_same(f"IL model {metadata.name!r} was trained", found, asked, REMEDY)
    return metadata


def _train(workspace: Workspace, corpus: CorpusMetadata, config: ILTrainConfig) -> ILMetadata:
    name, spec, identity = config.resolved_name, corpus.image_spec(config.image_size), _identity(config, corpus)
    models, spent = [], dict.fromkeys(COST_UNITS, 0.0)
    for plan in _plans(workspace, corpus):
        checkpoint = f"il/{name}/checkpoints/model{plan.label}.pt"
        fit = Fit(workspace, corpus, config, plan, checkpoint=checkpoint, identity=identity)
        fit.run()
        models.append(_write_weights(workspace, name, fit))
        spent = {unit: spent[unit] + more for unit, more in fit.costs.spent("il_train").items()}
    parameters = count_parameters(build_model(config.model, len(corpus.classes), spec, seed=config.seed))
    metadata = ILMetadata(
        name=name,
        architecture=config.model,
        parameters=parameters,
        classes=corpus.classes,
        spec=spec,
        fingerprint=corpus.fingerprint,
        config=config.of_result(),
        models=tuple(models),
        task=corpus.task,
    )
    write_il_cost(workspace, name, "train", "il_train", **spent)
    metadata.write(workspace)
    return metadata


def _identity(config: ILTrainConfig, corpus: CorpusMetadata) -> dict[str, Any]:
    """Everything that the bytes of the result depend on."""
    spec = corpus.image_spec(config.image_size).to_dict()
    split = {"fingerprint": corpus.fingerprint, "classes": list(corpus.classes), "spec": spec}
    return {"model": config.model} | split | config.of_result()


def _plans(workspace: Workspace, corpus: CorpusMetadata) -> list[FitPlan]:
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
                f"workspace {workspace.location!r} has no samples in its {split} split, and no folds: write "
                "the shards with a larger --holdout, or with --folds 2"
            )
    return [FitPlan(fold=-1, train=holdout, validate=training)]


def _write_weights(workspace: Workspace, name: str, fit: Fit) -> ILWeights:
    file = f"model{fit.plan.label}.safetensors"
    content = encode_safetensors(fit.best)
    workspace.write_bytes(f"il/{name}/{file}", content)
    return ILWeights(
        fold=fit.plan.fold,
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        trained_on={shard.name: shard.digest for shard in fit.plan.train},
        trained_samples=sum(shard.rows for shard in fit.plan.train),
        validated_samples=len(fit.validation),
        best_step=fit.best_step,
        evaluations=tuple(fit.evaluations),
    )


def _summary(model: ILWeights) -> dict[str, Any]:
    return {
        "fold": model.fold,
        "trained_samples": model.trained_samples,
        "validated_samples": model.validated_samples,
        "steps": model.evaluations[-1].step,
        "best_step": model.best_step,
        "validation_loss": model.best.validation_loss,
        **(
            {"validation_accuracy": model.best.validation_accuracy}
            if model.best.validation_map is None
            else {"validation_map": model.best.validation_map}
        ),
    }
