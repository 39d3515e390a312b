"""Algorithm 1 end to end on a tiny workspace: resume, refusals, comparison, costs."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from helpers.tiny import write_il, write_workspace
from safetensors.torch import load, save_file

from rhostream import ConfigError, IrreducibleLossError, WorkspaceError
from rhostream.cli.main import main
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.pipeline.comparison.comparison import compare
from rhostream.pipeline.config.train_config import TrainConfig
from rhostream.pipeline.il.metadata import write_il_cost
from rhostream.pipeline.jobs.lock import exclusive_lock
from rhostream.pipeline.models.registry import build_model
from rhostream.pipeline.training import loop as train_module
from rhostream.pipeline.training.budget import steps_of
from rhostream.pipeline.training.loop import train

CONFIG = TrainConfig(
    select="rho_loss",
    model="mlp",
    batch_size=4,
    super_batch_size=16,
    steps=24,
    evaluate_every=6,
    device="cpu",
    threads=1,
)


@pytest.fixture
def workspace(tmp_path):
    made = write_workspace(tmp_path / "w", (40, 40, 20), test_rows=30)
    write_il(made)
    return made


def ledger_bytes(workspace, run):
    """Of the ledger, and of the history that sums it up."""
    folders = (f"runs/{run}/ledger", f"runs/{run}/history")
    names = [f"{folder}/{name}" for folder in folders for name in workspace.names(folder)]
    return {name: workspace.read_bytes(name) for name in names}


def test_a_run_keeps_its_budget_and_records_every_candidate(workspace):
    run = train(workspace, replace(CONFIG, last="keep"))
    assert [line["step"] for line in run.metrics] == [6, 12, 18, 24]
    rows = [
        row
        for name in workspace.names("runs/rho_loss/ledger")
        for row in workspace.read_table(f"runs/rho_loss/ledger/{name}").to_pylist()
    ]
    assert len(rows) == 3 * 100 + 3 * 16  # epochs of 7 super-batches: 24 = 3 * 7 + 3
    per_step = {step: [row for row in rows if row["step"] == step] for step in range(1, 25)}
    assert [len(per_step[step]) for step in (1, 6, 7, 8)] == [16, 16, 4, 16]
    assert [sum(row["selected"] for row in per_step[step]) for step in (1, 6, 7, 8)] == [4, 4, 2, 4]
    assert sorted(row["key"] for row in rows if row["epoch"] == 1) == sorted(f"s{n}" for n in range(100))


def test_clipped_gradients_move_the_weights_no_further(workspace):
    settings = {"optimizer": "SGD", "weight_decay": 0.0, "learning_rate": 1.0, "schedule": "constant", "steps": 3}
    free, clipped = (
        train(workspace, replace(CONFIG, name=f"clip{norm}", clip_grad_norm=norm, **settings)) for norm in (0.0, 1e-3)
    )
    corpus = CorpusMetadata.read(workspace)
    begun = build_model("mlp", len(corpus.classes), corpus.image_spec(), seed=0).state_dict()
    moved = []
    for run in (free, clipped):
        weights = load(workspace.read_bytes(f"{run.folder}/model.safetensors"))
        moved.append(sum(float((weights[name] - value).square().sum()) for name, value in begun.items()) ** 0.5)
    assert 0 < moved[1] <= 3.001e-3 < moved[0]


def test_training_learns(workspace):
    run = train(workspace, replace(CONFIG, select="uniform", batch_size=16, steps=150, evaluate_every=50))
    assert run.metrics[-1]["test_accuracy"] > 0.9


def weights_of(workspace, run):
    return load(workspace.read_bytes(f"{run.folder}/model.safetensors"))


def test_a_run_ends_with_the_average_of_its_weights(workspace):
    config = replace(CONFIG, average_weights=False, evaluate_every=1)
    plain = [train(workspace, replace(config, name=f"r{steps}", steps=steps)) for steps in (1, 2, 3)]
    first, second, third = (weights_of(workspace, run) for run in plain)
    run = train(workspace, replace(config, name="averaged", steps=3, average_weights=True))
    for name, found in weights_of(workspace, run).items():
        of_two = torch.lerp(first[name], second[name], 1 - (1 / 2) ** 7.94)
        torch.testing.assert_close(found, torch.lerp(of_two, third[name], 1 - (2 / 3) ** 7.94))
        assert not torch.equal(found, third[name])
    metrics = plain[2].metrics
    assert [line["train_loss"] for line in run.metrics] == [line["train_loss"] for line in metrics]
    assert run.metrics[0]["test_loss"] == metrics[0]["test_loss"]
    assert run.metrics[-1]["test_loss"] != metrics[-1]["test_loss"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("steps_before", [1, 5, 6, 7, 17, 23])
def test_a_killed_run_continues_to_identical_ledger_weights_and_metrics(workspace, tmp_path, monkeypatch, steps_before):
    config = replace(CONFIG, augmentation="shift_flip", average_weights=steps_before > 5)
    whole = train(workspace, replace(config, name="r"))
    expected, weights = ledger_bytes(workspace, "r"), workspace.read_bytes("runs/r/model.safetensors")
    workspace.remove("runs/r")

    done = 0
    original = train_module.forward_backward

    def dying(*arguments):
        nonlocal done
        done += 1
        if done > steps_before:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(train_module, "forward_backward", dying)
    with pytest.raises(Killed):
        train(workspace, replace(config, name="r"))
    monkeypatch.setattr(train_module, "forward_backward", original)
    resumed = train(workspace, replace(config, name="r"))
    assert ledger_bytes(workspace, "r") == expected
    assert workspace.read_bytes("runs/r/model.safetensors") == weights

    def timeless(lines):
        return [{name: value for name, value in line.items() if "seconds_" not in name} for line in lines]

    assert timeless(resumed.metrics) == timeless(whole.metrics)


def test_a_finished_run_is_returned_not_trained_again(workspace, monkeypatch):
    train(workspace, CONFIG)
    monkeypatch.setattr(train_module, "make_learner", lambda *_, **__: pytest.fail("trained again"))
    assert train(workspace, CONFIG).metrics[-1]["step"] == 24


def test_a_run_of_other_settings_is_not_overwritten_unless_asked(workspace):
    train(workspace, CONFIG)
    other = replace(CONFIG, learning_rate=0.01)
    with pytest.raises(WorkspaceError, match=r"config.learning_rate 0.001, asked for 0.01\).*--overwrite"):
        train(workspace, other)
    before = ledger_bytes(workspace, "rho_loss")
    train(workspace, other, overwrite=True)
    assert ledger_bytes(workspace, "rho_loss") != before


def test_an_il_table_remade_under_its_name_is_noticed(workspace):
    train(workspace, CONFIG)
    corpus = workspace.read_json("il/strided_cnn/model.json")
    workspace.write_json("il/strided_cnn/model.json", corpus | {"best_epoch": 3})
    with pytest.raises(WorkspaceError, match="il_digest"):
        train(workspace, CONFIG)


def test_the_checkpoint_and_the_weights_load_without_pickle(workspace):
    train(workspace, CONFIG)
    checkpoint = torch.load(workspace.path("runs/rho_loss/checkpoints/last.pt"), weights_only=True)
    weights = load(workspace.read_bytes("runs/rho_loss/model.safetensors"))
    assert checkpoint["step"] == 24
    assert all(torch.equal(weights[name], value) for name, value in checkpoint["average"].items())
    assert not any(torch.equal(weights[name], value) for name, value in checkpoint["model"].items())


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"steps": 7}, 7),
        ({"epochs": 2.0}, 12),
        ({"epochs": 2.0, "last": "keep"}, 13),
        ({"epochs": 3.0, "super_batch_size": 320}, 3),
        ({"candidates": 100}, 7),
        ({"epochs": 0.5, "select": "uniform"}, 13),
    ],
)
def test_a_budget_in_any_unit_becomes_steps_in_one_place(budget, steps):
    assert steps_of(replace(CONFIG, **budget), samples=100) == steps


def test_a_budget_of_two_units_or_too_large_batch_fails():
    with pytest.raises(ConfigError, match="one unit"):
        replace(CONFIG, epochs=1.0, candidates=10)
    with pytest.raises(ConfigError, match="exceeds the super-batch size"):
        replace(CONFIG, batch_size=17)


def test_which_il_table_is_meant_must_be_clear(workspace):
    workspace.remove("il/strided_cnn")
    write_il(workspace, "second")
    write_il(workspace, "big")
    with pytest.raises((ConfigError, WorkspaceError), match=r"big, second"):
        train(workspace, CONFIG)
    workspace.remove("il")
    with pytest.raises((ConfigError, WorkspaceError), match="train the IL model"):
        train(workspace, CONFIG)
    train(workspace, replace(CONFIG, select="uniform"))


def test_an_unknown_il_table_is_told_with_those_there(workspace):
    with pytest.raises(IrreducibleLossError, match=r"IL table 'nope': .* \(IL models there: strided_cnn\)"):
        train(workspace, replace(CONFIG, il="nope"))


def test_costs_name_every_stage_and_the_il_models_share(workspace):
    write_il_cost(workspace, "strided_cnn", "train", "il_train", seconds=60.0, cpu_seconds=90.0, flops=6e9)
    for shard, seconds in (("train-000000", 8.0), ("train-000001", 4.0)):
        write_il_cost(workspace, "strided_cnn", shard, "il_score", seconds=seconds, cpu_seconds=2 * seconds, flops=5e8)
    line = train(workspace, replace(CONFIG, il_runs=4, last="keep")).metrics[-1]
    assert (line["seconds_il_train"], line["cpu_seconds_il_score"], line["flops_il_score"]) == (15.0, 6.0, 2.5e8)
    for unit in ("seconds", "cpu_seconds"):
        assert all(line[f"{unit}_{cost}"] > 0 for cost in ("load", "score", "train", "evaluate"))
    mlp = 2 * (192 * 512 + 512 * 512 + 512 * 3)  # FLOPs of one forward pass of one 3x8x8 image
    candidates, selected = 3 * 100 + 3 * 16, 3 * 26 + 3 * 4
    assert line["flops_score"] == candidates * mlp
    # Backward twice the forward pass, but for the gradient of the images, which nobody needs.
    assert line["flops_train"] == selected * (3 * mlp - 2 * 192 * 512)


def test_uniform_reads_only_what_it_trains_on_without_any_table(workspace):
    workspace.remove("il")
    run = train(workspace, replace(CONFIG, select="uniform"))
    assert run.metrics[-1]["candidates"] == run.metrics[-1]["selected"] == 24
    assert run.metrics[-1]["flops_score"] == 0


def test_compare_trains_each_equally_long_and_reports_targets(workspace):
    found = compare(workspace, replace(CONFIG, epochs=5.0), ["uniform", "rho_loss"], targets=[0.2, 1.1])
    outcomes = [variant.runs[0] for variant in found.variants]
    assert [(outcome.run, outcome.steps) for outcome in outcomes] == [("uniform", 30), ("rho_loss", 30)]
    for outcome in outcomes:
        assert outcome.reached[0].steps is not None
        assert outcome.reached[1].steps is None
    json.dumps(found.to_dict())


def test_share_of_mislabeled_counts_only_what_is_known(workspace):
    for shard in CorpusMetadata.read(workspace).split("train"):
        table = workspace.read_table(shard.index)
        labels = table.column("label").to_pylist()
        # A third is known to be right, a third known to be wrong, of a third nothing is known.
        clean = [[label, (label + 1) % 3, None][row % 3] for row, label in enumerate(labels)]
        workspace.write_table(shard.index, table.append_column("clean_label", pa.array(clean, pa.int32())))
    run = train(workspace, replace(CONFIG, select="uniform", steps=25, evaluate_every=25))
    assert run.metrics[-1]["selected_mislabeled"] == pytest.approx(0.5, abs=0.02)


def test_compare_takes_up_an_equal_run_of_any_name(workspace):
    train(workspace, CONFIG)
    before = ledger_bytes(workspace, "rho_loss")
    compare(workspace, CONFIG, ["uniform", "rho_loss"])
    assert ledger_bytes(workspace, "rho_loss") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_mistake_neither_destroys_a_run_nor_blocks_its_correction(workspace, overwrite):
    with pytest.raises(ConfigError, match="resnet51"):
        train(workspace, replace(CONFIG, model="resnet51"), overwrite=overwrite)
    train(workspace, CONFIG)
    before = ledger_bytes(workspace, "rho_loss")
    with pytest.raises(ConfigError, match="resnet51"):
        train(workspace, replace(CONFIG, model="resnet51"), overwrite=True)
    assert ledger_bytes(workspace, "rho_loss") == before


def test_compare_refuses_a_later_runs_error_before_the_first_trains(workspace):
    with pytest.raises(ConfigError, match="rholoss"):
        compare(workspace, CONFIG, ["uniform", "rholoss"])
    workspace.remove("il")
    with pytest.raises((ConfigError, WorkspaceError), match="train the IL model"):
        compare(workspace, CONFIG, ["uniform", "rho_loss"])
    assert workspace.names("runs") == []


def test_an_overwrite_that_was_killed_half_way_starts_afresh(workspace):
    train(workspace, CONFIG)
    expected = ledger_bytes(workspace, "rho_loss")
    # Overwriting removes run.json first; whatever else a kill leaves behind must not be taken up.
    for name in ("run.json", "model.safetensors", "ledger"):
        workspace.remove(f"runs/rho_loss/{name}")
    train(workspace, CONFIG)
    assert ledger_bytes(workspace, "rho_loss") == expected


@pytest.mark.parametrize("change", ["spec", "classes", "weights"])
def test_a_run_does_not_continue_over_other_inputs(workspace, tmp_path, change):
    weights = tmp_path / "start.safetensors"
    save_file(build_model("mlp", 3, CorpusMetadata.read(workspace).image_spec(), seed=5).state_dict(), weights)
    config = replace(CONFIG, weights=str(weights), select="uniform")
    train(workspace, config)
    corpus = workspace.read_json("corpus.json")
    if change == "spec":
        corpus["manifest"]["image"]["mean"] = [0.1, 0.2, 0.3]
    elif change == "classes":
        corpus["classes"] = corpus["classes"][::-1]
    else:
        save_file(build_model("mlp", 3, CorpusMetadata.read(workspace).image_spec(), seed=6).state_dict(), weights)
    workspace.write_json("corpus.json", corpus)
    with pytest.raises(WorkspaceError, match=change):
        train(workspace, config)


def test_super_batches_without_readable_candidates_take_no_step(workspace):
    write_il(workspace, predicted=0)  # wrong for two classes of three, with losses above ln 3 from number 110 on
    late = CorpusMetadata.read(workspace)
    for shard in late.split("train"):
        rows = workspace.read_table(shard.scores("strided_cnn"))
        high = rows.set_column(rows.schema.get_field_index("il"), "il", pa.array([9.0] * len(rows), pa.float32()))
        workspace.write_table(shard.scores("strided_cnn"), high)
    run = train(workspace, replace(CONFIG, prefilter=1.0, super_batch_size=4, steps=20))
    rows = [
        row
        for name in workspace.names("runs/rho_loss/ledger")
        for row in workspace.read_table(f"runs/rho_loss/ledger/{name}").to_pylist()
    ]
    assert run.metrics[-1]["step"] == 20
    assert {row["reason"] for row in rows} == {None, "filtered", "too_few"}
    selected = {step: sum(row["selected"] for row in rows if row["step"] == step) for step in range(1, 21)}
    assert min(selected.values()) >= 2
    assert max(row["step"] for row in rows) == 20


def test_a_batchnorm_model_survives_an_epochs_single_last_sample(tmp_path):
    made = write_workspace(tmp_path / "w", (33,), side=16)
    run = train(made, replace(CONFIG, model="bn_cnn", select="uniform", batch_size=8, steps=12))
    assert run.metrics[-1]["step"] == 12


def test_a_run_that_another_process_writes_is_refused(workspace):
    with (
        exclusive_lock(workspace, "rho train", "runs/rho_loss"),
        pytest.raises(WorkspaceError, match="another `rho train`"),
    ):
        train(workspace, CONFIG)


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
@pytest.mark.parametrize("command", ["train", "il train"])
def test_half_of_torchruns_variables_are_refused_in_one_line(workspace, monkeypatch, capsys, command, missing):
    torchruns = {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}
    for name, value in (torchruns | {missing: ""}).items():
        monkeypatch.setenv(name, value)
    asked = ["rho", *command.split(), "--workspace", workspace.location, "--name", "refused", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == (
        f"rho: WORLD_SIZE=2 without {missing}: start all processes with torchrun, which sets both, or unset "
        "WORLD_SIZE\n"
    )
    assert not workspace.exists("runs/refused")
    assert not workspace.exists("il/refused")


def test_a_damaged_checkpoint_is_one_line_with_the_remedy(workspace):
    train(workspace, CONFIG)
    workspace.remove("runs/rho_loss/model.safetensors")
    workspace.write_bytes("runs/rho_loss/checkpoints/last.pt", b"PK broken")
    with pytest.raises(WorkspaceError, match=r"is not a readable checkpoint: .*--overwrite$"):
        train(workspace, CONFIG)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1.0},
        {"candidates": -5},
        {"schedule": "cosin"},
        {"prefilter": -1.0},
        {"learning_rate": 0.0},
        {"share": 1.5},
        {"rule": "best"},
        {"temperature": 0.0, "rule": "gumbel"},
        {"class_floor": 2.0},
        {"warmup": 2.5},
        {"momentum": 1.0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong)).replace("_", ".")):
        replace(CONFIG, **wrong)


def test_test_accuracy_comes_from_samples_that_never_train(workspace, tmp_path):
    assert workspace.read_json(f"{train(workspace, CONFIG).folder}/run.json")["evaluated_on"] == "test"
    for split in ("val", "holdout"):
        other = write_workspace(tmp_path / split, (40, 40), test_rows=20)
        corpus = other.read_json("corpus.json")
        corpus["shards"][-1]["split"] = split
        other.write_json("corpus.json", corpus)
        run = train(other, replace(CONFIG, select="uniform"))
        assert other.read_json(f"{run.folder}/run.json")["evaluated_on"] == split
        assert run.metrics[-1]["test_accuracy"] is not None
    bare = write_workspace(tmp_path / "bare", (40, 40))
    run = train(bare, replace(CONFIG, select="uniform"))
    assert bare.read_json(f"{run.folder}/run.json")["evaluated_on"] is None
    assert run.metrics[-1]["test_accuracy"] is None
