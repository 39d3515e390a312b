"""The tars that a root names: a folder, a glob or a brace pattern."""

import re
from pathlib import Path

import braceexpand

from rhostream.errors import CorpusError
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora.paths import corpus_root

_MAGIC = re.compile(r"[*?\[{]")


def find_tars(manifest: Manifest) -> tuple[Path, list[str]]:
    """The folder above all tars, and their names relative to it, sorted.

    Raises:
        CorpusError: there is none, or one that a brace pattern names is not there.
    """
    magic = _MAGIC.search(manifest.root)
    if magic is None:
        base = corpus_root(manifest)
        if base.is_file():
            return base.parent, [base.name]
        found = set(base.rglob("*.tar"))
    else:
        folder, slash, _ = manifest.root[: magic.start()].rpartition("/")
        base = Path(folder + slash)
        found = set()
        for pattern in braceexpand.braceexpand(manifest.root[len(folder + slash) :]):
            matches = list(base.glob(pattern))
            if not matches:
                raise CorpusError(
                    f"{base / pattern}, which root {manifest.root!r} names, is not there: fetch it or correct `root`"
                )
            found.update(matches)
    if not found:
        raise CorpusError(f"{base} holds no *.tar: pass a folder with tars, or a pattern, as --root")
    return base, sorted(path.relative_to(base).as_posix() for path in found)
