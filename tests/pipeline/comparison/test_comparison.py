"""`rho train --compare` end to end: variants and seeds, tables, JSON, plot, killed and restarted."""

import json
import re
import statistics

import pytest
from click.testing import CliRunner
from helpers.killable import finish, start
from helpers.tiny import write_il, write_workspace
from PIL import Image

from rhostream.cli.train import train as train_command
from rhostream.pipeline.il.metadata import write_il_cost

VARIANTS = "uniform:batch_size=8:steps=30,rho_loss"
CHART = "comparisons/uniform-batch_size8-steps30+rho_loss-seeds3-4.png"
RUNS = [f"{variant}-seed{seed}" for variant in ("uniform-batch_size8-steps30", "rho_loss") for seed in (3, 4)]
OPTIONS = [
    "--compare",
    VARIANTS,
    "--seeds",
    "3,4",
    "--model",
    "mlp",
    "--batch-size",
    "4",
    "--super-batch-size",
    "16",
    "--steps",
    "20",
    "--evaluate-every",
    "5",
    "--device",
    "cpu",
    "--threads",
    "1",
    "--il-runs",
    "5",
]


def make(folder):
    workspace = write_workspace(folder, (40, 40, 20), test_rows=30)
    write_il(workspace)
    write_il_cost(workspace, "strided_cnn", "train", "il_train", seconds=500.0, cpu_seconds=600.0, flops=7e13)
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return make(tmp_path_factory.mktemp("compare") / "w")


def rho_train(workspace, *more, code=0):
    result = CliRunner().invoke(train_command, ["--workspace", workspace.location, *OPTIONS, *more])
    if code == 0 and result.exception is not None:
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def metrics(workspace, run):
    return [json.loads(line) for line in workspace.read_bytes(f"runs/{run}/metrics.jsonl").decode().splitlines()]


def test_json_tells_every_seed_and_agrees_with_the_metrics(workspace):
    found = json.loads(rho_train(workspace, "--targets", "0.4", "--json").stdout)
    assert [outcome["run"] for variant in found["variants"] for outcome in variant["runs"]] == RUNS
    for variant, names in zip(found["variants"], (RUNS[:2], RUNS[2:]), strict=True):
        reached = []
        for outcome, name in zip(variant["runs"], names, strict=True):
            lines = metrics(workspace, name)
            assert outcome["final_accuracy"] == lines[-1]["test_accuracy"]
            assert (outcome["steps"], outcome["seed"]) == (30 if "uniform" in name else 20, int(name[-1]))
            first = next(line for line in lines if line["test_accuracy"] >= 0.4)
            own = sum(first[f"cpu_seconds_{cost}"] for cost in ("load", "score", "auto", "train"))
            il = 0.0 if "uniform" in name else 600.0
            (target,) = outcome["reached"]
            assert target["steps"] == first["step"]
            until = lines[: lines.index(first) + 1]
            assert target["seen"] == sum(line["candidates"] for line in until)
            assert target["trained"] == sum(line["selected"] for line in until)
            assert target["cpu_seconds"] == pytest.approx(own + il / 5)
            assert target["cpu_seconds_whole_il"] == pytest.approx(own + il)
            reached.append(first["step"])
        (summary,) = variant["reached"]
        assert summary["steps"]["median"] == statistics.median(reached)
        assert (summary["steps"]["lowest"], summary["steps"]["highest"]) == (min(reached), max(reached))
    assert found["plot"] == workspace.path(CHART)
    assert Image.open(found["plot"]).width > 1000


def test_changing_the_runs_that_share_the_il_model_trains_nothing(workspace):
    options = ("--targets", "0.4", "--json", "--il-runs")
    five, one = (json.loads(rho_train(workspace, *options, runs).stdout)["variants"][1] for runs in ("5", "1"))
    for few, many in zip(one["runs"], five["runs"], strict=True):
        assert few["reached"][0]["seconds"] == pytest.approx(many["reached"][0]["seconds"] + 400)
        assert few["reached"][0]["seconds_whole_il"] == pytest.approx(many["reached"][0]["seconds_whole_il"])


def test_the_tables_give_each_targets_median_and_range(workspace, tmp_path):
    plot = tmp_path / "chart.png"
    result = rho_train(workspace, "--targets", "0.4,1.0", "--plot", str(plot))
    overview, reached, *_ = result.stdout.split("\n\n")
    assert re.search(r"^final accuracy +\d+\.\d% \(\d+\.\d%–\d+\.\d%\) +\d+", overview, re.MULTILINE)
    header, _, uniform, rho_loss = (re.split("  +", row) for row in reached.splitlines())
    assert header == [
        "to 40.0% accuracy",
        "steps",
        "samples seen",
        "trained on",
        "seconds",
        "CPU-seconds",
        "TFLOPs",
        "seconds, whole IL",
        "CPU-seconds, whole IL",
        "TFLOPs, whole IL",
    ]
    assert uniform[:1] + rho_loss[:1] == ["uniform:batch_size=8:steps=30", "rho_loss"]
    assert all(re.fullmatch(r"[\d.,]+ \([\d.,]+–[\d.,]+\)", cell) for cell in uniform[1:] + rho_loss[1:])
    assert uniform[4:7] == uniform[7:]
    assert uniform[2:4] == uniform[2:3] * 2  # it trains on all that it sees
    assert float(rho_loss[6].split()[0]) == pytest.approx(14.0, abs=0.1)
    assert float(rho_loss[9].split()[0]) == pytest.approx(70.0, abs=0.1)
    assert "charged with 1/5 of it" in result.stdout
    assert str(plot) in result.stderr
    assert Image.open(plot).format == "PNG"


def test_a_metric_that_is_asked_for_is_compared_by(workspace):
    found = json.loads(rho_train(workspace, "--metric", "mcc", "--targets", "0.1", "--json").stdout)
    for outcome in (each for variant in found["variants"] for each in variant["runs"]):
        lines = metrics(workspace, outcome["run"])
        assert outcome["final_accuracy"] == lines[-1]["test_mcc"]
        assert outcome["final_qualities"]["macro F1"] == lines[-1]["test_f1"]
        reached = [line["step"] for line in lines if line["test_mcc"] >= 0.1]
        assert outcome["reached"][0]["steps"] == (reached[0] if reached else None)
    table = rho_train(workspace, "--metric", "mcc").stdout
    assert re.search("^final Matthews correlation +.*\nfinal accuracy +.*\nfinal macro F1", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--compare", "uniform,rho_loss:metric=f1"], "all variants are compared by it"),
        (["--compare", "uniform,uniform:batchsize=8"], "did you mean 'batch_size'"),
        (["--compare", "uniform,uniform"], "each variant once"),
        (["--compare", "rho_loss,rho_loss:seed=5"], "seed of its own"),
        (["--compare", "uniform,rho_loss:model=resnet51"], "resnet51"),
        (["--seeds", "1,1"], "each seed once"),
        (["--seeds", "1,x"], "not a list of numbers"),
        (["--plot", "chart.pdf"], "end it in .png"),
        (["--plot", "no/such/folder/chart.png"], "there is no folder no/such/folder"),
    ],
)
def test_mistakes_are_refused_before_anything_is_trained(tmp_path, more, message):
    workspace = write_workspace(tmp_path / "w", (40, 40), test_rows=10)
    write_il(workspace)
    of_click = more[1] in ("1,x", "chart.pdf")  # the others are told by the library
    result = rho_train(workspace, *more, code=2 if of_click else 1)
    assert message in (str(result.exception) if result.exit_code == 1 else result.stderr)
    assert workspace.names("runs") == []


def test_a_killed_comparison_goes_on_where_it_stopped(tmp_path):
    def results(folder):
        files = [file for run in RUNS for file in (folder / "runs" / run).rglob("*")]
        kept = [file for file in files if file.suffix in (".parquet", ".safetensors")]
        return {str(file.relative_to(folder)): file.read_bytes() for file in kept}

    for name in ("whole", "killed"):
        make(tmp_path / name)
    finish(["--version"])
    finish(["train", "--workspace", str(tmp_path / "whole"), *OPTIONS])
    folder = tmp_path / "killed"
    command = ["train", "--workspace", str(folder), *OPTIONS]
    for run in RUNS[0], RUNS[2]:  # killed when it has a checkpoint, in each of two runs
        process = start(command)
        while process.is_alive() and not (folder / "runs" / run / "checkpoints" / "last.pt").exists():
            process.join(0.01)
        process.kill()
        process.join()
    kept = (folder / "runs" / RUNS[0] / "model.safetensors").stat().st_mtime_ns
    finish(command)
    assert (folder / "runs" / RUNS[0] / "model.safetensors").stat().st_mtime_ns == kept
    assert results(folder) == results(tmp_path / "whole")
    assert (folder / CHART).exists()
