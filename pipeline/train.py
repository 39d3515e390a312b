"""Training with online selection: Algorithm 1 of arXiv 2206.07137.

The main path is `train`; it reads top to bottom.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.augmentation import AUGMENTATIONS, Augmentation
from rhostream.loaders.index import CorpusCard
from rhostream.loaders.join import Prefilter
from rhostream.loaders.stream import CandidateStream, Reading
from rhostream.loaders.view import View
from rhostream.loaders.workspace import Workspace
from rhostream.pipeline.costs import Costs
from rhostream.pipeline.device import (
    Precision,
    autocast,
    choose_device,
    place,
    random_state,
    resolve_precision,
    restore_random_state,
    seed_random,
)
from rhostream.pipeline.evaluate import EvaluationSet
from rhostream.pipeline.il_card import il_costs
from rhostream.pipeline.models import build_model
from rhostream.pipeline.progress import progress
from rhostream.pipeline.properties import Properties
from rhostream.pipeline.run import Run
from rhostream.selection.functions import selection_function
from rhostream.selection.ledger import Ledger
from rhostream.selection.scorer import BatchNormPolicy, Scorer
from rhostream.selection.selector import OnlineSelector, SelectedBatch

MAX_UNREADABLE = 100


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run. The paper's, where it fixes one (section 4 and appendix B).

    Attributes:
        name: of the run; the selection function's name where empty.
        il: name (or Parquet path) of the IL table; "" takes the only one of the workspace.
        batch_size, super_batch_size: n_b and n_B.
        steps, epochs, candidates: the budget, in one of three units: gradient steps, passes over the training split,
            or candidates drawn; `epochs` or `candidates` replace `steps` where above 0.
        schedule: of the learning rate; "cosine" falls to 0 at the end of the budget.
        image_size: side in pixels of what the model sees; 0 for the manifest's.
        prefilter: rules candidates out by IL before they are read; 0 is off, see `rhostream.loaders.join.Prefilter`.
        on_missing: "drop" passes over samples without a finite irreducible loss.
        evaluate_every: steps between evaluations, at each of which a checkpoint is written; 0 for a twentieth.
        il_runs: number of runs that share the IL model, over which its cost is spread.
    """

    name: str = ""
    il: str = ""
    model: str = "bn_cnn"
    weights: str = ""
    select: str = "rho_loss"
    batch_size: int = 32
    super_batch_size: int = 320
    steps: int = 1000
    epochs: float = 0.0
    candidates: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    image_size: int = 0
    augmentation: Augmentation = "none"
    batchnorm: BatchNormPolicy = "batch"
    prefilter: float = 0.0
    on_missing: Literal["error", "drop"] = "error"
    evaluate_every: int = 0
    il_runs: int = 1
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.batch_size > self.super_batch_size:
            raise ConfigError(
                f"batch size {self.batch_size} exceeds the super-batch size {self.super_batch_size}: there must be at "
                "least as many candidates as are chosen"
            )
        if self.epochs and self.candidates:
            raise ConfigError(f"epochs {self.epochs} and candidates {self.candidates}: give the budget in one unit")
        if min(self.steps, self.batch_size, self.il_runs) < 1:
            raise ConfigError(
                f"steps {self.steps}, batch size {self.batch_size}, il_runs {self.il_runs}: at least 1 each"
            )
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigError(f"augmentation {self.augmentation!r}: choose one of {', '.join(AUGMENTATIONS)}")

    @property
    def needs_il(self) -> bool:
        return "il" in selection_function(self.select).needs or self.prefilter > 0

    def budget(self, samples: int) -> int:
        """Gradient steps, for a training split of this many samples: the one place where units are converted."""
        drawn = self.candidates or self.epochs * samples
        return math.ceil(drawn / self.drawn_per_step) if drawn else self.steps

    @property
    def drawn_per_step(self) -> int:
        """n_B; uniform sampling draws no more than it trains on."""
        return self.batch_size if selection_function(self.select).score is None else self.super_batch_size


def train(workspace: Workspace | str, config: TrainConfig, *, overwrite: bool = False) -> Run:
    """Run, or continue, one training run; a finished one is returned as it is.

    Killed at any moment and called again it continues from its last checkpoint, and ends with the ledger and (on a
    CPU) the weights of a run that was never killed.

    Raises:
        ConfigError, WorkspaceError, IrreducibleLossError: the settings do not fit the workspace.
        ShardError: more images than `MAX_UNREADABLE` in an epoch do not decode.
    """
    workspace = Workspace(workspace)
    card = CorpusCard.read(workspace)
    il = il_table_name(workspace, config)
    device = choose_device(config.device)
    run = Run(workspace, config.name or config.select, _facts(workspace, card, config, il), overwrite=overwrite)
    if run.finished:
        return run

    costs = Costs(device)
    seed_random(config.seed)
    stream = CandidateStream(
        workspace,
        il=il,
        super_batch_size=config.drawn_per_step,
        seed=config.seed,
        view=card.view(config.image_size),
        augmentation=config.augmentation,
        prefilter=Prefilter(chance=config.prefilter) if config.prefilter else None,
        on_missing=config.on_missing,
        extra=("clean_label",),
        reading=Reading(threads=config.threads, max_unreadable=MAX_UNREADABLE),
    )
    evaluation = _evaluation_set(workspace, card, stream.view, config.threads)
    model = place(
        build_model(config.model, len(card.classes), stream.view, seed=config.seed, weights=config.weights or None),
        device,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    precision = resolve_precision(device, config.precision)
    ledger = Ledger(workspace, run.name)
    selector = OnlineSelector(
        model,
        batch_size=config.batch_size,
        select=config.select,
        scorer=Scorer(model, batchnorm=config.batchnorm, autocast=lambda: autocast(device, precision)),
        ledger=ledger,
        meter=costs,
    )
    properties = Properties()
    if il is not None:
        _charge_il(workspace, il, config.il_runs, costs)

    state = run.load_checkpoint()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        stream.load_state_dict(state["stream"])
        costs.load_state_dict(state["costs"])
        restore_random_state(state["random"], device)
        selector.step = state["step"]
    ledger.forget_after(selector.step)

    steps = config.budget(sum(shard.rows for shard in stream.shards))
    every = config.evaluate_every or max(1, steps // 20)
    model.train()
    with progress(f"train {run.name}", steps, "steps", initial=selector.step) as bar:
        for batch in _endless(selector, stream, stop_after=steps):
            _set_learning_rate(optimizer, config, selector.step, steps)
            with costs.charge("train"):
                step = partial(_forward_backward, model, batch, device, precision)
                logits, loss = costs.flops("train", tuple(batch.images.shape), step)
                optimizer.step()
                optimizer.zero_grad()
                properties.add(batch, logits, loss)
            bar.advance(note=f"loss {properties.train_loss:.3f}")
            if selector.step % every == 0 or selector.step == steps:
                measured = evaluation.evaluate(model, device, precision, costs=costs) if evaluation else None
                ledger.flush()
                run.add_metrics({
                    "step": selector.step,
                    "epoch": batch.super_batch.epoch,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "test_loss": measured.loss if measured else None,
                    "test_accuracy": measured.accuracy if measured else None,
                    **properties.metrics(),
                    **costs.metrics(),
                })  # fmt: skip
                properties = Properties()
                run.save_checkpoint({
                    "step": selector.step,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "stream": stream.state_dict(),
                    "costs": costs.state_dict(),
                    "random": random_state(device),
                })  # fmt: skip
    if evaluation:
        evaluation.close()
    run.save_model(model)
    return run


def _endless(selector: OnlineSelector, stream: CandidateStream, stop_after: int) -> Iterator[SelectedBatch]:
    """Batches of as many epochs as it takes to reach step `stop_after`."""
    while selector.step < stop_after:
        before = selector.step
        for batch in selector(stream):
            yield batch
            if selector.step >= stop_after:
                return
        if selector.step == before:
            raise RhostreamError("an epoch had no candidate to train on: every sample was ruled out or is unreadable; "
                                 "lower --prefilter, or score the shards again")  # fmt: skip


def _forward_backward(
    model: torch.nn.Module, batch: SelectedBatch, device: torch.device, precision: Precision
) -> tuple[Tensor, Tensor]:
    with autocast(device, precision):
        logits = model(batch.images)
    loss = (F.cross_entropy(logits.float(), batch.labels, reduction="none") * batch.weights).mean()
    loss.backward()
    return logits.detach(), loss.detach()


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, steps: int) -> None:
    """The rate of step 1 … `steps`: a function of the step alone, so that there is nothing to restore."""
    factor = 0.5 * (1 + math.cos(math.pi * (step - 1) / steps)) if config.schedule == "cosine" else 1.0
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * factor


def _evaluation_set(workspace: Workspace, card: CorpusCard, view: View, threads: int) -> EvaluationSet | None:
    """What accuracy is reported on: the test split, else val, else the holdout, which the target never trains on."""
    for split in ("test", "val", "holdout"):
        if shards := card.split(split):
            return EvaluationSet(workspace, shards, view, threads=threads)
    return None


def il_table_name(workspace: Workspace, config: TrainConfig) -> str | None:
    """The IL table that a run joins, or None where its selection needs none.

    Raises:
        ConfigError: none is named and the workspace does not hold exactly one.
    """
    if not config.needs_il:
        return None
    if config.il:
        return config.il
    known = workspace.names("il")
    if len(known) != 1:
        held = f"{len(known)} ({', '.join(known)}): name one with --il" if known else "none: run `rho il train` and " \
            "`rho il score` first"  # fmt: skip
        raise ConfigError(f"--select {config.select} needs an IL table, workspace {workspace.location!r} holds {held}")
    return known[0]


def _facts(workspace: Workspace, card: CorpusCard, config: TrainConfig, il: str | None) -> dict[str, Any]:
    """What run.json records, and a later call must agree with."""
    il_card = f"il/{il}/model.json"
    known = il is not None and workspace.exists(il_card)
    # Device and threads may change between the parts of a run; what they change is rounding.
    settings = {name: value for name, value in asdict(config).items() if name not in ("device", "threads")}
    return {
        "format_version": 1,
        "config": settings,
        "il": il,
        "il_digest": hashlib.sha256(workspace.read_bytes(il_card)).hexdigest() if known else None,
        "corpus_fingerprint": card.fingerprint,
        "evaluated_on": next((split for split in ("test", "val", "holdout") if card.split(split)), None),
    }


def _charge_il(workspace: Workspace, il: str, il_runs: int, costs: Costs) -> None:
    """This run's share of what the IL model and its table cost."""
    spent = il_costs(workspace, il)
    for cost in ("il_train", "il_score"):
        costs.add(cost, seconds=spent["seconds"][cost] / il_runs, flops=spent["flops"][cost] / il_runs)
