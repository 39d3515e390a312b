"""`rho explain`: every reason by construction, every question against plain Python, every mistake in one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner
from helpers import tables

from rhostream import ConfigError
from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.explain.ask import Options, explain, explanation
from rhostream.pipeline.explain.reasons import REASONS, sample_reasons
from rhostream.pipeline.explain.titles import QUESTIONS
from rhostream.pipeline.sql import kept_tables
from rhostream.pipeline.sql.database import query
from rhostream.pipeline.sql.views import create_views
from rhostream.schema import IL, LEDGER, SAMPLES
from rhostream.selection.ledger.history import update_history

RHO = Options(run="rho_loss", il="strided_cnn")
#: The question "copies" reads images, which these workspaces have none of: test_copies.py asks it.
OF_TABLES = {question: title for question, title in QUESTIONS.items() if question != "copies"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return tables.fill(str(tmp_path_factory.mktemp("workspace")))


def rows(workspace: Workspace, question: str, *runs: str, options: Options = RHO) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = explain(workspace, question, *runs, options=options).to_pylist()
    return found


#: Key to (IL, does the IL model contradict the label?, its candidates as (loss, correct, selected, reason)).
Draw = tuple[float | None, bool | None, bool, str | None]
SITUATIONS: dict[str, tuple[float, bool, list[Draw]]] = {
    "never_drawn": (0.5, False, []),
    "unreadable": (3.0, True, [(2.0, False, False, "unreadable"), (2.0, False, False, None)]),
    "filtered": (3.0, True, [(None, None, False, "filtered")] * 3),
    "il_missing": (0.5, False, [(None, None, False, "il_missing")] * 2),
    "set_aside": (0.5, False, [(None, None, False, "validation")] * 2),
    "unscored": (0.5, False, [(None, None, False, "too_few")]),
    "redundant": (0.1, False, [(2.0, False, False, None), (0.2, True, False, None)]),
    "redundant-as-far-as-held-out-data-tell": (0.6, False, [(1.5, True, False, None)]),
    "redundant-though-contradicted": (3.0, True, [(0.3, True, False, None)]),
    "mislabeled": (3.0, True, [(4.0, False, False, None)]),
    "less_relevant": (1.5, False, [(1.8, False, False, None)]),
    "less_relevant-once-redundant": (1.5, False, [(0.2, True, False, None), (1.8, False, False, None)]),
    "outbid": (0.1, False, [(3.0, False, False, None)]),
}
#: Selected at every draw: reducible losses 1.0 to 2.0, so that the bar lies at 1.1.
SELECTED = {f"selected-{n}": (0.5, False, [(1.5 + n / 10, False, True, None)]) for n in range(11)}


def stage(folder: Path, situations: Mapping[str, tuple[float, bool, list[Draw]]]) -> Workspace:
    workspace = Workspace(folder)
    workspace.write_json("corpus.json", {})
    samples = [
        {
            "key": key,
            "split": "train",
            "shard": "train-000000",
            "row": row,
            "label": row % 2,
            "class": "ab"[row % 2],
            "content_hash": key,
        }
        for row, key in enumerate(situations)
    ]
    workspace.write_table("index/train-000000.parquet", tables.table(SAMPLES, samples))
    il: list[dict[str, Any]] = []
    ledger: list[dict[str, Any]] = []
    for sample, (loss, contradicted, draws) in zip(samples, situations.values(), strict=True):
        label = int(str(sample["label"]))
        il.append(
            {
                "il_model": "m",
                "key": sample["key"],
                "label": label,
                "il": loss,
                "predicted": 1 - label if contradicted else label,
                "confidence": 0.95,
            }
        )
        for step, (candidate, correct, selected, reason) in enumerate(draws, 1):
            ledger.append(
                {
                    "run": "r",
                    "step": step,
                    "key": sample["key"],
                    "label": label,
                    "loss": candidate,
                    "il": loss,
                    "score": None if candidate is None else candidate - loss,
                    "correct": correct,
                    "selected": selected,
                    "reason": reason,
                }
            )
    workspace.write_table("il/m/scores/train-000000.parquet", tables.table(IL, il))
    ledger.sort(key=lambda row: row["step"])
    workspace.write_table("runs/r/ledger/000000001-rank0.parquet", tables.table(LEDGER, ledger))
    update_history(workspace, "r", 0)
    return workspace


@pytest.mark.parametrize("steps", [(None, None), (1, 2)], ids=["from the history", "from the ledger"])
def test_every_reason_is_told_from_every_other(tmp_path: Path, steps: tuple[int | None, int | None]) -> None:
    workspace = stage(tmp_path, SITUATIONS | SELECTED)
    found = {row["key"]: row for row in query(workspace, sample_reasons("r", "m", steps)).to_pylist()}
    assert {key: row["reason"] for key, row in found.items()} == {
        key: key.split("-")[0] for key in SITUATIONS | SELECTED
    }
    assert {row["reason"] for row in found.values()} == set(REASONS)
    assert found["mislabeled"]["bar"] == pytest.approx(1.1)
    assert {key for key, row in found.items() if row["contradicted"]} == {
        key for key, (_, contradicted, _) in SITUATIONS.items() if contradicted
    }


def test_skipped_means_selected_under_half_the_runs_own_rate(tmp_path: Path) -> None:
    draws: dict[str, tuple[float, bool, list[Draw]]] = {
        "rarely": (0.5, False, [(3.0, False, number == 0, None) for number in range(10)]),
        "often_enough": (0.5, False, [(3.0, False, number < 2, None) for number in range(10)]),
        "always": (0.5, False, [(3.0, False, number < 7, None) for number in range(10)]),
    }
    found = query(stage(tmp_path, draws), sample_reasons("r", "m")).to_pylist()  # the run selects 10 of 30
    assert {row["key"]: row["reason"] for row in found} == {
        "rarely": "outbid",
        "often_enough": "selected",
        "always": "selected",
    }


def test_two_ranks_are_one_run(tmp_path: Path) -> None:
    workspace = stage(tmp_path, {"k": (0.5, False, [(3.0, False, True, None)])})
    later = {
        "run": "r",
        "rank": 1,
        "step": 2,
        "key": "k",
        "loss": 0.01,
        "il": 0.5,
        "score": -0.49,
        "correct": True,
        "selected": False,
        "reason": None,
    }
    workspace.write_table("runs/r/ledger/000000002-rank1.parquet", tables.table(LEDGER, [later]))
    update_history(workspace, "r", 1)
    (row,) = query(workspace, sample_reasons("r", "m")).to_pylist()
    assert (row["drawn"], row["selected"], row["latest_correct"]) == (2, 1, True)
    assert row["latest_loss"] == pytest.approx(0.01)


@pytest.mark.slow
def test_extra_columns_of_any_name_confuse_no_question(tmp_path: Path) -> None:
    workspace = stage(tmp_path, SITUATIONS)
    table = workspace.read_table("index/train-000000.parquet")
    for name in ("drawn", "selected", "il", "reason", "latest_loss", "predicted", "samples", "rank", "value", "wrong"):
        table = table.append_column(name, table["key"])
    workspace.write_table("index/train-000000.parquet", table)
    for question, title in OF_TABLES.items():
        explain(workspace, question, *["r"] * title.runs)


def test_skipped_lists_the_samples_with_their_reason(workspace: Workspace) -> None:
    assert {row["key"]: row["reason"] for row in rows(workspace, "skipped")} == {
        tables.OVERLOOKED: "outbid",
        tables.MISLABELED: "mislabeled",
        tables.REDUNDANT: "redundant",
        tables.NEVER_DRAWN: "never_drawn",
    }
    assert [row["key"] for row in rows(workspace, "redundant")] == [tables.REDUNDANT]
    counts = {row["reason"]: row["samples"] for row in rows(workspace, "reasons")}
    assert counts == {"selected": 8, "outbid": 1, "mislabeled": 1, "redundant": 1, "never_drawn": 1}


def test_a_window_of_steps_hides_what_came_before_and_after(workspace: Workspace) -> None:
    early = Options(run="rho_loss", il="strided_cnn", steps=(1, 4))
    assert rows(workspace, "redundant", options=early) == []  # in its first epoch the model errs on all
    assert {row["drawn"] for row in rows(workspace, "skipped", options=early)} == {0, 1}


def test_mislabeled_is_measured_where_the_clean_label_is_known(tmp_path: Path) -> None:
    workspace = stage(tmp_path, {f"k{n}": (3.0 - n / 10, n not in (3, 5), []) for n in range(8)})
    table = workspace.read_table("index/train-000000.parquet")
    labels = table["label"].to_pylist()
    clean = [1 - label if n in (0, 2, 5) else None if n == 1 else label for n, label in enumerate(labels)]
    workspace.write_table("index/train-000000.parquet", table.append_column("clean_label", [clean]))
    found = rows(workspace, "mislabeled", options=Options())
    assert [row["key"] for row in found] == ["k0", "k1", "k2", "k4", "k6", "k7"]
    assert [row["wrong"] for row in found] == [True, None, True, False, False, False]
    assert [row["precision_at_k"] for row in found] == pytest.approx([1, 1, 1, 2 / 3, 2 / 4, 2 / 5])
    assert [row["recall_at_k"] for row in found] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_a_named_run_clears_labels_that_its_model_predicts(tmp_path: Path) -> None:
    workspace = stage(tmp_path, SITUATIONS)
    alone = {row["key"] for row in rows(workspace, "mislabeled", options=Options())}
    with_run = {row["key"] for row in rows(workspace, "mislabeled", options=Options(run="r"))}
    assert alone - with_run == {"redundant-though-contradicted"}


def test_classes_that_selection_starves_are_named(workspace: Workspace) -> None:
    found = {row["class"]: row for row in rows(workspace, "classes", options=Options(run="rho_loss"))}
    assert {name: (row["samples"], row["candidates"], row["selected"]) for name, row in found.items()} == {
        "shirt": (4, 9, 6),
        "dress": (4, 12, 9),
        "coat": (4, 12, 9),
    }
    by_source = rows(workspace, "classes", options=Options(run="rho_loss", by="source"))
    starved = {row["source"] for row in by_source if row["starved"]}
    assert starved == {f"images/{key}.jpg" for key in (tables.OVERLOOKED, tables.MISLABELED, tables.REDUNDANT)}


def test_the_selection_rate_falls_with_the_irreducible_loss(workspace: Workspace) -> None:
    found = rows(workspace, "il")
    assert sum(row["samples"] for row in found) == 11
    assert sum(row["candidates"] for row in found) == 33
    assert found[-1]["highest_il"] == 4.0
    assert found[-1]["selection_rate"] == 0.0


def test_run_tells_of_stretches_that_agree_with_the_metrics(tmp_path: Path) -> None:
    workspace = stage(
        tmp_path, {"k": (0.5, False, [(float(step), step > 60, step % 2 == 0, None) for step in range(1, 101)])}
    )
    lines = [
        {"run": "r", "step": step, "candidates": 2, "candidates_mislabeled": step / 100, "selected": 2}
        for step in range(2, 101, 2)
    ]
    workspace.write_bytes("runs/r/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    found = rows(workspace, "run", options=Options())
    assert [(row["from_step"], row["to_step"]) for row in found][:2] == [(1, 6), (7, 12)]  # 3 reports of 2 steps
    assert len(found) == 17
    assert found[0]["loss"] == pytest.approx(3.5)
    assert found[0]["selected_loss"] == pytest.approx(4.0)
    assert found[0]["mislabeled"] == pytest.approx(0.04)
    assert (found[0]["correct"], found[-1]["correct"]) == (0.0, 1.0)
    assert sum(row["candidates"] for row in found) == 100


def test_diff_ranks_what_two_runs_chose_differently(workspace: Workspace) -> None:
    found = rows(workspace, "diff", "rho_loss", "uniform", options=Options())
    unlike = {row["key"] for row in found if row["rate"] != row["other_rate"]}
    assert unlike == {tables.OVERLOOKED, tables.MISLABELED, tables.REDUNDANT, "k05"}
    assert {row["key"] for row in found[:4]} == unlike
    assert len(found) == 11  # what one of them never drew cannot be compared


def test_duplicates_are_groups_of_unlike_labels(tmp_path: Path) -> None:
    workspace = stage(tmp_path, {key: (0.5, False, []) for key in "abcdef"})
    table = workspace.read_table("index/train-000000.parquet")
    hashes = ["x", "x", "y", "z", "y", "z"]  # labels 0 1 0 1 0 1: y twice under 0, z twice under 1
    position = table.schema.get_field_index("content_hash")
    workspace.write_table("index/train-000000.parquet", table.set_column(position, "content_hash", [hashes]))
    (group,) = rows(workspace, "duplicates", options=Options())
    assert (group["content_hash"], group["keys"], group["classes"]) == ("x", ["a", "b"], ["a", "b"])


def test_rejects_are_counted_with_an_example(workspace: Workspace) -> None:
    (row,) = rows(workspace, "rejects", options=Options())
    assert (row["reason"], row["entries"], row["example"]) == ("html", 1, "a/b.jpg")
    assert row["share_of_corpus"] == pytest.approx(1 / 15)


@pytest.mark.slow
@pytest.mark.parametrize("question", OF_TABLES)
def test_the_printed_sql_gives_the_answer_in_plain_duckdb(workspace: Workspace, question: str) -> None:
    runs = ["rho_loss", "uniform"] if question == "diff" else []
    narrowed = [
        part
        for option in ("run", "il")
        if option in QUESTIONS[question].takes
        for part in (f"--{option}", {"run": "rho_loss", "il": "strided_cnn"}[option])
    ]
    arguments = ["explain", question, *runs, *narrowed, "--workspace", workspace.location, "--format", "json"]
    printed = CliRunner().invoke(rho, [*arguments, "--sql"], catch_exceptions=False).stdout
    answer = json.loads(CliRunner().invoke(rho, arguments, catch_exceptions=False).stdout)
    with duckdb.connect() as connection:
        connection.execute("\n".join(create_views(workspace)))
        assert len(connection.execute(printed).fetchall()) == len(answer) > 0


@pytest.mark.slow
def test_files_held_in_memory_give_the_same_answers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(question, ("rho_loss", "uniform") if question == "diff" else ()) for question in OF_TABLES]
    narrowed = {
        question: Options(
            run="rho_loss" if "run" in QUESTIONS[question].takes else None,
            il="strided_cnn" if "il" in QUESTIONS[question].takes else None,
        )
        for question in OF_TABLES
    }

    def answers() -> list[list[list[Any]]]:
        found = [rows(workspace, question, *runs, options=narrowed[question]) for question, runs in asked]
        # Means of floats differ in their last bits, by the order of the rows.
        return [
            [[round(each, 6) if isinstance(each, float) else each for each in row.values()] for row in answer]
            for answer in found
        ]

    from_files = answers()
    monkeypatch.setattr(kept_tables, "_MANY_FILES", 0)
    assert answers() == from_files


@pytest.mark.slow
def test_a_table_is_short_by_default_a_file_is_whole(tmp_path: Path) -> None:
    workspace = stage(tmp_path / "w", {f"k{n}": (0.5, False, []) for n in range(30)})

    def lines(*more: str) -> int:
        command = ["explain", "skipped", "--workspace", workspace.location, *more]
        return len(CliRunner().invoke(rho, command, catch_exceptions=False).stdout.splitlines())

    assert lines() == 2 + 20
    assert lines("--limit", "3") == 2 + 3
    assert lines("--limit", "0") == 2 + 30
    assert lines("--format", "csv") == 1 + 30


@pytest.mark.slow
def test_a_class_narrows_every_question_that_takes_it(workspace: Workspace) -> None:
    coats = Options(run="rho_loss", il="strided_cnn", class_name="coat")
    assert {row["class"] for row in rows(workspace, "skipped", options=coats)} == {"coat"}
    assert sum(row["samples"] for row in rows(workspace, "reasons", options=coats)) == 4
    assert [row["class"] for row in rows(workspace, "classes", options=Options(run="rho_loss", class_name="coat"))] == [
        "coat"
    ]
    assert (
        sum(row["candidates"] for row in rows(workspace, "run", options=Options(run="rho_loss", class_name="coat")))
        == 12
    )


@pytest.mark.parametrize(
    ("question", "runs", "options", "message"),
    [
        ("skiped", (), Options(), r"unknown question 'skiped' \(did you mean 'skipped'\?\)"),
        ("skipped", (), Options(), "has 2 runs: name one with --run, of rho_loss, uniform"),
        ("skipped", (), Options(run="rho"), r"no run 'rho'.*there are rho_loss, uniform"),
        ("skipped", (), Options(run="rho_loss"), "has 2 IL models: name one with --il, of other, strided_cnn"),
        ("skipped", (), Options(run="rho_loss", il="cnn"), "no IL model 'cnn'.*there are other, strided_cnn"),
        ("skipped", ("uniform",), Options(), "got 1 runs, takes 0 as arguments: `rho explain skipped --run RUN`"),
        ("diff", ("uniform",), Options(), "takes 2 as arguments: `rho explain diff RUN RUN`"),
        ("rejects", (), Options(run="uniform"), "--run does not bear on question 'rejects'"),
        ("classes", (), Options(run="uniform", by="clas"), r"--by 'clas'.*did you mean 'class'\?"),
        ("classes", (), Options(run="uniform", class_name="hat"), "--class 'hat': no sample has it; there are coat"),
        ("duplicates", (), Options(split="tain"), r"--split 'tain'.*did you mean 'train'\?"),
        ("run", (), Options(run="uniform", steps=(5, 2)), "--steps 5:2"),
        ("mislabeled", (), Options(il="other", steps=(1, 2)), "--steps without a run"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    workspace: Workspace, question: str, runs: tuple[str, ...], options: Options, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        explanation(workspace, question, *runs, options=options)
    assert "\n" not in str(error.value)


def test_a_workspace_without_runs_or_il_models_names_the_remedy(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_json("corpus.json", {})
    with pytest.raises(ConfigError, match="no run to ask about: train a model"):
        explain(workspace, "skipped")
    with pytest.raises(ConfigError, match="no IL model to ask about: train the IL model, then score the shards"):
        explain(workspace, "mislabeled")


def test_an_irrelevant_environment_variable_is_ignored_by_a_question(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHO_RUN", "rho_loss")
    monkeypatch.setenv("RHO_EXPLAIN_STEPS", "1:2")
    command = ["explain", "rejects", "--workspace", workspace.location]
    assert "html" in CliRunner().invoke(rho, command, catch_exceptions=False).stdout
