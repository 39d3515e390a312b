"""`auto`: the selection that pays is found, on made-up learning curves and in a real run."""

import math
from dataclasses import replace
from itertools import groupby

import pytest
from tiny import write_il, write_workspace

from rhostream import ConfigError
from rhostream.loaders.held_back import held_back
from rhostream.pipeline.train import train
from rhostream.pipeline.train_config import TrainConfig
from rhostream.selection import Auto, Selection
from rhostream.selection.auto import Arm, Validation, usual_arms


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
        selections = [Selection(function="uniform", batch_size=size) for size in range(1, 1 + len(self.exponents))]
        arms = {name: Arm(selection=each) for name, each in zip(self.exponents, selections, strict=True)}
        arms = {name: replace(arm, gain=self.gains.get(name, 1.0)) for name, arm in arms.items()}
        return Auto(arms, validate=self.validate, clock=lambda: 100.0 + self.seconds)


def run(learning: Learning, auto: Auto, until: float) -> None:
    while learning.seconds < until:
        selection = auto.next()
        learning.step(next(name for name, arm in auto.arms.items() if arm.selection == selection))
        auto.stepped()


def test_what_a_step_costs_and_is_expected_to_gain_decides_first():
    class Costly(Learning):
        def step(self, name: str, seconds: float = 0.01) -> None:
            super().step(name, {"a": 0.03, "b": 0.01, "c": 0.02}[name])

    for gains, first in (({}, "b"), ({"a": 4.0}, "a"), ({"c": 2.5}, "c")):
        learning = Costly({"a": 0.3, "b": 0.3, "c": 0.3}, gains)
        auto = learning.auto()
        tried = set()
        while "e:" not in auto.note:
            run(learning, auto, learning.seconds + 0.001)
            tried.add(auto.current)
        assert auto.current == first
        assert tried == {"a", "b", "c"}


@pytest.mark.parametrize(("promising", "others"), [(0.0, 0.3), (0.01, 0.3), (0.1, 0.5)])
def test_a_selection_that_does_not_keep_what_was_expected_of_it_is_left(promising, others):
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
def test_most_of_the_time_goes_to_the_selection_under_which_loss_falls_fastest(best):
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


def test_it_goes_on_from_its_state():
    learning = Learning({"a": 0.3, "b": 0.5, "c": 0.4})
    auto = learning.auto()
    run(learning, auto, 3.0)
    state = auto.state_dict()
    other = Learning(learning.exponents)
    other.seconds, other.loss = learning.seconds, learning.loss
    again = other.auto()
    again.load_state_dict(state)
    run(learning, auto, 20.0)
    run(other, again, 20.0)
    assert (other.loss, again.note, again.state_dict()) == (learning.loss, auto.note, auto.state_dict())


def test_costs_of_arms_that_were_not_tried_follow_from_those_of_a_few():
    def seconds(selection: Selection) -> float:
        candidates = selection.batch_size / selection.share if selection.scored else 0.0
        return 0.002 + 0.00009 * selection.batch_size + 0.00003 * candidates

    arms, now, tried = usual_arms(32, 320, 0.2, 0.15), [0.0], []
    auto = Auto(arms, validate=lambda: Validation(loss=1.0, error=0.2), clock=lambda: now[0])
    while "e:" not in auto.note:
        selection = auto.next()
        tried += [name for name in arms if arms[name].selection == selection and name not in tried]
        now[0] += seconds(selection)
        auto.stepped()
    costs, gains = [seconds(arm.selection) for arm in arms.values()], [arm.expected(0.2) for arm in arms.values()]
    expected = [gain / cost for gain, cost in zip(gains, costs, strict=True)]
    assert set(tried) - {auto.current} == {"uniform@32", "uniform@128"} - {auto.current}
    assert len(arms) == 7
    ranked = sorted(zip(expected, arms, strict=True), reverse=True)
    assert [name for _, name in ranked] == [part.split(" ")[0] for part in auto.note.split("e: ")[1].split(", ")]


def test_scoring_that_costs_more_than_a_forward_pass_should_is_seen_on_one_arm_and_believed_of_all():
    now = [0.0]
    arms = {  # with scoring as cheap as is usual the last of them would be the best
        "plain": Arm(selection=Selection(function="uniform", batch_size=32, share=1.0)),
        "half": Arm(selection=Selection(batch_size=32, share=0.5), gain=2.0, candidates=64),
        "tenth": Arm(selection=Selection(batch_size=32, share=0.1), gain=6.0, candidates=320),
    }
    auto = Auto(arms, validate=lambda: Validation(loss=1.0, error=0.2), clock=lambda: now[0])
    used = []
    while len(used) < 400:
        auto.next()
        used.append(auto.current)
        now[0] += 0.01 * (1 + arms[auto.current].candidates / 32)
        auto.stepped()
    # "half", next by the first estimate, 2 / 1.67 a second, is worth 2 / 3.
    assert [name for name, _ in groupby(used)][:3] == ["plain", "tenth", "plain"]


@pytest.mark.parametrize(
    "arms",
    [
        usual_arms(32, 32, ruled_out=0.1, wrong=0.1),  # nothing to choose from: none scores
        usual_arms(32, 48, ruled_out=0.1, wrong=0.0),
        {  # none that does not score; two that cost the same
            str(number): Arm(
                selection=Selection(batch_size=size, share=share, prefilter=filters), candidates=size / share
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

    auto = Auto(arms, validate=validate, clock=lambda: seconds)
    for _ in range(300):
        auto.next()
        seconds += 0.01 * (1 + auto.arms[auto.current].candidates / 80)
        auto.stepped()
    assert all(name in auto.note for name in arms)


def test_the_usual_arms_are_uniform_sampling_the_filter_and_rho_loss_at_several_ratios():
    arms = usual_arms(32, 320, 0.4, 0.4)
    selections = [arm.selection for arm in arms.values()]
    assert {(each.function, each.batch_size, each.prefilter, round(each.share, 2)) for each in selections} == {
        ("uniform", 32, True, 1.0), ("uniform", 128, True, 1.0), ("uniform", 32, False, 1.0),
        ("uniform", 128, False, 1.0), ("rho_loss", 32, True, 0.1), ("rho_loss", 32, True, 0.25),
        ("rho_loss", 128, True, 0.4),
    }  # fmt: skip
    assert [arm.candidates for arm in arms.values() if arm.selection.scored] == pytest.approx([320, 128, 320])
    assert arms["filter@32"].gain == pytest.approx(1.0)
    assert arms["filter@128"].gain == pytest.approx(4**0.75)
    assert arms["uniform@128"].gain == pytest.approx(0.6 * 4**0.75)
    assert arms["rho_loss@32/0.1"].gain == pytest.approx(0.1**-0.3)
    assert {"rho_loss@32/0.25", "rho_loss@32/0.62"} == {name for name in usual_arms(32, 128, 0.1, 0.1) if "rho" in name}
    assert not any("rho" in name for name in usual_arms(32, 32, 0.1, 0.1))
    with pytest.raises(ConfigError, match="at least one"):
        Auto({}, validate=lambda: Validation(loss=1.0, error=0.5), clock=lambda: 0.0)
    with pytest.raises(ConfigError, match="'rho_loss' scores: say how many candidates"):
        Arm(selection=Selection())


def test_what_a_filter_wrongly_leaves_out_counts_once_the_learner_is_good():
    clean = usual_arms(32, 320, 0.04, 0.0)  # whose labels are right: all that the filter rules out is hard
    assert [name for name, arm in clean.items() if arm.selection.prefilter] == ["filter@128"]
    assert clean["filter@128"].expected(0.9) > 0.95 * clean["uniform@128"].expected(0.9)
    # 0.96 * 0.04 of the errors can fall, 0.04 of the samples is left out.
    assert clean["filter@128"].expected(0.04) == pytest.approx(0.96 / 1.96 * clean["uniform@128"].expected(0.04))
    noisy = usual_arms(32, 320, 0.2, 0.15)
    assert noisy["filter@128"].expected(0.5) > noisy["uniform@128"].expected(0.5)
    assert noisy["filter@128"].expected(0.05) < noisy["uniform@128"].expected(0.05)
    assert usual_arms(32, 320, 0.9, 0.5)["filter@128"].expected(0.0) > 0


def test_a_run_under_auto_holds_samples_back_tells_what_it_did_and_learns(tmp_path):
    workspace = write_workspace(tmp_path / "w", (200, 200), test_rows=30)
    write_il(workspace)
    config = TrainConfig(
        model="mlp", select="auto", batch_size=4, super_batch_size=16, steps=400, evaluate_every=100, device="cpu",
        threads=1, il_runs=5,
    )  # fmt: skip
    run = train(workspace, config)
    rows = [row for name in workspace.names("runs/auto/ledger")
            for row in workspace.read_table(f"runs/auto/ledger/{name}").to_pylist()]  # fmt: skip
    assert len({row["selection"] for row in rows}) > 2
    keys = [f"s{n}" for n in range(400)]
    held = {key for key, is_held in zip(keys, held_back(keys, 0.05), strict=True) if is_held}
    assert 5 < len(held) < 40
    assert {row["key"] for row in rows if row["reason"] == "held_back"} == held
    assert not any(row["selected"] for row in rows if row["key"] in held)
    last = run.metrics[-1]
    assert last["test_accuracy"] > 0.9
    assert last["seconds_auto"] > 0
    assert "e:" in last["decision"]
    assert sum(line["held_back"] for line in run.metrics) > 0


def test_auto_refuses_what_it_decides_itself_and_a_corpus_too_small_to_hold_anything_back(tmp_path):
    with pytest.raises(ConfigError, match="decides on share"):
        TrainConfig(select="auto", share=0.5)
    workspace = write_workspace(tmp_path / "w", (8,), test_rows=4)
    write_il(workspace)
    config = TrainConfig(model="mlp", select="auto", batch_size=2, super_batch_size=4, steps=2, device="cpu")
    with pytest.raises(ConfigError, match="the corpus is too small"):
        train(workspace, replace(config, threads=1))
