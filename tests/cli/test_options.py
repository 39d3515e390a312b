"""Options that are made from the definitions of settings, and their environment."""

import collections
import re

import click
import pytest
from click.testing import CliRunner

from rhostream.cli.main import rho
from rhostream.cli.options import GroupedCommand, chosen_settings, settings_options
from rhostream.pipeline.config import ILTrainConfig, TrainConfig, WebDatasetOptions, definitions


def commands(group: click.Group, prefix: str = "rho") -> dict[str, click.Command]:
    """Every command below `group` by what is typed for it."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix} {name}")
        else:
            found[f"{prefix} {name}"] = command
    return found


COMMANDS = commands(rho)


def meaning(option: click.Option) -> str:
    """What its help shows for the value, without the ways in which it may be repeated."""
    return option.make_metavar(click.Context(rho)) if not option.is_flag else "a switch"


def test_no_environment_variable_means_two_things() -> None:
    found = collections.defaultdict(dict)
    for name, command in COMMANDS.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar:
                found[option.envvar][name] = meaning(option)
    assert {"RHO_WORKSPACE", "RHO_STEPS", "RHO_THUMBNAILS", "RHO_THUMBNAILS_SIZE"} <= found.keys()
    assert {variable: uses for variable, uses in found.items() if len(set(uses.values())) > 1} == {}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.split()[1] in ("train", "il", "index", "shards")])
def test_every_option_but_overwrite_and_output_has_a_variable(name: str) -> None:
    options = [each for each in COMMANDS[name].params if isinstance(each, click.Option)]
    assert {each.name for each in options if not each.envvar} <= {"overwrite", "output"}


@pytest.mark.parametrize(("command", "kind"), [("rho train", TrainConfig), ("rho il train", ILTrainConfig)])
def test_a_command_has_an_option_for_each_setting(command: str, kind: type) -> None:
    flags = {flag for each in COMMANDS[command].params for flag in each.opts}
    assert {each.flag for each in definitions(kind).values() if not each.hidden} <= flags


def test_help_of_train_shows_its_options_in_groups() -> None:
    shown = CliRunner().invoke(rho, ["train", "--help"]).output
    titles = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    assert titles == ["Budget", "Model", "Selection", "Scoring", "Reading", "Logging", "Comparison", "Options"]
    selection = shown.partition("\nSelection:")[2].partition("\nScoring:")[0]
    assert "--select FUNCTION" in selection
    assert "default: learnable]" in re.sub(r"\s+", " ", selection)


@click.command(cls=GroupedCommand)
@settings_options(TrainConfig, "batch_size", "score_ahead", "tensorboard", "optimizer_options", "schedule", "device")
@settings_options(WebDatasetOptions)
def chosen(**_: object) -> None:
    config = chosen_settings(TrainConfig, ("manifest", {"batch_size": 2, "steps": 5}))
    options = chosen_settings(WebDatasetOptions)
    click.echo((config.batch_size, config.steps, config.score_ahead, config.tensorboard, config.optimizer_options))
    click.echo((options.extra, options.splits, options.keys))


def test_flags_win_over_variables_which_win_over_layers() -> None:
    run = CliRunner().invoke
    assert run(chosen, []).output == "(2, 5, False, None, {})\n((), {}, 'sample')\n"
    variables = {"RHO_BATCH_SIZE": "3", "RHO_SCORE_AHEAD": "1", "RHO_TAR_SPLITS": "a-*.tar=val b-*.tar=test"}
    found = run(chosen, [], env=variables).output
    assert found == "(3, 5, True, None, {})\n((), {'a-*.tar': 'val', 'b-*.tar': 'test'}, 'sample')\n"
    flags = ["--batch-size", "4", "--no-score-ahead", "--no-tensorboard", "--optimizer-option", "betas=[0.5,0.9]"]
    found = run(chosen, [*flags, "--extra", "caption", "--extra", "n=int64"], env=variables).output
    assert found.startswith("(4, 5, False, False, {'betas': [0.5, 0.9]})\n({'caption': 'string', 'n': 'int64'}, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "many"], "batch_size = 'many' is not a whole number"),
        (["--batch-size", "0"], "batch_size 0: give 1 or more"),
        (["--schedule", "step"], "schedule = 'step' is not one of cosine, linear, constant, inverse_sqrt"),
        (["--device", "gpu"], "device 'gpu': choose auto, cpu, cuda or cuda:N"),
        (["--split", "val"], "'val': give GLOB=SPLIT"),
    ],
)
def test_a_wrong_values_usage_error_names_the_option(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(chosen, arguments)
    assert result.exit_code == 2
    assert f"'{arguments[0]}'" in result.output
    assert message in re.sub(r"\s+", " ", result.output)
