"""The settings of a stage as a Markdown table, for the docs."""

import itertools
from typing import Any

from rhostream.pipeline.config.definition import Setting, definitions


def settings_table(kind: type[Any]) -> str:
    """A row for each setting of the dataclass `kind`: option, environment variable, values, default and meaning.

    Groups have a heading each, of the third level.
    """
    parts = []
    known = sorted(definitions(kind).values(), key=lambda each: _groups(kind).index(each.group))
    for group, members in itertools.groupby(known, key=lambda each: each.group):
        parts += [f"### {group}", ""] if group else []
        parts += ["| Setting | Variable | Values | Default | Meaning |", "|---|---|---|---|---|"]
        parts += [_row(each) for each in members]
        parts.append("")
    return "\n".join(parts)


def _groups(kind: type[Any]) -> list[str]:
    """The groups in the order of their first settings."""
    return list(dict.fromkeys(each.group for each in definitions(kind).values()))


def _row(each: Setting) -> str:
    name = f"`{each.name}`" if each.hidden else f"`{each.flag}`"
    allowed = [*(f"`{choice}`" for choice in each.choices), each.range_text]
    values = " · ".join(filter(None, allowed)) or each.form
    variable = f"`{each.variable}`" if each.variable else ""
    cells = (name, variable, values, each.default_text, each.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
