"""`rho plan`: costs are measured in real steps, gains follow the IL table, and nothing is written."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from helpers.tiny import write_il, write_workspace

from rhostream.cli.main import rho
from rhostream.errors import ConfigError
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.forecast.selections import Forecast, forecast_selections
from rhostream.pipeline.il.metadata import write_il_cost
from rhostream.pipeline.training.plan import plan_training
from rhostream.pipeline.training.step_cost import measure_step

CONFIG = TrainConfig(
    select="rho_loss",
    model="mlp",
    batch_size=4,
    super_batch_size=20,
    steps=1000,
    device="cpu",
    threads=1,
    workers="0",
    tensorboard=False,
)


def workspace_of(folder: Path, wrong: float, nats: float | None = None) -> Workspace:
    """Of 300 samples, a share of which the IL model contradicts with certainty; the loss of all is `nats`, if given."""
    workspace = write_workspace(folder / "w", (150, 150), side=16)
    write_il(workspace)
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.scores("strided_cnn"))
        rows = table.to_pylist()
        for place, row in enumerate(rows):
            contradicted = place % 10 < 10 * wrong
            row["il"], row["confidence"] = nats or (1.6 if contradicted else 0.05), 0.95
            row["predicted"] = (row["label"] + contradicted) % 3
        workspace.write_table(shard.scores("strided_cnn"), pa.Table.from_pylist(rows, table.schema))
    return workspace


def forecast(workspace: Workspace) -> Forecast:
    return forecast_selections(workspace, CONFIG, seconds=0.05)


def files(workspace: Workspace) -> dict[str, bytes]:
    root = Path(workspace.location)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_gains_follow_what_the_table_tells(tmp_path: Path) -> None:
    noisy = forecast(workspace_of(tmp_path / "noisy", 0.4))
    steps = {each.name: each.steps for each in noisy.selections}
    assert noisy.quality.wrong == pytest.approx(0.4)
    assert noisy.uniform.name == "uniform@4"
    assert steps["uniform@4"] == 1000
    assert steps["filter@4"] == pytest.approx(1000 * 0.6**1.5)  # nothing but wrong labels is ruled out
    assert steps["learnable@4/0.2"] == pytest.approx(1000 * 0.6**1.5 * 0.2 ** (0.3 * 0.6**2))
    clean = forecast(workspace_of(tmp_path / "clean", 0.0))
    assert "filter@4" not in {each.name for each in clean.selections}
    assert clean.quality.ruled_out == 0
    assert {each.name: each.steps for each in clean.selections}["learnable@4/0.2"] == pytest.approx(1000 * 0.2**0.3)


def test_no_batch_is_larger_than_the_corpus(tmp_path: Path) -> None:
    """Of 300 samples the filter leaves 180, and a batch of 4 times 80 would not be filled."""
    config = replace(CONFIG, batch_size=80, super_batch_size=400)
    found = forecast_selections(workspace_of(tmp_path, 0.4), config, seconds=0.01)
    assert {each.settings["batch_size"] for each in found.selections} == {80, 180}


def test_nothing_is_foretold_of_choosing_by_a_weak_table(tmp_path: Path) -> None:
    """It contradicts 40% of the labels and explains none of them."""
    workspace = workspace_of(tmp_path, 0.4, nats=1.1)
    found = forecast(workspace)
    assert found.quality.weak
    assert {each.name for each in found.selections} == {"uniform@4", "uniform@16"}
    settings = ["--model", "mlp", "--batch-size", "4", "--super-batch-size", "20", "--seconds", "0.1", "--workers", "0"]
    said = CliRunner().invoke(rho, ["plan", "--workspace", workspace.location, "--device", "cpu", *settings]).stdout
    assert "too weak to select by" in said
    assert said.splitlines()[-2].endswith("is the cheapest that does not choose by the IL table.")
    assert "--select uniform" in said.splitlines()[-1]


def test_the_reference_table_is_charged_where_it_is_used(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path, 0.4)
    free = forecast(workspace)
    assert free.il_cost == 0
    write_il_cost(workspace, "strided_cnn", "train", "il_train", seconds=50.0, cpu_seconds=1e6, flops=1.0)
    dear = forecast(workspace)
    assert dear.il_cost == 1e6
    assert dear.best.name.startswith("uniform")
    for each in dear.selections:
        step = sum(each.step.cpu_seconds.values())
        charged = 0.0 if each.name.startswith("uniform") else 1e6
        assert each.cost == pytest.approx(charged + each.steps * step)
        if each.pays_from is not None:  # from there on, and no earlier, it costs no more than uniform sampling
            base = sum(dear.uniform.step.cpu_seconds.values())
            assert each.pays_from * base == pytest.approx(charged + each.pays_from * each.steps / dear.steps * step)


def test_a_step_is_measured_as_a_run_takes_it(tmp_path: Path) -> None:
    plan = plan_training(workspace_of(tmp_path, 0.4), CONFIG)
    found = measure_step(plan, seconds=0.05, fewest=6)
    assert found.steps >= 6
    for spent in (found.seconds, found.cpu_seconds):
        assert set(spent) == {"load", "score", "train"}
        assert min(spent["score"], spent["train"]) > 0


def test_the_command_names_the_cheapest_and_writes_nothing(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path, 0.4)
    before = files(workspace)
    settings = ["--workspace", workspace.location, "--model", "mlp", "--batch-size", "4", "--super-batch-size", "20"]
    settings += ["--threads", "1", "--workers", "0", "--seconds", "0.1", "--device", "cpu"]
    said = CliRunner().invoke(rho, ["plan", *settings])
    assert said.exit_code == 0, said.output
    assert "about 40% of the labels look wrong" in said.stdout
    assert f"rho train --workspace {workspace.location} --select " in said.stdout.splitlines()[-1]
    told = json.loads(CliRunner().invoke(rho, ["plan", *settings, "--json"]).stdout)
    assert told["best"] == told["selections"][0]["name"]
    assert told["steps"] == 1000
    assert files(workspace) == before


def test_an_unknown_model_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path, 0.4)
    said = CliRunner().invoke(rho, ["plan", "--workspace", workspace.location, "--model", "resnet17"])
    assert isinstance(said.exception, ConfigError)
    assert "model 'resnet17' is not known" in str(said.exception)
    assert said.output == ""


def test_a_plan_without_an_il_table_says_what_makes_one(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "w", (20,), side=16)
    with pytest.raises(ConfigError, match="has no IL table"):
        forecast(workspace)
