"""A manifest to begin with: a commented one of those that come with the package."""

import json
import re
import tomllib
from importlib import resources
from pathlib import Path

from rhostream.errors import ConfigError


def templates() -> dict[str, str]:
    """The text of every manifest that comes with the package, by name."""
    files = resources.files("rhostream.data_manifests").iterdir()
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".toml")
    }


def write_template(name: str, output: str = "", root: str = "", *, force: bool = False) -> Path:
    """Write a commented manifest.

    Args:
        name: of a manifest that comes with the package, or a format: then its first one.
        output: the file; `<name>.toml` in the working directory by default.
        root: where the corpus lies, in place of the manifest's own.
        force: overwrite a file that is no earlier result.

    Raises:
        ConfigError: an unknown name, or a file that may not be written, see `OutputFile`.
    """
    known = templates()
    of_format = {tomllib.loads(text)["format"]: text for text in reversed(known.values())}
    text = known.get(name) or of_format.get(name)
    if text is None:
        raise ConfigError(f"no manifest for {name!r}: there are {', '.join(dict.fromkeys([*known, *of_format]))}")
    file = Path(output or f"{name}.toml")
    # A root in the manifest is relative to its folder, this one to the working directory.
    place = root if "://" in root else str(Path(root).expanduser().resolve())
    if root:
        text = re.sub(r"^root = .*$", lambda _: f"root = {json.dumps(place)}", text, count=1, flags=re.MULTILINE)
    text = text.replace('root = "../', 'root = "')
    text = re.sub(
        r"make shards MANIFEST=\S+(?: ROOT=(\S+))? WORKSPACE=(\S+)",
        lambda found: f"rho shards --manifest {file}{f' --root {found[1]}' if found[1] else ''} --workspace {found[2]}",
        text,
    )
    text = text.replace("make demo", f"rho shards --manifest {file} --workspace runs/demo")
    from rhostream.loaders.storage import OutputFile  # it imports fsspec, which settings need not

    OutputFile(str(file), force=force).write(text.encode())
    return file
