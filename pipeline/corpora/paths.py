"""Paths of a corpus: its root, and the names inside it that may not lead out of it."""

import posixpath
from pathlib import Path

from rhostream.errors import CorpusError
from rhostream.pipeline.config import Manifest


def corpus_root(manifest: Manifest) -> Path:
    """The corpus's root, a folder or file that exists.

    Raises:
        CorpusError: no root is named, or it is not there.
    """
    if not manifest.root:
        raise CorpusError(f"manifest {manifest.name!r} names no root: pass --root or set `root` in the manifest")
    if "://" in manifest.root:
        raise CorpusError(
            f"{manifest.root}: a corpus in the format {manifest.format} is read from a local folder: copy it to one, "
            "or index its tars where they are"
        )
    root = Path(manifest.root)
    if not root.exists():
        raise CorpusError(
            f"{root}: the root of corpus {manifest.name!r} is not there; pass --root or correct `root` in the manifest"
        )
    return root


def relative_name(name: str, root: Path) -> str | None:
    """`name` relative to `root`, without "." and ".."; None where it leads out of the root or cannot be a path.

    An absolute name is accepted inside `root`. Symbolic links are not followed: a link that the owner of the corpus
    placed in it may lead wherever they like.
    """
    if not name or "\0" in name:
        return None
    if name.startswith("/"):
        prefix = posixpath.normpath(root.absolute().as_posix())
        name = posixpath.relpath(posixpath.normpath(name), prefix)
    name = posixpath.normpath(name)
    return None if name in (".", "..") or name.startswith("../") else name
