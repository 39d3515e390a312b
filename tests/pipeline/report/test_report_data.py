"""`rho report`: what it says is so, its SQL says the same, and it works on whatever a workspace holds."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import report_workspace as made
from helpers.foreign_tars import index, sample, tar
from helpers.report_workspace import HOSTILE, fill, keys
from helpers.tiny import write_corpus_card

from rhostream import ConfigError, WorkspaceError
from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.report.data import ReportData, gather
from rhostream.pipeline.report.page import render, write_report
from rhostream.pipeline.report.summary import comparison, corpus_sentence, findings
from rhostream.pipeline.sql.database import query


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return fill(tmp_path_factory.mktemp("report") / "w")


@pytest.fixture(scope="module")
def data(workspace: Workspace) -> ReportData:
    return gather(workspace)


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render(data)


def test_the_pictures_show_the_run_that_used_irreducible_loss(data: ReportData) -> None:
    assert data.run is not None
    assert (data.run.name, data.il_model, [run.name for run in data.runs]) == (
        "rho_loss",
        "strided_cnn",
        ["rho_loss", "uniform"],
    )


def test_every_gallery_holds_what_its_title_says_in_order(data: ReportData) -> None:
    found = {name: [row["key"] for row in answer.rows] for name, answer in data.galleries.items()}
    by_il = {key: made.il_of(int(key[1:])) for key in keys(*range(10))}
    assert found["suspicious"] == sorted(keys(0), key=lambda key: -by_il[key])
    assert found["redundant"] == sorted(keys(1), key=by_il.__getitem__)
    skipped = keys(0, 1, 6, 7, 8, 9)
    ranked = sorted(skipped, key=lambda key: -by_il[key])
    assert found["never_selected"][:24] == ranked[:24]
    assert set(found["never_selected"]) <= set(skipped)
    assert found["most_selected"] == sorted(keys(2, 3, 4), key=lambda key: (-made.EPOCHS, key))


def test_a_gallery_holds_some_of_its_every_class_and_reason(tmp_path: Path) -> None:
    data = gather(fill(tmp_path / "w"))
    rows = data.galleries["never_selected"].rows
    beyond = [row for row in rows if row["rank"] > 24]
    assert {row["reason"] for row in rows} == {"mislabeled", "redundant", "less_relevant"}
    assert 0 < len(beyond) < 36 - 24 + 1


def test_what_the_cards_say_is_in_the_tables(data: ReportData, workspace: Workspace) -> None:
    row = next(row for row in data.galleries["suspicious"].rows if row["key"] == "s50")
    names = made.CLASSES
    assert (row["classes"], row["predicted_class"]) == ([names[made.label_of(50)]], names[(made.label_of(50) + 1) % 3])
    assert (row["drawn"], row["selected"], row["loss"], row["reason"]) == (4, 0, 4.5, "mislabeled")
    assert row["il"] == pytest.approx(4.5)


def test_the_sql_behind_every_chart_and_gallery_gives_its_rows(data: ReportData, workspace: Workspace) -> None:
    asked = {**data.answers, **data.galleries}
    assert len(asked) == 13
    for name, answer in asked.items():
        assert query(workspace, answer.sql).to_pylist() == answer.rows, name
        assert answer.rows, name


def test_reasons_classes_and_regions_add_up_to_the_training_samples(data: ReportData) -> None:
    reasons = {row["reason"]: row["samples"] for row in data.answers["reasons"].rows}
    assert reasons == {"less_relevant": 24, "selected": 18, "mislabeled": 6, "never_drawn": 6, "redundant": 6}
    regions = Counter(
        {name: sum(row[name] for row in data.answers["map"].rows) for name in ("redundant", "learnable", "noisy")}
    )
    assert regions == {"redundant": 6, "learnable": 18, "noisy": 30}
    rows = data.answers["classes"].rows
    assert sum(row["samples"] for row in rows) == 60
    assert sum(row["contradicted"] for row in rows) == 6
    assert sum(row["agrees"] + row["differs"] for row in data.answers["histogram"].rows) == 60
    assert sum(row["differs"] for row in data.answers["histogram"].rows) == 6
    assert sum(row["samples"] for row in data.answers["confusion"].rows) == 6
    assert sum(row["il"] for row in data.answers["confusion"].rows) == pytest.approx(
        sum(4 + n / 100 for n in range(0, 60, 10))
    )


def test_the_summary_tells_noisy_classes_skips_and_whether_it_paid(data: ReportData) -> None:
    noisy, skipped, paid = findings(data)
    sizes = Counter(made.label_of(n) for n in range(60))
    wrong = Counter(made.label_of(n) for n in range(60) if n % 10 == 0)
    shares = {made.CLASSES[label]: wrong[label] / sizes[label] for label in wrong}
    assert [shares[name] for name in noisy.classes] == sorted(shares.values(), reverse=True)
    assert noisy.headline.startswith(f"{noisy.classes[0]} ({100 * max(shares.values()):.0f}%)")
    assert skipped.headline == "60% of 60 training samples"
    assert paid.headline == "Yes in steps, no in seconds and FLOPs"
    said = " ".join(paid.sentences)
    assert "To reach 80.0%, rho_loss took 8 steps where uniform took 16 steps (2.0 times fewer)" in said
    assert (
        "rho_loss took 44 s where uniform took 16 s (2.8 times more)" in said
    )  # 8 + 16 + 15 + 5; evaluation is not charged
    assert "20 s of these seconds are the IL model's" in said
    assert "without it rho_loss took 24 s" in said
    assert corpus_sentence(data).startswith("66 source entries gave 66 samples of 3 classes (60 train, 6 test)")
    table = comparison(data)
    assert table is not None
    assert table.rows[0] == ("rho_loss", "rho_loss", "8 steps", "44 s", "1.01 TFLOPs", "90.0%")
    assert table.rows[1] == ("uniform", "uniform", "16 steps", "16 s", "16 GFLOPs", "80.0%")


def test_known_truth_tells_how_far_to_trust_the_model(tmp_path: Path) -> None:
    data = gather(fill(tmp_path / "w", truth=True))
    assert data.truth
    said = " ".join(findings(data)[0].sentences)
    assert "5.0% are wrong" in said  # n % 20 == 0
    assert "Of those contradicted, 50% really are; of the wrong ones, 100% are contradicted" in said
    render(data)


def test_without_a_run_it_is_about_the_irreducible_losses(tmp_path: Path) -> None:
    data = gather(fill(tmp_path / "w", runs=False))
    assert data.run is None
    assert [name for name, gallery in data.galleries.items() if gallery.rows] == ["suspicious"]
    assert findings(data)[1].headline == "Nothing yet"
    page = render(data)
    assert "No run yet" in page
    assert 'id="histogram"' in page
    assert 'id="map"' not in page


def test_with_shards_alone_it_says_what_to_do_next(tmp_path: Path) -> None:
    data = gather(fill(tmp_path / "w", il=False, runs=False))
    page = render(data)
    assert "<code>rho il train</code>" in page
    assert data.pictures == {}


def test_a_single_run_cannot_be_said_to_pay(workspace: Workspace) -> None:
    data = gather(workspace, ["rho_loss"])
    assert findings(data)[2].headline == "Not known"
    assert comparison(data) is None
    render(data)


def test_a_run_of_uniform_sampling_alone_has_no_map(workspace: Workspace) -> None:
    data = gather(workspace, ["uniform"])
    assert data.run is not None
    assert data.run.name == "uniform"
    page = render(data)
    assert 'id="map"' not in page
    assert 'id="accuracy"' in page


def test_runs_are_compared_by_the_metric_of_flag_or_manifest(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    for run in ("rho_loss", "uniform"):
        lines = [json.loads(line) for line in workspace.read_bytes(f"runs/{run}/metrics.jsonl").decode().splitlines()]
        told = [json.dumps(line | {"test_mcc": line["test_accuracy"] - 0.5}) for line in lines]
        workspace.write_bytes(f"runs/{run}/metrics.jsonl", "\n".join(told).encode())
    assert gather(workspace).runs[0].best_accuracy == 0.9
    data = gather(workspace, metric="mcc")
    assert data.runs[0].best_accuracy == pytest.approx(0.4)
    assert "Matthews correlation" in render(data)
    card = workspace.read_json("corpus.json")
    card["manifest"]["train"]["metric"] = "mcc"
    write_corpus_card(workspace, card)
    assert gather(workspace).runs[0].best_accuracy == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nope"], r"--run nope: .*there are: rho_loss, uniform"),
        (["--il", "nope"], r"--il nope: .*strided_cnn"),
    ],
)
def test_an_unknown_run_or_model_error_names_those_there(
    workspace: Workspace, tmp_path: Path, arguments: list[str], message: str
) -> None:
    command = ["report", "--workspace", workspace.location, "--output", str(tmp_path / "r.html"), *arguments]
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(rho, command, catch_exceptions=False)
    assert not (tmp_path / "r.html").exists()


def test_the_command_writes_the_page(workspace: Workspace, data: ReportData, tmp_path: Path) -> None:
    done = CliRunner().invoke(rho, ["report", "--workspace", workspace.location, "--output", str(tmp_path / "r.html")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path}/r.html: 2 runs, {len(data.pictures)} pictures\n")
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_a_missing_workspace_or_output_place_is_one_line(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="write the shards"):
        write_report(tmp_path / "none", str(tmp_path / "r.html"))
    for output in (str(tmp_path), f"{tmp_path}/"):
        with pytest.raises(ConfigError, match=r"--output .*names a folder"):
            write_report(workspace, output)


def test_the_same_workspace_gives_the_same_bytes_whatever_the_time(workspace: Workspace, page: str) -> None:
    assert render(gather(workspace)) == page


def test_pictures_of_a_remote_workspace_come_from_its_tars(workspace: Workspace, data: ReportData) -> None:
    remote = Workspace("memory://test_report")
    for file in Path(workspace.root).rglob("*.*"):
        remote.write_bytes(str(file.relative_to(workspace.root)), file.read_bytes())
    assert gather(remote).pictures == data.pictures
    assert all(picture.uri for picture in data.pictures.values())


def test_pictures_of_tars_indexed_in_place_come_from_them(tmp_path: Path) -> None:
    members = [member for n in range(40) for member in sample(f"{n:03d}", str(n % 3), n)]
    tar(tmp_path / "tars" / "00000.tar", *members)
    index(tmp_path / "w", tmp_path / "tars")
    workspace = Workspace(tmp_path / "w")
    made.write_scores(workspace)
    data = gather(workspace)
    assert len(data.pictures) >= 2
    assert all(picture.uri for picture in data.pictures.values())


def test_a_missing_or_changed_picture_is_told_the_rest_shown(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    os.truncate(workspace.path("shards/train-000000.tar"), 20_000)
    damaged = bytearray(workspace.read_bytes("shards/train-000001.tar"))
    damaged[600:610] = b"\0" * 10  # in the first image, s30
    workspace.write_bytes("shards/train-000001.tar", bytes(damaged))
    pictures = gather(workspace).pictures
    assert "ends at byte 20000" in pictures["s29"].problem
    assert pictures["s30"].problem == "the tar has changed since it was indexed"
    assert pictures["s31"].uri
    assert pictures["s1"].uri


def test_a_class_name_is_text_wherever_it_stands(page: str) -> None:
    assert HOSTILE not in page
    assert "<script>alert" not in page
    assert page.count("<script>") == page.count("</script>") == 1
    assert "<img src=x" not in page


def test_a_metric_that_a_run_never_measured_is_one_line(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"metric 'f1': run 'rho_loss' has measured accuracy alone; choose auto, or"):
        gather(workspace, metric="f1")


def test_a_foreign_trainers_run_without_metrics_has_a_report(tmp_path: Path) -> None:
    workspace = fill(tmp_path / "w")
    workspace.remove("runs/rho_loss/metrics.jsonl")
    workspace.remove("runs/rho_loss/run.json")
    data = gather(workspace)
    assert data.run is not None
    assert (data.run.name, data.il_model) == ("rho_loss", "strided_cnn")
    assert findings(data)[2].headline == "Not known"
    assert 'id="map"' in render(data)
