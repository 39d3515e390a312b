"""Training with online selection, in the loop of Algorithm 1 of arXiv 2206.07137.

The main path is `train`; it reads top to bottom.
"""

import contextlib
import logging
import time
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rhostream.errors import ConfigError
from rhostream.loaders.decode import keep_tokenizer
from rhostream.loaders.storage import Workspace
from rhostream.loaders.stream import Exchange
from rhostream.pipeline.config import AUTO, Precision, TrainConfig
from rhostream.pipeline.il import il_costs
from rhostream.pipeline.jobs import exclusive_lock, joined, progress, require_agreement, stop_request
from rhostream.pipeline.models import (
    Costs,
    EvaluationSet,
    PairEvaluationSet,
    ZeroShot,
    autocast,
    evaluation_set,
    repeatable_convolutions,
    resolve_precision,
)
from rhostream.pipeline.training.batch_source import BatchSource, Replaying, Selecting
from rhostream.pipeline.training.budget import learning_rate
from rhostream.pipeline.training.learner import make_learner
from rhostream.pipeline.training.mixed_resolution import mixed_outputs
from rhostream.pipeline.training.observers import Observers
from rhostream.pipeline.training.plan import TrainPlan, plan_training
from rhostream.pipeline.training.properties import Properties
from rhostream.pipeline.training.run import Run
from rhostream.pipeline.training.scorers import remote_scorers, serve
from rhostream.selection.dealing import require_shares
from rhostream.selection.ledger import Ledger
from rhostream.selection.selected_batch import SelectedBatch
from rhostream.selection.tasks import Pairs, Task, logits_of

_LOG = logging.getLogger(__name__)


def train(workspace: Workspace | str, config: TrainConfig, *, overwrite: bool = False) -> Run:
    """Run, continue or extend one training run; a finished one is returned as it is.

    Killed at any moment and called again it continues from its last checkpoint, and ends with the ledger and (on a
    CPU) the weights of a run that was never killed; under `auto`, which decides by measured time, of another one. A
    larger budget extends it, where the schedule does not depend on the budget. Under torchrun the processes train one
    model together, and any number of them goes on with the run.

    Raises:
        ConfigError, WorkspaceError, IrreducibleLossError: the settings do not fit the workspace.
        ShardError: more images than `candidates.MAX_UNREADABLE` in an epoch cannot be read.
        Interrupted: by SIGINT or SIGTERM, after one more step and its checkpoint.
    """
    with joined():
        return follow(plan_training(workspace, config), overwrite=overwrite)


def follow(plan: TrainPlan, *, overwrite: bool = False) -> Run:
    """`train` by a plan, which is the same in all processes of a job."""
    with joined() as exchange:
        return _follow(plan, exchange, overwrite=overwrite)


def _follow(plan: TrainPlan, exchange: Exchange, *, overwrite: bool) -> Run:
    workspace, corpus, config, device = plan.workspace, plan.corpus, plan.config, plan.device
    first = exchange.rank == 0
    _require_job(plan, exchange)
    job, exchange = exchange, exchange if not config.scorers else Exchange(members=exchange.size - config.scorers)
    run = Run(workspace, plan.name, overwrite=overwrite, writes=first)
    require_agreement(job, {"run.json": run.facts, "finished": run.finished, **plan.facts()}, f"run {run.name!r}")
    if run.facts is not None:
        plan = plan.going_on(run.facts)
        if run.finished and run.facts["steps"] == plan.steps:
            return run
    if isinstance(plan.task, Pairs) and exchange.size > 1:
        plan = replace(plan, task=replace(plan.task, exchange=exchange))

    costs = Costs(device)
    if job.rank >= job.size - config.scorers > 0:
        serve(plan, job, costs)
        job.wait()
        return Run(workspace, plan.name, writes=False)
    evaluation = _evaluation_set(plan, exchange) if plan.evaluated_on else None
    if evaluation is None:
        _LOG.warning(
            "%s has neither test nor val nor holdout (with folds all train): accuracy will stay unknown. Give the "
            "corpus a test split, or a holdout beside the folds, to know it",
            workspace.location,
        )
    if first and run.facts is None:
        with costs.charge("load"):
            _warn_of_table(plan)
    learner = make_learner(plan, exchange)
    model, optimizer = learner.model, learner.optimizer
    precision = resolve_precision(device, config.precision)
    scorers = remote_scorers(plan, learner, exchange, job, costs) if config.scorers else None
    ledger = Ledger(workspace, run.name)
    steps, every = plan.steps, plan.evaluate_every
    source: BatchSource = (
        Replaying(plan, costs=costs, ledger=ledger)
        if config.replay
        else Selecting(plan, model, optimizer, costs=costs, ledger=ledger, exchange=exchange, scorers=scorers)
    )
    properties, observers = Properties(plan.task), Observers(run, config, corpus.classes, tell=first)
    if plan.il is not None and first:
        _charge_il(workspace, plan.il, config.il_runs, costs)

    locked = exclusive_lock(workspace, "rho train", run.folder) if first else contextlib.nullcontext()
    stopping = stop_request(f"run {run.name!r}", tells=first)
    with locked, stopping as stop, observers, repeatable_convolutions():
        run.begin(plan.facts())
        if exchange.rank == 0:
            keep_tokenizer(workspace, plan.text_spec or plan.spec)
        exchange.wait()
        state = run.load_checkpoint(kept=lambda step: step % every == 0 or step == steps)
        require_agreement(exchange, {"step": None if state is None else state["step"]}, "checkpoints")
        if state is not None:
            learner.load_state_dict(run.with_parts(state, learner.own_part, exchange))
            costs.load_state_dict(state["costs"], first=first)
            properties.load_state_dict(state["properties"], first=first)
            source.load_state_dict(state["source"])
            stop.at(_place(source.step, steps), exchange)
        else:
            ledger.go_on_after(0)
        checkpoint_at = time.monotonic()

        model.train()
        with progress(f"train {run.name}", steps, "steps", initial=source.step, shown=first) as bar:
            for batch in source.batches(until=steps):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, source.step, steps)
                with costs.charge("train"):
                    mixed = config.mixed_resolution
                    step = partial(forward_backward, model, batch, plan.task, device, precision, mixed)
                    logits, loss = costs.flops("train", batch.shape, step)
                    learner.take_step(source.step)
                    properties.add(batch, logits, loss)
                with costs.charge("score"):
                    source.learned(batch, logits)
                bar.advance(note=" ".join(filter(None, (properties.note, source.note))))
                in_turn = source.step % every == 0
                evaluated = in_turn or source.step == steps
                due = 0 < config.checkpoint_minutes * 60 <= time.monotonic() - checkpoint_at
                due = stop.agreed(exchange, due)
                if evaluated:
                    measured = (
                        evaluation.evaluate(learner.outcome, device, precision, costs=costs) if evaluation else None
                    )
                    if in_turn:
                        ledger.flush()
                    else:  # as the budget ends: it leaves nothing in the run that a larger one would not have
                        ledger.close()
                    run.add_metrics(
                        {
                            "step": source.step,
                            "epoch": batch.epoch,
                            "learning_rate": optimizer.param_groups[0]["lr"],
                            "decision": source.note or None,
                            **(measured.metrics() if measured else {}),
                            **properties.over_ranks(exchange).metrics(),
                            **costs.over_ranks(exchange).metrics(),
                        }
                    )
                    observers.evaluated(batch)
                    if in_turn:
                        properties = Properties(plan.task)
                if evaluated or due or stop.asked:
                    run.save_checkpoint(
                        {
                            "step": source.step,
                            "source": source.state_dict(),
                            "properties": properties.over_ranks(exchange).state_dict(),
                            "costs": costs.over_ranks(exchange).state_dict(),
                            **learner.state_dict(),
                        },
                        exchange,
                    )
                    checkpoint_at = time.monotonic()
                    if source.step < steps:
                        stop.at(_place(source.step, steps), exchange)
        run.save_model(learner.weights_of_outcome())
        if scorers is not None:
            scorers.end()
        job.wait()
    if evaluation:
        evaluation.close()
    return run


def _require_job(plan: TrainPlan, exchange: Exchange) -> None:
    """Raises ConfigError for what several processes cannot do, and for processes that were asked for different runs."""
    config = plan.config
    if exchange.size == 1 and not config.scorers:
        return
    if plan.text_spec is not None and config.shard_model:
        raise ConfigError(
            "shard_model with image-text pairs, whose temperature is a single number that FSDP2 cannot share out: "
            "leave shard_model out"
        )
    if config.replay:
        raise ConfigError(
            f"replay {config.replay!r} by {exchange.size} processes: replay in one, or with ReplayStream in a trainer "
            "of your own, which shares each batch out"
        )
    if config.scorers >= exchange.size:
        raise ConfigError(
            f"scorers {config.scorers} of {exchange.size} processes: at least one must learn; start more, or ask for "
            "fewer scorers"
        )
    require_shares(config.batch_size, exchange.size - config.scorers)
    settings = {**asdict(config), "workspace": plan.corpus.fingerprint}
    require_agreement(exchange, settings, "settings")


def forward_backward(
    model: torch.nn.Module,
    batch: SelectedBatch,
    task: Task,
    device: torch.device,
    precision: Precision,
    mixed_resolution: float = 0.0,
) -> tuple[Any, Tensor]:
    """The gradients of one step: logits (n_b, classes) or outputs of two towers, and the mean loss, nats; detached.

    Of a batch that ranks share out the loss is the mean over a rank's own.

    Args:
        mixed_resolution: share of the pairs that are trained on by their thumbnails.
    """
    with autocast(device, precision):
        if isinstance(task, Pairs) and mixed_resolution:
            outputs: Any = mixed_outputs(model, batch, task, mixed_resolution)
        else:
            outputs = task.outputs(model, batch)
        if not isinstance(task, Pairs):
            outputs = logits_of(outputs)
    loss = (task.losses(outputs, batch) * batch.weights).mean()
    loss.backward()
    with torch.no_grad():
        return _detached(outputs), loss.detach()


def _detached(outputs: Any) -> Any:
    """The outputs without a gradient, tensors or a mapping of them."""
    return outputs.detach() if isinstance(outputs, Tensor) else {name: each.detach() for name, each in outputs.items()}


def _place(step: int, steps: int) -> str:
    return f"step {step} of {steps}"


def _evaluation_set(plan: TrainPlan, exchange: Exchange) -> EvaluationSet | PairEvaluationSet:
    column, prompts = plan.config.zero_shot, plan.config.prompts
    return evaluation_set(
        plan.workspace,
        plan.corpus.split(plan.evaluated_on or ""),
        plan.spec,
        plan.text_spec,
        task=plan.task,
        at_most=plan.config.evaluate_at_most or None,
        threads=plan.config.threads,
        exchange=exchange,
        zero_shot=ZeroShot(column=column, prompts=prompts) if column else None,
    )


def _warn_of_table(plan: TrainPlan) -> None:
    """Where choosing by the IL table would do harm; `auto` finds that out by itself."""
    if plan.il is None or plan.config.select == AUTO:
        return
    quality = plan.quality
    if quality is not None and (quality.weak or plan.config.prefilter):
        for warning in quality.warnings:
            _LOG.warning("run %r chooses by IL table %r: %s; uniform sampling is safer", plan.name, plan.il, warning)


def _charge_il(workspace: Workspace, il: str, il_runs: int, costs: Costs) -> None:
    """This run's share of what the IL model and its table cost."""
    costs.charge_il(il_costs(workspace, il), il_runs)
