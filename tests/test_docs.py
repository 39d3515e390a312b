"""Commands, SQL and Python of README and docs run; their figures are those of the results; every command has help."""

import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from helpers import tables
from helpers.corpus_fixture import write_shapes
from helpers.support import jpeg
from torch import nn
from torch.nn import functional

import rhostream
from rhostream.cli.main import rho
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config import ILScoreConfig, ILTrainConfig
from rhostream.pipeline.explain.reasons import REASONS
from rhostream.pipeline.explain.titles import QUESTIONS
from rhostream.pipeline.il import score_il, train_il
from rhostream.pipeline.models import build_model
from rhostream.pipeline.sql.database import query
from rhostream.selection.scoring import functions

ROOT = Path(__file__).parents[1]
PAGES = {
    str(page.relative_to(ROOT)): page.read_text()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}


def blocks(language: str) -> list[str]:
    """Every fenced block of a language in README and docs, each once."""
    pattern = rf"^```{language}\n(.*?)^```"
    found = [block for text in PAGES.values() for block in re.findall(pattern, text, re.MULTILINE | re.DOTALL)]
    return list(dict.fromkeys(found))


def commands(program: str) -> list[list[str]]:
    """The arguments of every call of `program` in the shell blocks of README and docs."""
    calls = []
    for line in "\n".join(blocks("sh")).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
        lexer.commenters, lexer.whitespace_split = "#", True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set(";&|<>()"):
                call.append(word)
                continue
            while call and re.fullmatch(r"[A-Z_]+=.*", call[0]):
                call.pop(0)
            if call and call[0] == program:
                calls.append(call[1:])
            call = []
            if word in ("<", ">", ">>"):
                call = ["(file)"]
    return calls


def parse(arguments: list[str]) -> None:
    """Parse as the shell would have it parsed, without running the command."""
    context: click.Context | None = None
    command: click.Command | None = rho
    while isinstance(command, click.Group):
        context = command.make_context(command.name, arguments, parent=context)
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
    assert command
    command.make_context(command.name, arguments, parent=context)


def all_commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Every command and group below `group`, by what is typed for it ("il train")."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[prefix + name] = command
        if isinstance(command, click.Group):
            found |= all_commands(command, f"{prefix}{name} ")
    return found


ALL_COMMANDS = all_commands(rho)


def test_the_docs_show_every_ready_question() -> None:
    assert {call[1] for call in commands("rho") if call[0] == "explain"} == set(QUESTIONS)


def test_the_docs_show_every_command() -> None:
    shown = {" ".join(call[:2]) for call in commands("rho")} | {call[0] for call in commands("rho")}
    assert {name for name, command in ALL_COMMANDS.items() if not isinstance(command, click.Group)} <= shown


def test_the_docs_explain_every_reason_for_skipping() -> None:
    table = PAGES["docs/explain.md"].split("| reason | the first that fits |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(REASONS)


def test_the_readme_has_at_most_150_lines() -> None:
    assert PAGES["README.md"].count("\n") <= 150


@pytest.mark.slow
def test_the_pages_and_picture_show_the_figures_of_the_results() -> None:
    check = [sys.executable, str(ROOT / "docs" / "render.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_figure_of_a_table_is_typed_by_hand() -> None:
    for name, text in PAGES.items():
        by_hand = re.sub(r"<!-- render: .*?<!-- /render -->", "", text, flags=re.DOTALL)
        typed = re.findall(r"[\d.,]+ (?:CPU-s|images/s|µs|MB/s)\b|\b\d+ (?:of|steps against) \d[\d,]* steps", by_hand)
        assert not typed, f"{name}: {typed}"


def test_documented_scripts_exist() -> None:
    scripts = [call[0] for program in ("python", ".venv/bin/python") for call in commands(program) if call]
    named = [script for script in scripts if script.endswith(".py")]
    assert named
    assert [script for script in named if not (ROOT / script).exists()] == []


def test_every_link_of_a_page_leads_somewhere() -> None:
    for name, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("arguments", commands("rho"), ids=" ".join)
def test_a_documented_command_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RHO_WORKSPACE", raising=False)
    parse(arguments)


def test_a_command_with_an_unknown_option_does_not_parse() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["query", "SELECT 1", "--workspace", "w", "--color", "red"])


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for arguments in commands("make") for word in arguments if "=" not in word and word[0] != "-"}
    assert named <= targets


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    command = ALL_COMMANDS[name]
    assert command.help
    if not isinstance(command, click.Group):
        assert f"rho {name} " in re.sub(" +", " ", command.epilog or ""), "no example of it"
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return tables.fill(str(tmp_path_factory.mktemp("workspace")))


@pytest.mark.parametrize("sql", blocks("sql"), ids=lambda sql: sql.splitlines()[0].lstrip("- "))
def test_a_documented_query_returns_rows(workspace: Workspace, sql: str) -> None:
    assert query(workspace, sql).num_rows > 0


QUERIES = [
    word
    for call in commands("rho")
    if call[0] == "query"
    for word in call
    if re.match("(SELECT|FROM|WITH|SHOW) ", word)
]


@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_in_a_documented_command_returns_rows(workspace: Workspace, sql: str) -> None:
    assert query(workspace, sql).num_rows > 0


def answer(workspace: Workspace, question: str) -> list[dict[str, Any]]:
    (sql,) = (block for block in blocks("sql") if question in block.splitlines()[0])
    rows: list[dict[str, Any]] = query(workspace, sql).to_pylist()
    return rows


def test_most_skipped_classes_are_ranked_by_share(workspace: Workspace) -> None:
    rows = answer(workspace, "skipped most")
    assert rows[0]["class"] == "shirt"
    by_class = {row["class"]: (row["candidates"], row["selected"]) for row in rows}
    assert by_class == {"shirt": (9, 6), "dress": (12, 9), "coat": (12, 9)}
    assert rows[0]["skipped"] == pytest.approx(1 / 3)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a trained IL model and its table."""
    made = write_shapes(tmp_path_factory.mktemp("shapes"), splits={"train": 400, "holdout": 80, "test": 40})
    train_il(made, ILTrainConfig(model="strided_cnn", steps=2))
    score_il(made, ILScoreConfig())
    return made


#: Without the examples that pages include, which tests/integrations runs.
SNIPPETS = [code for code in blocks("python") if "--8<--" not in code]


@pytest.mark.parametrize("code", SNIPPETS, ids=lambda code: code.splitlines()[0])
def test_a_documented_snippet_runs(
    shapes: Workspace, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(functions, "_FUNCTIONS", dict(functions._FUNCTIONS))  # what a page registers ends with it
    spec = CorpusMetadata.read(shapes).image_spec()

    def network(num_classes: int = 4) -> nn.Module:
        return build_model("strided_cnn", num_classes, spec, seed=0)

    model = network()
    stream = rhostream.CandidateStream(shapes, il="strided_cnn")
    shapes.remove("runs")
    if "ReplayStream" in code:
        with rhostream.Ledger(shapes, "my-run") as ledger:
            list(rhostream.OnlineSelector(model, ledger=ledger)(stream))
    names = {
        "__name__": "__main__",
        "database": [{"id": n, "jpeg": jpeg(n), "color": ("red", "blue")[n % 2]} for n in range(40)],
        "stream": stream,
        "selector": rhostream.OnlineSelector(model),
        "MyModel": network,
        "model": model,
        "small_model": network(),
        "il_model": network(),
        "optimizer": torch.optim.AdamW(model.parameters()),
        "focal_loss": partial(functional.cross_entropy, reduction="none"),
        "criterion": partial(functional.cross_entropy, reduction="none"),
    }
    exec(code.replace("runs/clothing1m", shapes.location), names)
