"""`rho il train`: a small model trained on the holdout only, or one per fold on all but it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import torch

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import keep_tokenizer
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.reference import ContrastiveLoss, PairReference
from rhostream.loaders.storage import Workspace, encode_safetensors
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.config import ILTrainConfig
from rhostream.pipeline.il.cross_fit import Corrections, cross_fit
from rhostream.pipeline.il.fit import PAIRS_LEARNT, REMEDY, Fit, FitPlan, il_model
from rhostream.pipeline.il.metadata import (
    CrossFit,
    CrossFitGain,
    ILMetadata,
    ILWeights,
    il_costs,
    metadata_file,
    write_il_cost,
)
from rhostream.pipeline.jobs import exclusive_lock, joined, remove_contents, require_agreement, require_same
from rhostream.pipeline.models import HIGHEST_SCALE, choose_device, count_parameters, place
from rhostream.schema import COST_UNITS
from rhostream.selection.tasks import task_of

#: Corrections of a model, and what they have won.
Fitted = tuple[Corrections, CrossFitGain]

_FEWEST_RIGHT: Final = 0.5  # share of the labels: with fewer, most of what it contradicts is its own error


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

    @property
    def warnings(self) -> list[str]:
        """What its validation says of its use, a sentence each."""
        accuracy = min(model.accuracy for model in self.metadata.models)
        if self.metadata.task == "pairs":
            return self._warnings_of_pairs()
        if self.metadata.task != "classification" or accuracy >= _FEWEST_RIGHT:
            return []
        return [
            f"IL model {self.metadata.name!r} predicts {accuracy:.0%} of the validation labels: unless most of the "
            "others are wrong, it is too weak to call labels wrong by. More held-out data help most (more folds "
            f"than {max(1, len(self.metadata.models))}), then a larger model or augmentation"
        ]

    def _warnings_of_pairs(self) -> list[str]:
        (model,) = self.metadata.models
        first, best = model.evaluations[0].validation_accuracy, model.best.validation_accuracy
        # A pretrained model may find most captions before it is trained on.
        if best >= _FEWEST_RIGHT or 1 - best < PAIRS_LEARNT * (1 - first):
            return []
        return [
            f"IL model {self.metadata.name!r} has a recall@10 of {best:.1%}, before its training of {first:.1%}: "
            f"it is too weak to select by. More held-out pairs help most (it had {model.trained_samples}), then a "
            "pretrained model"
        ]

    def to_dict(self) -> dict[str, Any]:
        """What `rho il train --json` prints; "models" has one entry, or one per fold."""
        return {
            "name": self.metadata.name,
            "model": self.metadata.architecture,
            "parameters": self.metadata.parameters,
            "already_trained": self.already_trained,
            "seconds": self.seconds,
            "flops": self.flops,
            "models": [_summary(model, self.metadata.task) for model in self.metadata.models],
        }


def train_il(workspace: Workspace | str, config: ILTrainConfig, *, overwrite: bool = False) -> ILTraining:
    """Train the IL model, or go on with a training that was interrupted: the result is the same, byte for byte.

    Under torchrun the processes share out the models of the folds; the result is the same, too. Of a single model they
    share out each batch (DDP): it is the same up to rounding, for models without BatchNorm and dropout.

    Args:
        overwrite: remove a model of this name, with its scores, and start anew.

    Raises:
        WorkspaceError: nothing to train or validate on, a model of this name was trained otherwise, or another process
            is at work on it.
        ConfigError: an unknown model, device or weights file; or processes that cannot share the work out.
        IrreducibleLossError: the training diverged.
    """
    with joined() as exchange:
        return _train_il(Workspace(workspace), config, exchange, overwrite=overwrite)


def _train_il(workspace: Workspace, config: ILTrainConfig, exchange: Exchange, *, overwrite: bool) -> ILTraining:
    corpus = CorpusMetadata.read(workspace)
    settings = {**asdict(config), "overwrite": overwrite, "workspace": corpus.fingerprint}
    require_agreement(exchange, settings, "settings")
    name = config.resolved_name
    if overwrite or not workspace.exists(metadata_file(name)):
        # Nothing is removed, and no folder made, for a command that could not have been carried out.
        choose_device(config.device)
        _require_job(_plans(workspace, corpus), corpus, exchange)
        il_model(config, corpus)
    first, folder = exchange.rank == 0, f"il/{name}"
    locked = exclusive_lock(workspace, "rho il", folder, workers=f"{folder}/scores") if first else nullcontext()
    with locked:
        if overwrite and first:
            workspace.remove(metadata_file(name))  # first, so that a half-removed model never looks whole
            remove_contents(workspace, folder)
        exchange.wait()
        there = workspace.exists(metadata_file(name))
        require_agreement(exchange, {"model": there}, f"IL model {name!r}")
        metadata = _trained(workspace, corpus, config) if there else _train(workspace, corpus, config, exchange)
        exchange.wait()
        if first:
            workspace.remove(f"{folder}/checkpoints")
    costs = il_costs(workspace, name)
    seconds, flops = costs["seconds"]["il_train"], costs["flops"]["il_train"]
    return ILTraining(metadata=metadata, already_trained=there, seconds=seconds, flops=flops)


def _trained(workspace: Workspace, corpus: CorpusMetadata, config: ILTrainConfig) -> ILMetadata:
    """The model that is there already, if it is the one asked for."""
    metadata = ILMetadata.read(workspace, config.resolved_name)
    metadata.require_fit(corpus)
    spec = metadata.spec.to_dict()
    if metadata.text_spec is not None:
        spec = {**spec, "text": metadata.text_spec.to_dict()}
    made = {"fingerprint": metadata.fingerprint, "classes": list(metadata.classes), "spec": spec}
    found = {"model": metadata.architecture} | made | metadata.config
    # A former one tells few, but those that no former one had.
    asked = {name: value for name, value in _identity(config, corpus).items() if name in found or name in config.UNTOLD}
    require_same(f"IL model {metadata.name!r} was trained", found, asked, REMEDY)
    return metadata


def _require_job(plans: Sequence[FitPlan], corpus: CorpusMetadata, exchange: Exchange) -> None:
    """Raises ConfigError for what several processes cannot do."""
    if exchange.size > len(plans) > 1:
        raise ConfigError(
            f"il train by {exchange.size} processes, and {len(plans)} models, one a fold, to train: start "
            f"{len(plans)} with --nproc-per-node, or write the shards with more --folds"
        )


def _train(workspace: Workspace, corpus: CorpusMetadata, config: ILTrainConfig, exchange: Exchange) -> ILMetadata:
    text_spec = config.text_spec(corpus)
    name, spec, identity = config.resolved_name, config.input_spec(corpus), _identity(config, corpus)
    own, own_spent = {}, dict.fromkeys(COST_UNITS, 0.0)
    if exchange.rank == 0:
        keep_tokenizer(workspace, text_spec or spec)
    plans = _plans(workspace, corpus)
    together = len(plans) < exchange.size
    for number in [0] if together else range(exchange.rank, len(plans), exchange.size):
        plan = plans[number]
        checkpoint = f"il/{name}/checkpoints/model{plan.label}.pt"
        of_model = exchange if together else Exchange(alone=True)
        fit = Fit(workspace, corpus, config, plan, checkpoint=checkpoint, identity=identity, exchange=of_model)
        fit.run()
        if of_model.rank == 0:
            own[number] = _write_weights(workspace, name, fit, _cross_fitted(workspace, corpus, config, fit))
        own_spent = {unit: own_spent[unit] + more for unit, more in fit.costs.spent("il_train").items()}
    models = {number: model for told in exchange.objects(own) for number, model in told.items()}
    spent = dict(zip(own_spent, exchange.sums(list(own_spent.values())), strict=True))
    parameters = count_parameters(il_model(replace(config, weights=None), corpus))
    metadata = ILMetadata(
        name=name,
        architecture=config.model,
        parameters=parameters,
        classes=corpus.classes,
        spec=spec,
        fingerprint=corpus.fingerprint,
        config=config.of_result(),
        models=tuple(models[number] for number in sorted(models)),
        task=corpus.task,
        text_spec=text_spec,
        pairs=None if text_spec is None else _reference(config.contrastive_loss, fit.best),
    )
    if exchange.rank == 0:
        write_il_cost(workspace, name, "train", "il_train", **spent)
        metadata.write(workspace)
    return metadata


def _identity(config: ILTrainConfig, corpus: CorpusMetadata) -> dict[str, Any]:
    """Everything that the bytes of the result depend on."""
    spec = config.input_spec(corpus).to_dict()
    text_spec = config.text_spec(corpus)
    if text_spec is not None:
        spec = {**spec, "text": text_spec.to_dict()}
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
                train=(*holdout, *(shard for shard in training if shard.fold != fold)),
                validate=tuple(shard for shard in training if shard.fold == fold),
            )
            for fold in folds
        ]
    for split, shards in (("holdout", holdout), ("train", training)):
        if not shards.samples:
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no samples in its {split} split, and no folds: write "
                "the shards with a larger --holdout, or with --folds 5"
            )
    return [FitPlan(fold=-1, train=holdout, validate=training)]


def _cross_fitted(workspace: Workspace, corpus: CorpusMetadata, config: ILTrainConfig, fit: Fit) -> Fitted | None:
    """What fitting the last layer again to the samples that the model is to score wins, if anything."""
    if not config.cross_fit or corpus.task == "pairs":
        return None
    device = choose_device(config.device)
    model = il_model(replace(config, weights=None), corpus)
    model.load_state_dict(fit.best)
    spec = config.input_spec(corpus)
    with fit.costs.charge("il_train"):
        return cross_fit(
            workspace,
            fit.plan.validate,
            spec,
            place(model, device).eval(),
            task_of(corpus),
            classes=len(corpus.classes),
            parts=config.cross_fit,
            device=device,
            precision=config.precision,
            threads=config.threads,
            costs=fit.costs,
        )


def _write_weights(workspace: Workspace, name: str, fit: Fit, fitted: Fitted | None) -> ILWeights:
    file, digest = _write_tensors(workspace, name, f"model{fit.plan.label}.safetensors", fit.best)
    won = None
    if fitted is not None:
        corrections, gain = fitted
        kept, sha256 = _write_tensors(workspace, name, f"corrections{fit.plan.label}.safetensors", vars(corrections))
        won = CrossFit(file=kept, sha256=sha256, parts=len(corrections.weights), **asdict(gain))
    return ILWeights(
        fold=fit.plan.fold,
        file=file,
        sha256=digest,
        trained_on={shard.name: shard.digest for shard in fit.plan.train},
        trained_samples=sum(shard.rows for shard in fit.plan.train),
        validated_samples=len(fit.validation),
        best_step=fit.best_step,
        evaluations=tuple(fit.evaluations),
        cross_fit=won,
    )


def _write_tensors(workspace: Workspace, name: str, file: str, tensors: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """The file's name, and the SHA-256 of what it holds."""
    content = encode_safetensors({key: tensor.contiguous() for key, tensor in tensors.items()})
    workspace.write_bytes(f"il/{name}/{file}", content)
    return file, hashlib.sha256(content).hexdigest()


def _reference(loss: ContrastiveLoss, weights: Mapping[str, torch.Tensor]) -> PairReference:
    """How the embeddings of a model of these weights become losses."""
    bias = weights.get("logit_bias")
    scale = min(math.exp(float(weights["logit_scale"])), HIGHEST_SCALE)
    return PairReference(loss=loss, scale=scale, bias=0.0 if bias is None else float(bias))


def _summary(model: ILWeights, task: str) -> dict[str, Any]:
    accuracy = "validation_recall" if task == "pairs" else "validation_accuracy"
    return {
        "fold": model.fold,
        "trained_samples": model.trained_samples,
        "validated_samples": model.validated_samples,
        "steps": model.evaluations[-1].step,
        "best_step": model.best_step,
        "validation_loss": model.best.validation_loss,
        **(
            {accuracy: model.best.validation_accuracy}
            if model.best.validation_map is None
            else {"validation_map": model.best.validation_map}
        ),
        "cross_fitted_loss": None if model.cross_fit is None else model.cross_fit.loss,
    }
