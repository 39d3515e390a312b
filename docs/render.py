"""Renders what README and docs show of results, schema and settings, in place, so that no two places can disagree.

    python docs/render.py            rewrites the pages and docs/assets/paying.svg
    python docs/render.py --check    says which are not as the sources would have them, and exits with 1

A page calls a function below, or of one of `benchmarks/*figures.py`, between two comments:

    <!-- render: loaders_table() -->
    <!-- /render -->
"""

import re
import sys
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import faults_figures  # noqa: E402
import figures  # noqa: E402
import scaling_figures  # noqa: E402
import selection_figures  # noqa: E402
import text_figures  # noqa: E402

from rhostream import schema  # noqa: E402
from rhostream.pipeline import config  # noqa: E402

PICTURE = ROOT / "docs" / "assets" / "paying.svg"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_MARKED = re.compile(
    r"<!-- render: (?P<name>\w+)\((?P<argument>[^)]*)\) -->(?P<break>\n?).*?<!-- /render -->", re.DOTALL
)


def columns(name: str) -> str:
    """The columns of a table of `rhostream.schema`, with what the comments behind them say."""
    fields: pa.Schema = getattr(schema, name)
    comments = _comments()
    rows = [[f"`{field.name}`", str(field.type), comments.get((name, field.name), "")] for field in fields]
    return figures.table(["column", "type", "means"], rows)


def _comments() -> dict[tuple[str, str], str]:
    """The comment behind each field in schema.py, by table and column."""
    found, name = {}, ""
    for line in (ROOT / "rhostream" / "schema.py").read_text().splitlines():
        if line and not line.startswith((" ", "#", "]", ")")):
            name = line.split(":")[0].strip()
        code, _, comment = line.partition("  # ")
        if 'pa.field("' in code:
            found[name, code.split('"')[1]] = comment.replace("|", "\\|")
    return found


def meanings(name: str) -> str:
    """A dictionary of `rhostream.schema` as a table: each value and what it means."""
    return figures.table(["value", "means"], [[f"`{value}`", text] for value, text in getattr(schema, name).items()])


def settings(name: str) -> str:
    """The settings of a dataclass of `rhostream.pipeline.config`."""
    return config.settings_table(getattr(config, name)).strip()


def rendered(page: Path) -> str:
    """The page as its sources would have it."""

    def render(match: re.Match[str]) -> str:
        function = _FUNCTIONS[match["name"]]
        arguments = [match["argument"].strip("\"'")] if match["argument"] else []
        content = function(*arguments)
        between = 2 * match["break"]  # Markdown wants a table to stand alone
        return f"<!-- render: {match['name']}({match['argument']}) -->{between}{content}{between}<!-- /render -->"

    return _MARKED.sub(render, page.read_text())


_SOURCES = (figures, selection_figures, scaling_figures, faults_figures, text_figures)
_FUNCTIONS = {name: each for source in _SOURCES for name, each in vars(source).items()} | globals()


def main() -> None:
    picture = selection_figures.render_picture()
    stale = [page for page in PAGES if rendered(page) != page.read_text()]
    if not PICTURE.exists() or PICTURE.read_bytes() != picture:
        stale.append(PICTURE)
    if "--check" in sys.argv:
        sys.exit("\n".join(f"{file.relative_to(ROOT)}: run `python docs/render.py`" for file in stale) or None)
    PICTURE.write_bytes(picture)
    for page in PAGES:
        page.write_text(rendered(page))


if __name__ == "__main__":
    main()
