"""`auto`: the selection that pays is found, on made-up learning curves and in a real run."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from helpers.tiny import write_il, write_workspace

from rhostream import ConfigError
from rhostream.loaders.index.validation_samples import is_validation_sample
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.training.loop import train
from rhostream.selection import Auto, SelectionConfig
from rhostream.selection.policies.arms import Arm, usual_arms
from rhostream.selection.policies.auto import Validation


class Learning:
    """A model whose loss falls as a power of the time spent, with an exponent that the selection decides."""

    def __init__(self, exponents: dict[str, float], gains: dict[str, float] | None = None) -> None:
        self.exponents, self.gains = exponents, gains or {}
        self.seconds, self.loss = 0.0, 2.3
        self.spent = dict.fromkeys(exponents, 0.0)

    def step(self, name: str, seconds: float = 0.01) -> None:
        before, self.seconds = self.seconds, self.seconds + seconds
        self.spent[name] += seconds
        if before:
            self.loss *= (self.seconds / before) ** -self.exponents[name]

    def validate(self) -> Validation:
        self.seconds += 0.005
        return Validation(loss=self.loss, error=1.0)

    def auto(self) -> Auto:
        selections = [
            SelectionConfig(function="uniform", batch_size=size) for size in range(1, 1 + len(self.exponents))
        ]
        arms = {name: Arm(selection=each) for name, each in zip(self.exponents, selections, strict=True)}
        arms = {name: replace(arm, gain=self.gains.get(name, 1.0)) for name, arm in arms.items()}
        return Auto(arms, super_batch_size=8, validate=self.validate, clock=lambda: 100.0 + self.seconds)


def run(learning: Learning, auto: Auto, until: float) -> None:
    while learning.seconds < until:
        size = auto.next().batch_size  # each arm, and each probe, has its own
        learning.step(next(name for name, arm in auto.arms.items() if arm.selection.batch_size == size))
        auto.stepped()


def test_cost_and_expected_gain_of_a_step_decide_first():
    class Costly(Learning):
        def step(self, name: str, seconds: float = 0.01) -> None:
            super().step(name, {"a": 0.03, "b": 0.01, "c": 0.02}[name])

    for gains, first in (({}, "b"), ({"a": 4.0}, "a"), ({"c": 2.5}, "c")):
        learning = Costly({"a": 0.3, "b": 0.3, "c": 0.3}, gains)
        auto = learning.auto()
        while "e:" not in auto.note:
            run(learning, auto, learning.seconds + 0.001)
        assert auto.current == first
        assert all(learning.spent.values())


@pytest.mark.parametrize(("promising", "others"), [(0.0, 0.3), (0.01, 0.3), (0.1, 0.5)])
def test_a_selection_that_disappoints_its_expectation_is_left(promising, others):
    learning = Learning({"a": promising, "b": others, "c": others}, {"a": 3.0})
    auto = learning.auto()
    run(learning, auto, 30.0)
    assert learning.spent["a"] < 0.35 * sum(learning.spent.values())


@pytest.mark.parametrize("wrong", [math.nan, 1e-6, 50.0])
def test_one_validation_gone_wrong_does_not_stop_the_learning(monkeypatch, wrong):
    learning = Learning({"a": 0.0, "b": 0.3, "c": 0.3}, {"a": 3.0})
    auto = learning.auto()
    run(learning, auto, 5.0)
    right, spent = learning.validate, learning.spent["a"]
    monkeypatch.setattr(auto, "_validate", lambda: Validation(loss=wrong, error=1.0))
    slice_ends = auto.state_dict()["until"]
    run(learning, auto, slice_ends + 0.02)
    monkeypatch.setattr(auto, "_validate", right)
    run(learning, auto, 200.0)
    assert "nan" not in auto.note
    assert learning.spent["a"] - spent < 0.4 * 200


@pytest.mark.parametrize("best", ["a", "b", "c"])
def test_most_time_goes_to_the_fastest_falling_loss(best):
    learning = Learning({"a": 0.3, "b": 0.3, "c": 0.3} | {best: 0.6})
    auto = learning.auto()
    run(learning, auto, 60.0)
    assert auto.current == best
    assert learning.spent[best] > 0.8 * sum(learning.spent.values())
    assert best in auto.note


def test_it_moves_on_when_another_selection_begins_to_pay():
    learning = Learning({"a": 0.6, "b": 0.3})
    auto = learning.auto()
    run(learning, auto, 10.0)
    assert learning.spent["a"] > 0.6 * sum(learning.spent.values())
    learning.exponents = {"a": 0.0, "b": 0.3}
    run(learning, auto, 100.0)
    before = dict(learning.spent)
    run(learning, auto, 300.0)
    spent = {name: learning.spent[name] - before[name] for name in before}
    assert spent["b"] > 0.6 * sum(spent.values())


def test_validating_takes_a_bounded_share_of_the_time():
    learning = Learning({"a": 0.5, "b": 0.4})
    run(learning, learning.auto(), 20.0)
    validating = learning.seconds - sum(learning.spent.values())
    assert 0 < validating < 0.1 * learning.seconds


@pytest.mark.parametrize("at", [0.03, 3.0])  # seconds: while costs are measured, and later
def test_it_goes_on_from_its_state(at):
    learning = Learning({"a": 0.3, "b": 0.5, "c": 0.4})
    auto = learning.auto()
    run(learning, auto, at)
    assert (auto.note == "measuring costs") == (at < 1)
    state = auto.state_dict()
    other = Learning(learning.exponents)
    other.seconds, other.loss = learning.seconds, learning.loss
    again = other.auto()
    again.load_state_dict(state)
    run(learning, auto, 20.0)
    run(other, again, 20.0)
    assert (other.loss, again.note, again.state_dict()) == (learning.loss, auto.note, auto.state_dict())


def super_batches(
    auto: Auto, seconds: Callable[[SelectionConfig, int], float], elapse: Callable[[float], None]
) -> Iterator[str]:
    """Train on super-batches of 320 without end; what each is for.

    Args:
        seconds: that one takes, by its selection and its number of steps.
    """
    waiting = 0
    while True:
        selection = auto.next()
        yield auto.note.split(" ")[0]
        waiting += selection.quota(320, 320)
        steps, waiting = divmod(waiting, selection.batch_size)
        elapse(seconds(selection, steps))
        for _ in range(steps):
            auto.stepped()


@pytest.mark.parametrize("scoring", [0.0, 0.00003, 0.0003])
def test_costs_of_untried_arms_follow_from_a_few_steps(scoring):
    def training(size: int) -> float:
        return 0.002 + 0.00009 * size

    def seconds(selection: SelectionConfig, steps: int) -> float:
        return steps * training(selection.batch_size) + (320 * scoring if selection.scores else 0.0)

    def elapse(more: float) -> None:
        now[0] += more

    arms, now = usual_arms(32, 320, 0.2, 0.15, filters=True), [0.0]
    auto = Auto(arms, super_batch_size=320, validate=lambda: Validation(loss=1.0, error=0.2), clock=lambda: now[0])
    for name in super_batches(auto, seconds, elapse):
        if name != "measuring":
            break
    costs = [training(arm.selection.batch_size) + arm.candidates * scoring for arm in arms.values()]
    expected = [arm.expected(0.2 / 3) / cost for arm, cost in zip(arms.values(), costs, strict=True)]
    ranked = sorted(zip(expected, arms, strict=True), reverse=True)
    assert [name for _, name in ranked] == [part.split(" ")[0] for part in auto.note.split("e: ")[1].split(", ")]


@pytest.mark.parametrize(("ruled_out", "filters"), [(0.4, True), (0.9, False)])
def test_little_precedes_the_first_slice_in_the_optimizers_memory(ruled_out, filters):
    now, probes = [0.0], []
    arms = usual_arms(32, 320, ruled_out, 0.4, filters=filters)
    auto = Auto(arms, super_batch_size=320, validate=lambda: Validation(loss=1.0, error=0.9), clock=lambda: now[0])
    while "e:" not in auto.note:
        probes.append(auto.next())
        now[0] += 0.01
        auto.stepped()
    *probes, first = probes
    assert [(each.function, each.batch_size, round(320 * each.share)) for each in probes] == 2 * [
        ("uniform", 128, 256),
        ("uniform", 32, 64),
        ("learnable", 128, 256),
    ]
    assert {each.prefilter for each in probes} == {filters}
    assert first == arms[auto.current].selection


@pytest.mark.parametrize(
    "arms",
    [
        usual_arms(32, 32, ruled_out=0.1, wrong=0.1, filters=True),  # nothing to choose from: none scores
        usual_arms(32, 48, ruled_out=0.1, wrong=0.0, filters=False),
        {  # none that does not score; two that cost the same
            str(number): Arm(
                selection=SelectionConfig(batch_size=size, share=share, prefilter=filters), candidates=size / share
            )
            for number, (size, share, filters) in enumerate(
                [(8, 0.1, False), (8, 0.1, True), (8, 0.2, False), (16, 0.2, False)]
            )
        },
    ],
)
def test_any_arms_will_do(arms):
    seconds = 0.0

    def validate() -> Validation:
        return Validation(loss=2.3 / (1 + seconds), error=0.5)

    auto = Auto(arms, super_batch_size=80, validate=validate, clock=lambda: seconds)
    for _ in range(300):
        selection = auto.next()
        seconds += 0.02 if selection.scores else 0.01
        auto.stepped()
    assert all(name in auto.note for name in arms)


def test_the_usual_arms_cover_uniform_the_filter_and_several_ratios():
    arms = usual_arms(32, 320, 0.4, 0.4, filters=True)
    selections = [arm.selection for arm in arms.values()]
    assert {(each.function, each.batch_size, each.prefilter, round(each.share, 2)) for each in selections} == {
        ("uniform", 32, True, 1.0),
        ("uniform", 128, True, 1.0),
        ("uniform", 32, False, 1.0),
        ("uniform", 128, False, 1.0),
        ("learnable", 32, True, 0.1),
        ("learnable", 32, True, 0.25),
        ("learnable", 128, True, 0.4),
    }
    assert [arm.candidates for arm in arms.values() if arm.selection.scores] == pytest.approx([320, 128, 320])
    assert arms["filter@32"].gain == pytest.approx(1.0)
    assert arms["filter@128"].gain == pytest.approx(4**0.75)
    assert arms["uniform@128"].gain == pytest.approx(0.6**1.5 * 4**0.75)
    assert arms["learnable@32/0.1"].gain == pytest.approx(0.1 ** (-0.3 * 0.6**2))  # of what the filter has left
    assert {"learnable@32/0.25", "learnable@32/0.62"} == {
        name for name in usual_arms(32, 128, 0.1, 0.1, filters=True) if "learnable" in name
    }
    assert not any("learnable" in name for name in usual_arms(32, 32, 0.1, 0.1, filters=True))
    with pytest.raises(ConfigError, match="at least one"):
        Auto({}, super_batch_size=320, validate=lambda: Validation(loss=1.0, error=0.5), clock=lambda: 0.0)
    with pytest.raises(ConfigError, match="'rho_loss' scores: say how many candidates"):
        Arm(selection=SelectionConfig())


def test_the_filters_wrong_omissions_count_once_the_learner_is_good():
    clean = usual_arms(32, 320, 0.04, 0.0, filters=False)  # whose labels are right
    assert [name for name, arm in clean.items() if arm.selection.prefilter] == ["filter@128"]
    assert clean["filter@128"].expected(0.3) > 0.85 * clean["uniform@128"].expected(0.3)
    # A quarter of the 0.04 that is left out is not learnt from the others, of whom 0.96 * 0.01 are wrong at last.
    assert clean["filter@128"].expected(0.01) == pytest.approx(0.96 / 1.96 * clean["uniform@128"].expected(0.01))
    noisy = usual_arms(32, 320, 0.17, 0.15, filters=True)
    assert noisy["filter@128"].expected(0.33) > noisy["uniform@128"].expected(0.33)
    assert noisy["filter@128"].expected(0.01) < noisy["uniform@128"].expected(0.05)
    assert usual_arms(32, 320, 0.9, 0.5, filters=True)["filter@128"].expected(0.0) > 0


@pytest.mark.slow
def test_an_auto_run_keeps_validation_samples_reports_itself_and_learns(tmp_path):
    workspace = write_workspace(tmp_path / "w", (200, 200), test_rows=30)
    write_il(workspace)
    config = TrainConfig(
        model="mlp",
        select="auto",
        batch_size=4,
        super_batch_size=16,
        steps=400,
        evaluate_every=100,
        device="cpu",
        threads=1,
        il_runs=5,
    )
    run = train(workspace, config)
    rows = [
        row
        for name in workspace.names("runs/auto/ledger")
        for row in workspace.read_table(f"runs/auto/ledger/{name}").to_pylist()
    ]
    assert len({row["selection"] for row in rows}) > 2
    keys = [f"s{n}" for n in range(400)]
    held = {key for key, is_held in zip(keys, is_validation_sample(keys, 0.05), strict=True) if is_held}
    assert 5 < len(held) < 40
    assert {row["key"] for row in rows if row["reason"] == "validation"} == held
    assert not any(row["selected"] for row in rows if row["key"] in held)
    last = run.metrics[-1]
    assert last["test_accuracy"] > 0.9
    assert last["seconds_auto"] > 0
    assert "e:" in last["decision"]
    assert sum(line["validation"] for line in run.metrics) > 0


def test_auto_refuses_its_own_decisions_and_too_small_a_corpus(tmp_path):
    with pytest.raises(ConfigError, match="decides on share"):
        TrainConfig(select="auto", share=0.5)
    workspace = write_workspace(tmp_path / "w", (8,), test_rows=4)
    write_il(workspace)
    config = TrainConfig(model="mlp", select="auto", batch_size=2, super_batch_size=4, steps=2, device="cpu")
    with pytest.raises(ConfigError, match="the corpus is too small"):
        train(workspace, replace(config, threads=1))
