"""The metadata of an IL model: what it is, what it was trained on, and how that went."""

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from rhostream.errors import ConfigError, IrreducibleLossError, Remedy, Stage, WorkspaceError
from rhostream.former import il_model_today
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.loaders.index import CorpusMetadata, Shard
from rhostream.loaders.reference import PairReference
from rhostream.loaders.storage import UnreadableError, Workspace, decode_safetensors
from rhostream.schema import COST_UNITS

if TYPE_CHECKING:
    from torch import nn

    from rhostream.pipeline.il.cross_fit import Corrections

FORMAT: Final = 3


@dataclass(frozen=True, kw_only=True)
class ILEvaluation:
    """Losses (nats) and accuracies after a gradient step; step 0 is before training and has no training figures.

    Attributes:
        train_loss, train_accuracy: while training since the evaluation before, by the weights of each step.
        validation_loss, validation_accuracy: of the averaged weights.
        validation_map: their mean average precision, of a multi-label corpus; else None.
    """

    step: int
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float
    validation_accuracy: float
    validation_map: float | None = None


@dataclass(frozen=True, kw_only=True)
class CrossFitGain:
    """What fitting the last layer again has won: see `rhostream.pipeline.il.cross_fit`.

    Attributes:
        samples: that were fitted to, each by the labels of other parts.
        penalty: of the squared weights.
        loss_before, loss: mean loss of these samples, nats; accuracy of their labels (None where there is none).
    """

    samples: int
    penalty: float
    loss_before: float
    loss: float
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class CrossFit(CrossFitGain):
    """And where it is kept.

    Attributes:
        file, sha256: of the corrections, beside the metadata.
        parts: that the samples were dealt into.
    """

    file: str
    sha256: str
    parts: int


@dataclass(frozen=True, kw_only=True)
class ILWeights:
    """One trained model: the only one, or that of a fold.

    Attributes:
        fold: the fold that it never saw; -1 where it was trained on the holdout.
        file: name of the weights beside the metadata.
        sha256: of that file.
        trained_on: name and digest of every shard it was trained on.
        trained_samples, validated_samples: how many samples trained it and chose its step.
        best_step: the step of the lowest validation loss, of pairs of the highest recall, whose weights these are.
        evaluations: in the order of their steps.
        cross_fit: None where there is none.
    """

    fold: int
    file: str
    sha256: str
    trained_on: dict[str, str]
    trained_samples: int
    validated_samples: int
    best_step: int
    evaluations: tuple[ILEvaluation, ...]
    cross_fit: CrossFit | None = None

    @property
    def accuracy(self) -> float:
        """Share of the labels that it predicts, of samples that are none of its own."""
        found = None if self.cross_fit is None else self.cross_fit.accuracy
        return self.best.validation_accuracy if found is None else found

    @property
    def best(self) -> ILEvaluation:
        return next(each for each in self.evaluations if each.step == self.best_step)


@dataclass(frozen=True, kw_only=True)
class ILMetadata:
    """`il/<name>/model.json`. It holds no time and no path, so that the same training gives the same bytes.

    Attributes:
        architecture: name of the model for `rhostream.pipeline.models.registry.build_model`.
        parameters: their number.
        task: of the corpus.
        classes: name of every output.
        spec: of the images or texts that the model was trained on and scores.
        fingerprint: of the split it was trained on.
        config: settings of the training that bear on its result.
        models: one, or one per fold.
        text_spec: of the captions of pairs; else None.
        pairs: how a pair's embeddings become losses; None where the samples are no pairs.
    """

    name: str
    architecture: str
    parameters: int
    classes: tuple[str, ...]
    spec: ImageSpec | TextSpec
    fingerprint: str
    config: dict[str, Any]
    models: tuple[ILWeights, ...]
    task: str
    format: int = FORMAT
    text_spec: TextSpec | None = None
    pairs: PairReference | None = None

    @classmethod
    def read(cls, workspace: Workspace, name: str) -> "ILMetadata":
        """Raises WorkspaceError where there is no trained model of this name."""
        if not workspace.exists(metadata_file(name)):
            known = trained_models(workspace)
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no trained IL model {name!r} (there are: "
                f"{', '.join(known) or 'none'})",
                Remedy(Stage.IL_TRAIN, workspace.location, {"name": name}),
            )
        values = il_model_today(workspace.read_json(metadata_file(name), format=int))
        if values.get("format") != FORMAT:
            raise WorkspaceError(
                f"{workspace.path(metadata_file(name))} has format {values.get('format')}, this release reads "
                f"{FORMAT}: train again with --overwrite"
            )
        metadata = workspace.read_record(metadata_file(name), cls, value=values)
        with workspace.reading(metadata_file(name)):
            metadata._check(name)
        return metadata

    def _check(self, name: str) -> None:
        """Raises UnreadableError where it cannot be the metadata of the model `name`."""
        if self.name != name:
            raise UnreadableError(f"is of the IL model {self.name!r}")
        if not self.models:
            raise UnreadableError("has no models")
        for model in self.models:
            files = [model.file, *([] if model.cross_fit is None else [model.cross_fit.file])]
            if any("/" in file for file in files) or model.best_step not in [each.step for each in model.evaluations]:
                raise UnreadableError(f"has a model {model.file!r} whose best step is {model.best_step}")

    def write(self, workspace: Workspace) -> None:
        values = asdict(self) | {"spec": self.spec.to_dict()}
        of_pairs = {name: values.pop(name) for name in ("text_spec", "pairs")}
        if self.text_spec is not None:
            values |= of_pairs | {"text_spec": self.text_spec.to_dict()}
        workspace.write_json(metadata_file(self.name), values)

    def weights_for(self, shard: Shard) -> ILWeights:
        """The model that scores this shard: the one that never saw its fold, else the first."""
        return next((model for model in self.models if model.fold == shard.fold), self.models[0])

    def load(self, workspace: Workspace, weights: ILWeights) -> "nn.Module":
        """The trained model, in eval mode, on the CPU.

        Raises:
            WorkspaceError: its file is missing or is not the one that the metadata describes.
        """
        from rhostream.pipeline.models import model_of_samples  # here: who asks for names alone needs no torch

        file = f"il/{self.name}/{weights.file}"
        content = self._content(workspace, weights.file, weights.sha256)
        loss = "softmax" if self.pairs is None else self.pairs.loss
        model = model_of_samples(self.architecture, len(self.classes), self.spec, self.text_spec, loss=loss, seed=0)
        with workspace.reading(file):
            model.load_state_dict(decode_safetensors(content))
        return model.eval()

    def corrections(self, workspace: Workspace, weights: ILWeights) -> "Corrections | None":
        """What is added to the logits of what this model scores; None where nothing is.

        Raises:
            WorkspaceError: as of `load`.
        """
        from rhostream.pipeline.il.cross_fit import Corrections  # here, as above

        found = weights.cross_fit
        if found is None:
            return None
        content = self._content(workspace, found.file, found.sha256)
        with workspace.reading(f"il/{self.name}/{found.file}"):
            return Corrections(**decode_safetensors(content))

    def _content(self, workspace: Workspace, name: str, sha256: str) -> bytes:
        """What a file beside the metadata holds."""
        file = f"il/{self.name}/{name}"
        content = workspace.read_bytes(file) if workspace.exists(file) else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            state = "is not the one that its metadata describes" if content else "is missing"
            raise WorkspaceError(f"{workspace.path(file)} {state}: restore it, or train again with --overwrite")
        return content

    def require_fit(self, corpus: CorpusMetadata) -> None:
        """Raises IrreducibleLossError where the model was made for other classes or other shards than the corpus's."""
        retrain = "train again with --overwrite, or use another --name"
        if self.classes != corpus.classes:
            raise IrreducibleLossError(
                f"IL model {self.name!r} knows {len(self.classes)} classes ({_difference(self.classes, corpus.classes)}"
                f"), the corpus has {len(corpus.classes)} ({_difference(corpus.classes, self.classes)}): {retrain}"
            )
        if self.fingerprint not in corpus.fingerprints:
            now = {shard.name: shard.digest for shard in corpus.shards}
            trained = {name: digest for model in self.models for name, digest in model.trained_on.items()}
            changed = sorted(name for name, digest in trained.items() if now.get(name) != digest)
            which = (
                f"{len(changed)} of its training shards changed, {changed[0]} first" if changed else "its own stayed"
            )
            raise IrreducibleLossError(
                f"IL model {self.name!r} was made for other shards than the workspace holds now ({which}): {retrain}"
            )


def metadata_file(name: str) -> str:
    return f"il/{name}/model.json"


def trained_models(workspace: Workspace) -> list[str]:
    """Names of the IL models in a workspace, those whose training has ended."""
    return [name for name in workspace.names("il") if workspace.exists(metadata_file(name))]


def default_il_model(workspace: Workspace, corpus: CorpusMetadata) -> str:
    """The IL model that is meant where none is named: the only trained one, else that of the manifest's table [il].

    Raises:
        ConfigError: there is none, or several and none of them is the manifest's.
    """
    models = trained_models(workspace)
    if not models:
        raise ConfigError(
            f"workspace {workspace.location!r} has no trained IL model", Remedy(Stage.IL_TRAIN, workspace.location)
        )
    settings = corpus.manifest.get("il", {})
    usual = settings.get("name") or settings.get("model")
    if len(models) > 1 and usual not in models:
        raise ConfigError(
            f"workspace {workspace.location!r} has {len(models)} trained IL models, {', '.join(models)}: name the one "
            "that is meant"
        )
    return models[0] if len(models) == 1 else str(usual)


def model_digest(workspace: Workspace, name: str) -> str:
    """SHA-256 of the metadata, which names that of the weights: what an IL part was computed from."""
    return hashlib.sha256(workspace.read_bytes(metadata_file(name))).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Cost:
    """`il/<name>/costs/<part>.json`: what one part of the work took, by `rhostream.schema.COST_UNITS`."""

    cost: Literal["il_train", "il_score"]
    seconds: float
    cpu_seconds: float
    flops: float


def il_costs(workspace: Workspace, name: str) -> dict[str, dict[str, float]]:
    """What the model and its table have cost so far, by `rhostream.schema.COST_UNITS` and "il_train", "il_score"."""
    totals = {unit: {"il_train": 0.0, "il_score": 0.0} for unit in COST_UNITS}
    for file in workspace.names(costs_folder(name), ".json"):
        part = workspace.read_record(f"{costs_folder(name)}/{file}", _Cost)
        for unit, costs in totals.items():
            costs[part.cost] += getattr(part, unit)
    return totals


def write_il_cost(
    workspace: Workspace, name: str, part: str, cost: str, *, seconds: float, cpu_seconds: float, flops: float
) -> None:
    """Record what one part of the work took; parts are written by several processes, so each has its own file."""
    spent = {"seconds": seconds, "cpu_seconds": cpu_seconds, "flops": flops}
    workspace.write_json(f"{costs_folder(name)}/{part}.json", {"cost": cost} | spent)


def costs_folder(name: str) -> str:
    return f"il/{name}/costs"


def _difference(classes: tuple[str, ...], others: tuple[str, ...]) -> str:
    only = [repr(name) for name in classes if name not in others]
    if only:
        return f"{', '.join(only[:3])} only there"
    return "in another order" if len(classes) == len(others) else "none of its own"
