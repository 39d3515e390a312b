"""Curves, ranges over seeds, and what it took to reach a target: from metrics made by hand."""

import io

import pytest
from PIL import Image

from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.comparison.comparison import Comparison, report
from rhostream.pipeline.comparison.curves import Curve, band, charged, curve
from rhostream.pipeline.comparison.over_seeds import Spread, spread, spread_until
from rhostream.pipeline.comparison.plots import accuracy_chart
from rhostream.pipeline.training.properties import PASSED_OVER
from rhostream.pipeline.training.run import RUN_FORMAT, Run
from rhostream.schema import COST_UNITS, COSTS, METRICS

#: Powers of two: a sum tells which of them are in it.
SECONDS = dict(zip(COSTS, (1.0, 2.0, 4.0, 8.0, 1024.0, 16.0, 32.0), strict=True))
FACTORS = {"seconds": 1.0, "cpu_seconds": 3.0, "flops": 1e12}


def line(step, accuracy, il_runs=1, il=True):
    """Metrics of a run whose every step costs SECONDS, and that was charged 1/il_runs of an IL model."""
    assert list(SECONDS) == ["load", "score", "auto", "train", "evaluate", "il_train", "il_score"]
    costs = {
        f"{unit}_{cost}": factor * (value / il_runs * il if cost.startswith("il_") else value * step)
        for unit, factor in FACTORS.items()
        for cost, value in SECONDS.items()
    }
    properties = {**dict.fromkeys(PASSED_OVER, 0), "selected": 4, "candidates": 8}
    return costs | properties | {"step": step, "test_accuracy": accuracy, "il_runs": il_runs}


@pytest.mark.parametrize(("il_runs", "il"), [(None, 12.0), (1, 48.0), (4, 12.0), (8, 6.0)])
def test_evaluation_is_free_and_the_il_model_shared_by_runs(il_runs, il):
    metrics = line(10, 0.5, il_runs=4)
    assert charged(metrics, "seconds", il_runs) == 150 + il
    assert charged(metrics, "cpu_seconds", il_runs) == 3 * (150 + il)
    assert charged(metrics, "flops", il_runs) == 1e12 * (150 + il)


def test_a_curve_passes_over_lines_without_an_accuracy():
    found = curve([line(1, 0.1), line(2, None), line(3, 0.3)], il_runs=1)
    assert (found.steps, found.accuracy) == ((1, 3), (0.1, 0.3))
    assert found.costs["seconds"] == (15 + 48, 45 + 48)


def test_a_band_spans_the_steps_that_all_seeds_have():
    def made(steps, seconds, accuracy):
        costs = {unit: tuple(FACTORS[unit] * value for value in seconds) for unit in COST_UNITS}
        return Curve(steps=steps, costs=costs, accuracy=accuracy)

    found = band(
        "a",
        [
            made((1, 2, 3), (1, 2, 3), (0.1, 0.2, 0.3)),
            made((2, 3), (5, 9), (0.6, 0.4)),
            made((2, 3, 4), (4, 6, 8), (0.4, 0.5, 0.6)),
        ],
    )
    assert found.steps == (2, 3)
    assert (found.lowest, found.accuracy, found.highest) == ((0.2, 0.3), (0.4, 0.4), (0.6, 0.5))
    assert found.costs["cpu_seconds"] == (12, 18)


def test_never_is_infinite_in_medians_and_ranges():
    assert spread_until([150, 200, None]) == Spread(median=200, lowest=150, highest=None, known=2, of=3)
    assert spread_until([150, None, None]) == Spread(median=None, lowest=150, highest=None, known=1, of=3)
    assert spread_until([100, 200, 300, None]) == Spread(median=250, lowest=100, highest=None, known=3, of=4)
    assert spread_until([None]) == Spread(median=None, lowest=None, highest=None, known=0, of=1)


def test_what_is_not_known_is_no_part_of_a_range():
    assert spread([0.25, None, 0.75]) == Spread(median=0.5, lowest=0.25, highest=0.75, known=2, of=3)
    assert spread([None, None]) == Spread(median=None, lowest=None, highest=None, known=0, of=2)


@pytest.fixture
def compared(tmp_path) -> Comparison:
    """Two variants of three seeds, one of which never reaches 60%; charged for 4 runs, reported for 2."""

    def finished(name, seed, accuracies, il):
        run = Run(Workspace(tmp_path), name)
        run.begin({"format_version": RUN_FORMAT, "config": {"seed": seed}, "evaluated_on": "test"})
        for number, accuracy in enumerate(accuracies, 1):
            known = dict.fromkeys(METRICS.names) | line(10 * number, accuracy, il_runs=4, il=il)
            run.add_metrics(known)
        return run

    rising = [(0.2, 0.4, 0.7), (0.2, 0.65, 0.5), (0.1, 0.3, 0.5)]
    plain = [finished(f"uniform-seed{seed}", seed, row, il=False) for seed, row in enumerate(rising)]
    chosen = [finished(f"rho_loss-seed{seed}", seed, (0.6, 0.7, 0.8), il=True) for seed in range(3)]
    return report(["uniform", "rho_loss"], [plain, chosen], (0.6, 0.9), il_runs=2)


def test_targets_count_from_the_first_evaluation_that_reaches_them(compared):
    uniform, rho_loss = (variant.reached[0.6] for variant in compared.variants)
    assert uniform["steps"] == Spread(median=30, lowest=20, highest=None, known=2, of=3)
    assert uniform["seconds"] == Spread(median=450, lowest=300, highest=None, known=2, of=3)
    assert uniform["seconds_whole_il"] == uniform["seconds"]
    assert (rho_loss["steps"].median, rho_loss["seconds"].median) == (10, 150 + 24)
    assert rho_loss["cpu_seconds_whole_il"].median == 3 * (150 + 48)
    assert rho_loss["flops"].median == 1e12 * (150 + 24)
    assert compared.variants[1].reached[0.9]["steps"] == Spread(median=None, lowest=None, highest=None, known=0, of=3)
    assert compared.variants[0].final_accuracy == Spread(median=0.5, lowest=0.5, highest=0.7, known=3, of=3)


def test_each_seeds_costs_are_for_runs_sharing_the_il_model(compared):
    outcome = compared.variants[1].runs[2]
    assert (outcome.seed, outcome.seconds["il_train"], outcome.cpu_seconds["il_score"]) == (2, 8.0, 48.0)
    assert outcome.seconds["evaluate"] == 30 * 1024.0


def test_the_chart_shows_every_variant(compared):
    bands = [variant.band for variant in compared.variants]
    both, one, none = (Image.open(io.BytesIO(accuracy_chart(shown, (0.6,)))) for shown in (bands, bands[:1], []))
    assert both.size == one.size == none.size
    orange = (213, 94, 0)  # of the second line
    assert orange in {color for _, color in both.convert("RGB").getcolors(1 << 24)}
    assert orange not in {color for _, color in one.convert("RGB").getcolors(1 << 24)}
