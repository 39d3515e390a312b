"""What starts a run: its selection, its budget, its learning rates, and how a run that has begun is extended."""

import math
from dataclasses import replace

import pytest
from helpers.tiny import write_il, write_workspace

from rhostream import Classification, ConfigError, Pairs, WorkspaceError
from rhostream.loaders.decode import ImageSpec
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.training.budget import learning_rate, same_rates
from rhostream.pipeline.training.loop import train
from rhostream.pipeline.training.plan import plan_training
from rhostream.pipeline.training.run import Run
from rhostream.pipeline.training.selection_plan import plan_selection, require_task

CONFIG = TrainConfig(
    select="rho_loss",
    model="mlp",
    batch_size=4,
    super_batch_size=16,
    steps=12,
    evaluate_every=6,
    schedule="constant",
    device="cpu",
    threads=1,
    tensorboard=False,
)


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (40, 20), test_rows=30)
    write_il(made)
    return made


def files(workspace, run="rho_loss"):
    """Ledger, history and weights of a run."""
    folders = (f"runs/{run}/ledger", f"runs/{run}/history")
    names = [f"{folder}/{name}" for folder in folders for name in workspace.names(folder)]
    return {name: workspace.read_bytes(name) for name in [*names, f"runs/{run}/model.safetensors"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "rholoss"}, "select 'rholoss': known are auto, bald"),
        ({"select": "uniform", "score_floor": 0.0}, "score_floor with uniform"),
        ({"select": "uniform", "proxy": True, "score_ahead": True}, "proxy, score_ahead with select 'uniform'"),
        ({"temperature": 2.0}, "temperature 2.0 alone changes nothing: it is of the rules gumbel and weighted"),
        ({"chunks": 4, "rule": "gumbel"}, "chunks 4 alone changes nothing: it is of the rule joint"),
        ({"select": "uniform", "share": 0.5}, "share 0.5 with select 'uniform'"),
        ({"select": "bald", "score_ahead": True}, "score_ahead with select 'bald'"),
    ],
)
def test_settings_unfit_for_the_selection_stop_before_any_reading(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        plan_training(str(tmp_path / "nowhere"), replace(CONFIG, **settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (True, True, 16)),
        ({"select": "train_loss"}, (True, False, 16)),
        ({"select": "uniform"}, (False, False, 4)),
        ({"select": "uniform", "prefilter": 1.0}, (False, True, 4)),
        ({"select": "auto"}, (True, True, 16)),
    ],
)
def test_what_a_selection_needs_follows_from_its_settings(settings, expected):
    found = plan_selection(replace(CONFIG, **settings))
    assert (found.scores, found.needs_il, found.drawn_at_once) == expected


@pytest.mark.parametrize(
    ("task", "settings", "told"),
    [
        (
            Pairs(),
            {"select": "rho_loss"},
            "select 'rho_loss', and the corpus has image-text pairs: choose",
        ),
        (Pairs(), {"select": "auto"}, "select 'auto', and the corpus has image-text pairs"),
        (Pairs(), {"select": "jest", "live_il": True}, "live_il is not for image-text pairs"),
        (Classification(), {"select": "jest"}, "select 'jest' scores image-text pairs, which the corpus does not have"),
        (Classification(), {"contrastive_loss": "sigmoid"}, "contrastive_loss is for image-text pairs"),
    ],
)
def test_selections_that_do_not_fit_the_task_are_refused(task, settings, told):
    with pytest.raises(ConfigError, match=told):
        require_task(replace(CONFIG, **settings), task)


def test_pairs_may_be_selected_jointly():
    for settings in ({"select": "jest"}, {"select": "uniform"}, {"select": "jest", "proxy": True}):
        require_task(replace(CONFIG, **settings), Pairs())


def test_a_plan_resolves_what_the_settings_leave_open(workspace):
    plan = plan_training(workspace, replace(CONFIG, epochs=4.0, evaluate_every=0))
    assert (plan.name, plan.il, plan.thumbnails, plan.evaluated_on) == ("rho_loss", "strided_cnn", None, "test")
    assert (plan.samples, plan.steps, plan.evaluate_every, plan.spec) == (60, 12, 1, ImageSpec(size=8))


def rates(steps, **settings):
    config = replace(CONFIG, learning_rate=1.0, **settings)
    return [learning_rate(config, step, steps) for step in range(1, steps + 1)]


def test_schedules_start_at_the_peak_and_end_where_they_say():
    assert rates(4) == [1.0] * 4
    assert rates(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert rates(4, schedule="cosine") == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])
    assert rates(4, schedule="inverse_sqrt") == pytest.approx([1.0, 2**-0.5, 3**-0.5, 0.5])


@pytest.mark.parametrize("warmup", [4.0, 0.25])
def test_warm_up_reaches_the_peak_by_steps_or_share(warmup):
    found = rates(16, schedule="cosine", warmup=warmup)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    assert found[5] < 1.0
    assert rates(16, schedule="inverse_sqrt", warmup=warmup)[15] == 0.5


def test_a_warm_up_longer_than_the_run_only_rises():
    assert rates(2, warmup=4.0) == [0.25, 0.5]


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({}, True),
        ({"warmup": 5.0}, True),
        ({"warmup": 0.5}, False),
        ({"schedule": "inverse_sqrt"}, True),
        ({"schedule": "linear"}, False),
        ({"schedule": "cosine"}, False),
    ],
)
def test_which_rates_depend_on_the_budget(settings, same):
    assert same_rates(replace(CONFIG, **settings), 60, 90) is same


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "SGD", "momentum": 0.9, "nesterov": True, "warmup": 5.0, "augmentation": "shift_flip"},
        {"schedule": "inverse_sqrt", "optimizer": "adamw", "optimizer_options": {"betas": [0.8, 0.9]}},
        {"score_ahead": True, "select": "train_loss"},
    ],
    ids=str,
)
def test_an_extended_run_equals_the_larger_budgets_run_bitwise(workspace, settings):
    config = replace(CONFIG, name="r", **settings)
    whole = train(workspace, replace(config, steps=18))
    expected, lines = files(workspace, "r"), whole.metrics
    workspace.remove("runs/r")
    train(workspace, config)
    extended = train(workspace, replace(config, steps=18))
    assert files(workspace, "r") == expected
    assert [line["step"] for line in extended.metrics] == [line["step"] for line in lines] == [6, 12, 18]
    assert [line["train_loss"] for line in extended.metrics] == [line["train_loss"] for line in lines]
    assert workspace.read_json("runs/r/run.json")["steps"] == 18


def test_a_run_extended_between_evaluations_equals_the_longer_one(workspace):
    config = replace(CONFIG, name="r", evaluate_every=5)
    whole = train(workspace, replace(config, steps=18))
    expected, lines = files(workspace, "r"), whole.metrics
    workspace.remove("runs/r")
    shorter = train(workspace, config)
    assert [line["step"] for line in shorter.metrics] == [5, 10, 12]
    extended = train(workspace, replace(config, steps=18))
    assert [line["step"] for line in extended.metrics] == [5, 10, 15, 18]
    timed = {name for name in lines[0] if name.startswith(("seconds", "cpu_seconds", "flops_evaluate"))}
    assert [{name: line[name] for name in line.keys() - timed} for line in extended.metrics] == [
        {name: line[name] for name in line.keys() - timed} for line in lines
    ]
    assert files(workspace, "r") == expected


def test_an_extended_run_is_idempotent_and_keeps_its_evaluations(workspace):
    config = replace(CONFIG, evaluate_every=0, steps=40)
    train(workspace, config)
    train(workspace, replace(config, steps=44))
    before = files(workspace)
    run = train(workspace, replace(config, steps=44))
    assert [line["step"] for line in run.metrics] == list(range(2, 45, 2))
    assert files(workspace) == before


def test_a_run_killed_while_it_is_extended_goes_on(workspace):
    expected = train(workspace, replace(CONFIG, steps=18)) and files(workspace)
    workspace.remove("runs/rho_loss")
    train(workspace, CONFIG)
    plan = plan_training(workspace, replace(CONFIG, steps=18))
    Run(workspace, plan.name).begin(plan.facts())  # as far as a run gets that is killed before its first step
    assert not workspace.exists("runs/rho_loss/model.safetensors")
    train(workspace, replace(CONFIG, steps=18))
    assert files(workspace) == expected


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (
            {"schedule": "cosine"},
            {"steps": 18},
            "12 steps under schedule cosine, whose .* for 18: .*constant",
        ),
        ({"warmup": 0.5}, {"steps": 18}, "a warm-up that is a share of the budget"),
        ({}, {"steps": 6}, "has a budget of 12 steps, asked for 6: choose another --name"),
        ({}, {"steps": 18, "learning_rate": 0.5}, "config.learning_rate 0.001, asked for 0.5"),
    ],
)
def test_an_unextendable_run_says_why_in_one_line(workspace, first, then, message):
    config = replace(CONFIG, **first)
    train(workspace, config)
    before = files(workspace)
    with pytest.raises(WorkspaceError, match=message) as caught:
        train(workspace, replace(config, **then))
    assert "\n" not in str(caught.value)
    assert files(workspace) == before


def test_a_wrong_optimizer_stops_before_the_run_has_a_folder(workspace):
    with pytest.raises(ConfigError, match="AdamW takes no momentum"):
        train(workspace, replace(CONFIG, momentum=0.9))
    assert not workspace.exists("runs/rho_loss/run.json")
