"""What starts a run, resolved once: everything that depends on the workspace and the machine as well as on settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final

import torch

from rhostream.errors import ConfigError, Remedy, Stage, WorkspaceError
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.loaders.index import Clusters, CorpusMetadata, Thumbnails, current_thumbnails, exact_thumbnails
from rhostream.loaders.reference import Prefilter, il_digest
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import distributed
from rhostream.pipeline.config import AUTO, TrainConfig, weights_digest
from rhostream.pipeline.il import PREFILTER_RULE, ILQuality, default_il_model, il_quality
from rhostream.pipeline.jobs import require_same
from rhostream.pipeline.models import choose_device, takes_any_size
from rhostream.pipeline.training.budget import same_rates, steps_of
from rhostream.pipeline.training.run import RUN_FORMAT
from rhostream.pipeline.training.selection_plan import SelectionPlan, plan_selection, require_task
from rhostream.selection.replay import ReplayStream
from rhostream.selection.tasks import Task, task_of

#: Settings that may change between the parts of a run (what device and threads change is rounding), and those that
#: run.json records resolved.
_ASIDE: Final = (
    *("name", "il_runs", "device", "threads", "workers", "checkpoint_minutes", "tensorboard", "wandb"),
    *("shard_model", "score_chunk", "scorers", "metric", "zero_shot", "prompts"),
    *("il", "thumbnails", "tokenizer", "text_length", "steps", "epochs", "candidates", "evaluate_every"),
)
#: Settings that run.json of a former release does not tell: left out where they are off.
_LATER: Final = (
    "clip_grad_norm",
    "average_weights",
    "clusters",
    "within_clusters",
    "cluster_floor",
    "mixed_resolution",
)
_REMEDY: Final = "choose another --name, or start afresh with --overwrite"


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a run is made of.

    Attributes:
        task: of the corpus: what a candidate's loss is, and what the model is trained and evaluated on.
        spec: of the images or texts that are trained on.
        text_spec: of the captions of pairs; else None.
        il, thumbnails: names of the IL table and of the thumbnails that are read, or None.
        il_digest, clusters_digest, weights_digest: of their content; None without.
        replay_digest: of the facts of the run that is replayed; None without.
        samples: of the training split.
        steps: the budget.
        evaluate_every: steps between evaluations.
        evaluated_on: the split that accuracy (or mean average precision) is reported on, or None.
        score_chunk: candidates of a scoring pass, at most; 0 for all that a process has.
        device: where the model trains.
    """

    workspace: Workspace
    corpus: CorpusMetadata
    config: TrainConfig
    selection: SelectionPlan
    task: Task
    spec: ImageSpec | TextSpec
    text_spec: TextSpec | None
    il: str | None
    il_digest: str | None
    thumbnails: str | None
    clusters_digest: str | None
    weights_digest: str | None
    replay_digest: str | None
    samples: int
    steps: int
    evaluate_every: int
    evaluated_on: str | None
    score_chunk: int
    device: torch.device

    @property
    def name(self) -> str:
        return self.config.run_name

    @cached_property
    def quality(self) -> ILQuality | None:
        """What the IL table tells of the corpus, as far as it can be judged; the first call reads some of it."""
        asked = self.config.prefilter
        prefilter = None if isinstance(asked, str) or not asked else Prefilter(chance=asked)
        return None if self.il is None else il_quality(self.workspace, self.corpus, self.il, prefilter)

    @property
    def prefilter(self) -> Prefilter | None:
        """What the stream may rule candidates out by: asked for, or for the policy to switch on."""
        asked = self.config.prefilter
        if asked and not isinstance(asked, str):
            return Prefilter(chance=asked)
        if not self._filters_by_table:
            return None
        return Prefilter() if self.quality is None else self.quality.prefilter

    @property
    def _filters_by_table(self) -> bool:
        """Does the IL table itself say what the stream may rule out?"""
        asked, hands_over = self.config.prefilter, self.config.hands_over and self.corpus.task == "classification"
        return asked == "auto" or (not asked and (hands_over or self.config.select == AUTO))

    def most_candidates(self, quality: ILQuality, kept: int = 0) -> int:
        """Of a super-batch: what is asked for, as far as the corpus goes, and a batch at the least.

        Args:
            kept: samples that are kept from training.
        """
        there = int((self.samples - kept) * (1 - quality.ruled_out))
        return max(self.config.batch_size, min(self.config.super_batch_size, there))

    def facts(self) -> dict[str, Any]:
        """All that the run's result depends on, as JSON values: what run.json records."""
        facts: dict[str, Any] = {
            "format_version": RUN_FORMAT,
            "config": {name: value for name, value in asdict(self.config).items() if name not in _ASIDE},
            "steps": self.steps,
            "evaluate_every": self.evaluate_every,
            "weights_digest": self.weights_digest,
            "replay_digest": self.replay_digest,
            "il": self.il,
            "il_digest": self.il_digest,
            "corpus_fingerprint": self.corpus.fingerprint,
            "classes": list(self.corpus.classes),
            "spec": self.spec.to_dict(),
            "thumbnails": self.thumbnails,
            "evaluated_on": self.evaluated_on,
            **({"score_chunk": self.score_chunk} if self.score_chunk else {}),
            **({"prefilter_rule": PREFILTER_RULE} if self._filters_by_table else {}),
        }
        if self.text_spec is None:
            del facts["config"]["contrastive_loss"]  # which run.json of a former release does not tell
        else:
            facts["text_spec"] = self.text_spec.to_dict()
        for name in _LATER:
            if not getattr(self.config, name):
                del facts["config"][name]
        if self.clusters_digest is not None:
            facts["clusters_digest"] = self.clusters_digest
        found: dict[str, Any] = json.loads(json.dumps(facts))  # tuples as JSON has them
        return found

    def going_on(self, found: Mapping[str, Any]) -> "TrainPlan":
        """This plan for a run that has begun: evaluated as often as before, and longer if its schedule allows it.

        Args:
            found: the facts that its run.json records.

        Raises:
            WorkspaceError: it was made from other facts, or cannot be extended.
        """
        every = self.config.evaluate_every or found["evaluate_every"]
        # Under another number of processes the passes stay those that the run began with, unless others are asked for.
        chunk = self.config.score_chunk or found.get("score_chunk", 0)
        plan = replace(self, evaluate_every=every, score_chunk=chunk)
        same = {**plan.facts(), "steps": found["steps"]}
        found = {**found, "score_chunk": chunk} if chunk else found
        require_same(f"run {self.name!r} was made", found, same, f"continue it with the same ones, {_REMEDY}")
        before, config = found["steps"], self.config
        if self.steps < before:
            raise WorkspaceError(f"run {self.name!r} has a budget of {before} steps, asked for {self.steps}: {_REMEDY}")
        if self.steps > before and not same_rates(config, before, self.steps):
            share = " and a warm-up that is a share of the budget" if 0 < config.warmup < 1 else ""
            raise WorkspaceError(
                f"run {self.name!r} has a budget of {before} steps under schedule {config.schedule}{share}, whose "
                f"learning rates would have been others for {self.steps}: {_REMEDY}; runs with --schedule constant can "
                "be extended"
            )
        return plan


def plan_training(workspace: Workspace | str, config: TrainConfig) -> TrainPlan:
    """Resolve the settings of a run against its workspace and this machine; nothing is written.

    Raises:
        ConfigError, WorkspaceError, IrreducibleLossError: the settings do not fit each other or the workspace.
    """
    workspace = Workspace(workspace)
    selection = plan_selection(config)
    corpus = CorpusMetadata.read(workspace)
    task = task_of(corpus, config.contrastive_loss)
    require_task(config, task)
    spec = config.input_spec(corpus)
    il = (config.il or default_il_model(workspace, corpus)) if selection.needs_il else None
    thumbnails = _thumbnails(workspace, corpus, config, spec, scores=selection.scores)
    if config.mixed_resolution:
        _require_low_resolution(workspace, corpus, spec, thumbnails)
    samples = corpus.split("train").samples
    steps = len(ReplayStream(workspace, config.replay)) if config.replay else steps_of(config, samples)
    return TrainPlan(
        workspace=workspace,
        corpus=corpus,
        config=config,
        selection=selection,
        task=task,
        spec=spec,
        text_spec=config.text_spec(corpus),
        il=il,
        il_digest=il_digest(workspace, il) if il is not None else None,
        thumbnails=thumbnails,
        clusters_digest=Clusters.read(workspace, corpus, config.clusters).identity if config.clusters else None,
        weights_digest=weights_digest(config.weights) if config.weights else None,
        replay_digest=_replay_digest(workspace, config.replay) if config.replay else None,
        samples=samples,
        steps=steps,
        evaluate_every=config.evaluate_every or max(1, steps // 20),
        # The target never trains on the holdout.
        evaluated_on=next((split for split in ("test", "val", "holdout") if corpus.split(split)), None),
        score_chunk=config.score_chunk or _score_chunk(selection, distributed().size - config.scorers),
        device=choose_device(config.device),
    )


def _score_chunk(selection: SelectionPlan, learners: int) -> int:
    """What a run begins with: one pass on each process, or as if there were no scorers."""
    return 0 if learners <= 1 else max(2, -(-selection.drawn_at_once // learners))


def _thumbnails(
    workspace: Workspace, corpus: CorpusMetadata, config: TrainConfig, trained: ImageSpec | TextSpec, *, scores: bool
) -> str | None:
    """The thumbnails that a run reads, or None.

    Exact ones serve every run. Others are for runs that score, of another size than the images only where the model
    takes any size.
    """
    if not isinstance(trained, ImageSpec) and config.thumbnails not in ("auto", "none"):
        raise ConfigError(
            f"thumbnails {config.thumbnails!r}: the corpus has {trained.field}s, not images; leave it out"
        )
    if config.thumbnails == "none" or not isinstance(trained, ImageSpec):
        return None
    if config.thumbnails != "auto":
        asked = Thumbnails.read(workspace, corpus, config.thumbnails)
        if asked.shows(trained):
            return asked.name
        if not scores:
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
    if not scores or not takes_any_size(config.model):
        return None
    smaller = [each for each in made if "train" in each.splits and each.size < trained.size]
    return max(smaller, key=lambda each: (each.size, each.name)).name if smaller else None


def _require_low_resolution(
    workspace: Workspace, corpus: CorpusMetadata, trained: ImageSpec | TextSpec, thumbnails: str | None
) -> None:
    """Raises ConfigError where no smaller images are scored than are trained on."""
    stored = None if thumbnails is None else Thumbnails.read(workspace, corpus, thumbnails)
    if stored is None or not isinstance(trained, ImageSpec) or stored.shows(trained):
        raise ConfigError(
            "mixed_resolution trains a part of each batch on the thumbnails that it was scored on, and this run scores "
            "on none that are smaller than its images: leave it out, or",
            Remedy(Stage.THUMBNAILS, workspace.location),
        )


def _replay_digest(workspace: Workspace, run: str) -> str:
    """Of a run.json, or of the name alone where another trainer than ours wrote the ledger."""
    name = f"runs/{run}/run.json"
    return hashlib.sha256(workspace.read_bytes(name) if workspace.exists(name) else run.encode()).hexdigest()
