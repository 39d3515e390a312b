"""Which extra of the package brings a library that is not installed."""

import re


def install_command(library: str) -> str | None:
    """The command that installs `library`, by the first extra of pyproject.toml that names it; None where none does."""
    from importlib import metadata  # only errors need it

    for requirement in metadata.requires("rhostream") or ():
        found = re.match(rf"""{re.escape(library)}\b[^;]*; extra == ['"](\w+)['"]""", requirement)
        if found:
            return f"pip install 'rhostream[{found[1]}]'"
    return None
