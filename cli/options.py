"""Options: made from the definitions of the settings, shared by commands, or a command's own; and their environment."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from rhostream.errors import ConfigError
from rhostream.pipeline.config import Setting, definitions, settings

Command = TypeVar("Command", bound=Callable[..., Any])
Config = TypeVar("Config")
Layer = tuple[str, Mapping[str, Any]]

#: Inherited by every sub-command of `rho`.
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}

ENVIRONMENT_PREFIX = "RHO_"


class Option(click.Option):
    """An option that is also read from `RHO_<NAME>`: `--batch-size` from `RHO_BATCH_SIZE`; the flag wins.

    Args:
        group: heading that it stands under in the help; options without one come last.
        default_text: what the help says of the default, where the option itself has none.
    """

    def __init__(
        self, param_decls: list[str], group: str = "Options", default_text: str = "", **attributes: Any
    ) -> None:
        flag = next(declaration for declaration in param_decls if declaration.startswith("--")).split("/")[0]
        attributes.setdefault("envvar", ENVIRONMENT_PREFIX + flag.strip("- ").replace("-", "_").upper())
        attributes.setdefault("show_envvar", True)
        super().__init__(param_decls, **attributes)
        self.group, self._default_text = group, default_text

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        return {**extra, "default": self._default_text} if self._default_text else extra


class SettingType(click.ParamType[Any]):
    """Texts of the command line as values of one setting, checked as those of a manifest are."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.name = setting, setting.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            if self.setting.is_mapping:
                return self.setting.read_item(value)
            if self.setting.is_list and not self.setting.commas:
                return str(value)
            return self.setting.checked(self.setting.read(value), "")
        except ConfigError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return f"[{'|'.join(self.setting.choices)}]" if self.setting.choices else None


class GroupedCommand(click.Command):
    """A command whose help lists its options in their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        titles = dict.fromkeys(getattr(each, "group", "Options") for each in options)
        for title in [*(title for title in titles if title != "Options"), "Options"]:
            records = (each.get_help_record(ctx) for each in options if getattr(each, "group", "Options") == title)
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


def command(*commands: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with options in groups, and examples of the command."""
    return click.command(cls=GroupedCommand, epilog=examples(*commands), **attributes)


def option(*declarations: str, **attributes: Any) -> Callable[[Command], Command]:
    """`click.option` with the environment variable of `Option`."""
    return click.option(*declarations, cls=Option, **attributes)


def settings_options(kind: type[Any], *names: str) -> Callable[[Command], Command]:
    """An option for each setting of the dataclass `kind`, or for these of them, in their order."""
    known = definitions(kind)
    chosen = [known[name] for name in names] if names else [each for each in known.values() if not each.hidden]

    def decorate(command: Command) -> Command:
        for each in reversed(chosen):
            command = _setting_option(each)(command)
        return command

    return decorate


def _setting_option(each: Setting) -> Callable[[Command], Command]:
    attributes: dict[str, Any] = {
        "default": None,
        "envvar": each.variable,
        "help": each.help,
        "group": each.group or "Options",
        "default_text": each.default_text,
    }
    if each.is_switch:
        return option(f"{each.flag}/--no-{each.flag[2:]}", each.name, **attributes)
    if each.is_mapping:
        attributes["callback"] = lambda context, parameter, items: dict(items)
    multiple = each.is_mapping or (each.is_list and not each.commas)
    kind = SettingType(each)
    return option(each.flag, each.name, type=kind, metavar=each.metavar or None, multiple=multiple, **attributes)


def examples(*commands: str) -> str:
    """The `epilog` of a command: its examples, one line each, never re-wrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def given(*names: str) -> tuple[Layer, Layer]:
    """What the user set for the running command, as layers for `rhostream.pipeline.config.settings`.

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


def given_settings(kind: type[Any]) -> tuple[Layer, Layer]:
    """The part of `given` that are settings of the dataclass `kind`."""
    return given(*definitions(kind).keys() & click.get_current_context().params.keys())


def chosen_settings(kind: type[Config], *layers: Layer) -> Config:
    """The settings of the running command: `layers` below its environment and its flags."""
    return settings(kind, *layers, *given_settings(kind))


workspace_option = option(
    "--workspace", required=True, metavar="PATH", help="Folder or fsspec URL that holds, or will hold, all artifacts."
)
force_option = click.option("--force", is_flag=True, help="Overwrite --output, whatever it is.")
#: Of a command that has a `--format` too.
json_rows_option = option("--json", "as_json", is_flag=True, help="The same as --format json.")
json_option = option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
