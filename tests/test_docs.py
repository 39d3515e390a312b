"""The README's commands exist, its SQL runs and answers what it says, and every command explains itself."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from helpers import tables

from rhostream.cli.main import rho
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.explain.reasons import REASONS
from rhostream.pipeline.explain.titles import QUESTIONS
from rhostream.pipeline.sql.database import query

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """The arguments of every call of `program` in the README's shell blocks."""
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
    context, command = None, rho
    while isinstance(command, click.Group):
        context = command.make_context(command.name, arguments, parent=context)
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
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


def test_the_readme_shows_commands_queries_and_every_ready_question() -> None:
    assert len(commands("rho")) >= 5
    assert len(blocks("sql")) >= 1
    assert {call[1] for call in commands("rho") if call[0] == "explain"} == set(QUESTIONS)


def test_the_readme_explains_every_reason_for_which_a_sample_is_skipped() -> None:
    table = README.split("| reason | the first that fits |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(REASONS)


@pytest.mark.parametrize("arguments", commands("rho"), ids=" ".join)
def test_a_rho_command_of_the_readme_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RHO_WORKSPACE", raising=False)
    parse(arguments)


def test_a_command_with_an_unknown_option_does_not_parse() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["query", "SELECT 1", "--workspace", "w", "--color", "red"])


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for arguments in commands("make") for word in arguments if "=" not in word and word[0] != "-"}
    assert named <= targets


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_help_with_examples_of_itself(name: str) -> None:
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
def test_a_query_of_the_readme_returns_rows(workspace: Workspace, sql: str) -> None:
    assert query(workspace, sql).num_rows > 0


QUERIES = [
    word
    for call in commands("rho")
    if call[0] == "query"
    for word in call
    if re.match("(SELECT|FROM|WITH|SHOW) ", word)
]


@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_in_a_command_of_the_readme_returns_rows(workspace: Workspace, sql: str) -> None:
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
