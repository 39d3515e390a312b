"""Training with online selection: Algorithm 1 of arXiv 2206.07137.

The main path is `train`; it reads top to bottom.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rhostream.errors import ConfigError, RhostreamError
from rhostream.loaders.decode import ImageSpec
from rhostream.loaders.index import CorpusMetadata, Shard
from rhostream.loaders.reference import il_digest
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import SuperBatch
from rhostream.pipeline.config import TrainConfig
from rhostream.pipeline.il import default_il_model, il_costs
from rhostream.pipeline.jobs import exclusive_lock, progress
from rhostream.pipeline.models import (
    Costs,
    EvaluationSet,
    Precision,
    adamw,
    autocast,
    build_model,
    choose_device,
    place,
    random_state,
    repeatable_convolutions,
    resolve_precision,
    restore_random_state,
    seed_random,
)
from rhostream.pipeline.training.candidates import thumbnails_for, train_stream
from rhostream.pipeline.training.observers import Observers
from rhostream.pipeline.training.properties import Properties
from rhostream.pipeline.training.run import RUN_FORMAT, Run
from rhostream.pipeline.training.selection_setup import SelectionSetup
from rhostream.selection.ledger import Ledger
from rhostream.selection.scoring import ScoreCache
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.selector import OnlineSelector


def train(workspace: Workspace | str, config: TrainConfig, *, overwrite: bool = False) -> Run:
    """Run, or continue, one training run; a finished one is returned as it is.

    Killed at any moment and called again it continues from its last checkpoint, and ends with the ledger and (on a
    CPU) the weights of a run that was never killed; under `auto`, which decides by measured time, of another one.

    Raises:
        ConfigError, WorkspaceError, IrreducibleLossError: the settings do not fit the workspace.
        ShardError: more images than `train_stream.MAX_UNREADABLE` in an epoch cannot be read.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            f"WORLD_SIZE {os.environ['WORLD_SIZE']}: `rho train` runs in one process; start it without torchrun, or "
            "use CandidateStream and OnlineSelector in a distributed trainer"
        )
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    il = il_table(workspace, corpus, config)
    device = choose_device(config.device)
    facts = _facts(workspace, corpus, config, il)
    run = Run(workspace, config.name or config.select, facts, overwrite=overwrite)
    if run.finished:
        return run

    costs = Costs(device)
    seed_random(config.seed)
    stream = train_stream(workspace, corpus, config, il=il, thumbnails=facts["thumbnails"], device=device)
    split = _evaluated_on(corpus)
    evaluation = _evaluation_set(workspace, corpus.split(split), stream.spec, config) if split else None
    model = place(
        build_model(config.model, len(corpus.classes), stream.spec, seed=config.seed, weights=config.weights or None),
        device,
    )
    optimizer = adamw(model, config.learning_rate, config.weight_decay)
    precision = resolve_precision(device, config.precision)
    ledger = Ledger(workspace, run.name)
    steps = config.budget(stream.samples)
    every = config.evaluate_every or max(1, steps // 20)
    setup = SelectionSetup(workspace, corpus, config, model, optimizer, spec=stream.spec, il=il, costs=costs)
    selector = OnlineSelector(
        model,
        select=setup.policy,
        scorer=setup.scorer,
        cache=ScoreCache(config.score_age) if config.score_age > 1 else None,
        ledger=ledger,
        meter=costs,
        score_ahead=config.score_ahead,
        fresh_every=every,
        seed=config.seed,
    )
    properties, observers = Properties(), Observers(run, config, corpus.classes)
    if il is not None:
        _charge_il(workspace, il, config.il_runs, costs)

    with exclusive_lock(workspace, "rho train", run.folder), observers, repeatable_convolutions():
        run.begin()
        state = run.load_checkpoint()
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            stream.load_state_dict(state["stream"])
            costs.load_state_dict(state["costs"])
            restore_random_state(state["random"], device)
            selector.load_state_dict(state["selector"])
            setup.load_state_dict(state["chooser"])
        ledger.forget_after(selector.step)

        model.train()
        with progress(f"train {run.name}", steps, "steps", initial=selector.step) as bar:
            for batch in _endless(selector, lambda: setup.candidates(stream), stop_after=steps):
                _set_learning_rate(optimizer, config, selector.step, steps)
                with costs.charge("train"):
                    step = partial(_forward_backward, model, batch, device, precision)
                    logits, loss = costs.flops("train", tuple(batch.images.shape), step)
                    optimizer.step()
                    optimizer.zero_grad()
                    properties.add(batch, logits, loss)
                with costs.charge("score"):
                    setup.learned(batch, logits)
                bar.advance(note=f"loss {properties.train_loss:.3f} {selector.policy.note}")
                if selector.step % every == 0 or selector.step == steps:
                    measured = evaluation.evaluate(model, device, precision, costs=costs) if evaluation else None
                    ledger.flush()
                    run.add_metrics(
                        {
                            "step": selector.step,
                            "epoch": batch.epoch,
                            "learning_rate": optimizer.param_groups[0]["lr"],
                            "decision": selector.policy.note or None,
                            "test_loss": measured.loss if measured else None,
                            "test_accuracy": measured.accuracy if measured else None,
                            **properties.metrics(),
                            **costs.metrics(),
                        }
                    )
                    observers.evaluated(batch)
                    properties = Properties()
                    run.save_checkpoint(
                        {
                            "step": selector.step,
                            "selector": selector.state_dict(),
                            "chooser": setup.state_dict(),
                            "model": model.state_dict(),
                            "optimizer": optimizer.state_dict(),
                            "stream": batch.state,
                            "costs": costs.state_dict(),
                            "random": random_state(device),
                        }
                    )
        run.save_model(model)
    if evaluation:
        evaluation.close()
    return run


def _endless(
    selector: OnlineSelector, epoch: Callable[[], Iterable[SuperBatch]], stop_after: int
) -> Iterator[SelectedBatch]:
    """Batches of as many epochs as it takes to reach step `stop_after`."""
    fruitless = 0  # passes in a row; of two, one was a whole epoch, whatever the first went on from
    while selector.step < stop_after:
        before = selector.step, selector.waiting
        for batch in selector(epoch()):
            yield batch
            if selector.step >= stop_after:
                return
        fruitless = fruitless + 1 if (selector.step, selector.waiting) == before else 0
        if fruitless == 2:
            raise RhostreamError(
                f"after step {selector.step}: an epoch had no candidate to train on: every sample was ruled out, has "
                "a score at or below the floor, or is unreadable; lower --prefilter or --score-floor, or score the "
                "shards again"
            )


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


def _evaluation_set(
    workspace: Workspace, shards: tuple[Shard, ...], spec: ImageSpec, config: TrainConfig
) -> EvaluationSet:
    return EvaluationSet(workspace, shards, spec, at_most=config.evaluate_at_most or None, threads=config.threads)


def _evaluated_on(corpus: CorpusMetadata) -> str | None:
    """The split that accuracy is reported on: test, else val, else the holdout, which the target never trains on."""
    return next((split for split in ("test", "val", "holdout") if corpus.split(split)), None)


def il_table(workspace: Workspace, corpus: CorpusMetadata, config: TrainConfig) -> str | None:
    """The IL table that a run joins, or None where its selection needs none."""
    if not config.needs_il:
        return None
    return config.il or default_il_model(workspace, corpus)


def _facts(workspace: Workspace, corpus: CorpusMetadata, config: TrainConfig, il: str | None) -> dict[str, Any]:
    """All that a run's result depends on: what run.json records, and a later call must agree with."""
    # Device and threads may change between the parts of a run; what they change is rounding.
    aside = ("name", "il", "il_runs", "device", "threads", "workers", "thumbnails", "tensorboard", "wandb")
    return {
        "format_version": RUN_FORMAT,
        "config": {name: value for name, value in asdict(config).items() if name not in aside},
        "weights_digest": hashlib.sha256(_weights(config.weights)).hexdigest() if config.weights else None,
        "il": il,
        "il_digest": il_digest(workspace, il) if il is not None else None,
        "corpus_fingerprint": corpus.fingerprint,
        "classes": list(corpus.classes),
        "spec": corpus.image_spec(config.image_size).to_dict(),
        "thumbnails": thumbnails_for(workspace, corpus, config),
        "evaluated_on": _evaluated_on(corpus),
    }


def _weights(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"weights {path!r}: {error.strerror}; give a local file") from error


def _charge_il(workspace: Workspace, il: str, il_runs: int, costs: Costs) -> None:
    """This run's share of what the IL model and its table cost."""
    costs.charge_il(il_costs(workspace, il), il_runs)
