"""`rho export manifest`: the corpus's own manifest, with a clean list to apply."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from rhostream.errors import ConfigError
from rhostream.loaders.index import CorpusMetadata
from rhostream.loaders.storage import OutputFile, Workspace, refuse_secrets
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora import SAMPLES_FORMAT
from rhostream.pipeline.export.clean_list import refuse_heavy_drops
from rhostream.pipeline.shards import read_clean_list


def write_cleaned_manifest(
    workspace: Workspace | str,
    clean_list: str,
    output: str,
    *,
    root: str | None = None,
    max_drop_share: float = 0.5,
    force: bool = False,
) -> None:
    """Write the manifest that the workspace was made from to `output` (TOML), with `clean_list` applied.

    `rho shards --manifest OUTPUT` then makes the cleaned corpus in a workspace of its own.

    Args:
        root: of the corpus; None for the one it was read from.
        max_drop_share: a list that drops more, of all training samples or of any class, is refused.
        force: overwrite a file that is no earlier result.

    Raises:
        ConfigError: no such list, a root that is not there, a workspace that `rho index` has made, or samples in
            Python, or an `output` that may not be written, see `OutputFile`.
        WorkspaceError: no workspace.
    """
    workspace = Workspace(workspace)
    file = OutputFile(output, workspace=workspace, force=force)
    corpus = CorpusMetadata.read(workspace)
    if any(shard.source for shard in corpus.shards):
        raise ConfigError(
            f"workspace {workspace.location!r} indexes tars where they lie, which no manifest can clean: export "
            "its samples as tars, with the clean list, for a cleaned copy"
        )
    if corpus.manifest.get("format") == SAMPLES_FORMAT:
        raise ConfigError(
            f"workspace {workspace.location!r} was made from samples in Python, which no manifest reads: give the "
            "clean list there, write_shards(…, samples=…, clean_list=…)"
        )
    refuse_heavy_drops(workspace, read_clean_list(clean_list), max_drop_share)
    place = Path(output)
    values = _as_toml({**corpus.manifest, "root": _root(corpus.manifest.get("root", ""), root)})
    values["name"] = place.stem
    values["clean_list"] = os.path.relpath(clean_list, place.parent)
    order = ["name", "format", "root", "clean_list"]
    file.write(tomli_w.dumps({name: values[name] for name in [*order, *values] if name in values}).encode())


def _root(found: str, given: str | None) -> str:
    root = given if given is not None else found
    refuse_secrets(root)
    if not root or "://" in root:
        return root
    path = Path(root).absolute()
    if not path.exists():
        raise ConfigError(f"the corpus's root {root} is not there: name it with --root")
    return str(path)


def _as_toml(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults; TOML has no null."""
    usual = Manifest(name="", format="").to_dict()
    # What a holdout is where folds are given, or these beside a holdout, is no default of its own.
    usual["holdout"] = usual["folds"] = None
    return {
        name: _without_null(value)
        for name, value in manifest.items()
        if value is not None and _listed(value) != _listed(usual.get(name))
    }


def _without_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, (list, tuple)) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
