"""Options that several commands share, and how an option reads the environment."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Command = TypeVar("Command", bound=Callable[..., Any])

#: Inherited by every sub-command of `rho`.
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}

ENVIRONMENT_PREFIX = "RHO_"


class Option(click.Option):
    """An option that is also read from `RHO_<NAME>`: `--batch-size` from `RHO_BATCH_SIZE`; the flag wins."""

    def __init__(self, param_decls: list[str], **attributes: Any) -> None:
        flag = next(declaration for declaration in param_decls if declaration.startswith("--")).split("/")[0]
        attributes.setdefault("envvar", ENVIRONMENT_PREFIX + flag.strip("- ").replace("-", "_").upper())
        attributes.setdefault("show_envvar", True)
        super().__init__(param_decls, **attributes)


def option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:
    """`click.option` with the environment variable of `Option`."""
    return click.option(*declarations, cls=Option, **attributes)


def examples(*commands: str) -> str:
    """The `epilog` of a command: its examples, one line each, never re-wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def given(*names: str) -> tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]:
    """What the user set for the running command, as layers for `rhostream.pipeline.config.layers.settings`.

    Args:
        names: of the parameters to look at; without any, all of them.

    Returns:
        ("environment", values), ("command line", values): defaults are in neither.
    """
    context = click.get_current_context()
    layers: dict[ParameterSource | None, dict[str, Any]] = {
        ParameterSource.ENVIRONMENT: {},
        ParameterSource.COMMANDLINE: {},
    }
    for name in names or tuple(context.params):
        source = context.get_parameter_source(name)
        if source in layers:
            layers[source][name] = context.params[name]
    return (
        ("environment", layers[ParameterSource.ENVIRONMENT]),
        ("command line", layers[ParameterSource.COMMANDLINE]),
    )


class DeviceType(click.ParamType[str]):
    """`auto`, `cpu`, `cuda` or `cuda:N`; whether the device is there is for the library to say."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(value)):
            self.fail(f"{value!r} is none of auto, cpu, cuda, cuda:0, cuda:1 …", param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "[auto|cpu|cuda|cuda:N]"


workspace_option = option(
    "--workspace", required=True, metavar="PATH", help="Folder or fsspec URL that holds, or will hold, all artifacts."
)
device_option = option(
    "--device", type=DeviceType(), default="auto", help="Where the model runs; auto takes CUDA where there is one."
)
workers_option = option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Local worker processes; 0 works in this one. The result is the same for any number.",
)
json_option = option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
