"""A folder that a synthetic corpus is written into: killed and begun again it ends with the same bytes."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, decode_card, read_file, whole_file
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.jobs import in_processes, progress

STAMP: Final = "synthetic.json"  # written first: whose folder this is, and how the corpus is drawn

_BLOCK: Final = 256  # images a process draws before it reports
_PART: Final = ".part"


def root_of(manifest: Manifest, stamp: Mapping[str, Any]) -> Path:
    """Where the manifest wants the corpus of this stamp.

    Raises:
        CorpusError: it does not say where, or see `begin_folder`.
    """
    if not manifest.root:
        raise CorpusError(f"manifest {manifest.name!r} names no root to draw into: pass --root")
    _check_root(Path(manifest.root), stamp)
    return Path(manifest.root)


def begin_folder(root: Path, stamp: Mapping[str, Any], last: str) -> bool:
    """Is the corpus still to be written? Then the folder is there, and says what is written into it.

    Args:
        stamp: what all of its bytes follow from.
        last: name of the file that is written last.

    Raises:
        CorpusError: there is something else, or a synthetic corpus of other options.
    """
    _check_root(root, stamp)
    if (root / last).exists():
        return False
    root.mkdir(parents=True, exist_ok=True)
    with filled(root / STAMP) as stream:
        stream.write(json.dumps(stamp, indent=1).encode() + b"\n")
    return True


def filled(path: Path) -> AbstractContextManager[IO[bytes]]:
    """A file of the folder to fill; it has its name once it is whole."""
    return whole_file(str(path), path.with_name(path.name + _PART))


def _check_root(root: Path, stamp: Mapping[str, Any]) -> None:
    if not root.exists():
        return
    if not root.is_dir():
        raise CorpusError(f"{root} is a file: the synthetic corpus needs a folder, pass another --root")
    try:
        found = decode_card(read_file(root / STAMP))
    except FileNotFoundError:
        strangers = {path.name for path in root.iterdir()} - {STAMP + _PART}
        if strangers:
            raise CorpusError(
                f"{root} holds {min(strangers)!r} and no synthetic corpus, which would be drawn into it: pass another "
                "--root, or choose the format of what is there"
            ) from None
        return
    except UnreadableError:
        found = {}
    if found != stamp:
        differing = sorted(name for name in stamp if found.get(name) != stamp[name])
        changes = ", ".join(f"{name} {found.get(name)} instead of {stamp[name]}" for name in differing)
        raise CorpusError(f"{root} holds a synthetic corpus with {changes}: delete it, or pass another --root")


def draw_folder(
    root: Path,
    *,
    stamp: Mapping[str, Any],
    images: int,
    draw: Callable[[int], bytes | None],
    key: Callable[[int], str],
    lists: Mapping[str, list[str]],
    processes: int,
) -> None:
    """Draw the corpus unless it is complete; what was begun and killed is drawn again, to the same bytes.

    Args:
        images: how many are drawn.
        draw: the file of an image by its number; None where it is to be missing. It is pickled to the processes.
        key: the name of that file.
        lists: lines of the lists, by name. The last one is written last: it says that the corpus is complete.
        processes: 0 draws in this one. Nothing in the corpus depends on it.

    Raises:
        CorpusError: see `begin_folder`.
    """
    if not begin_folder(root, stamp, last=[*lists][-1]):
        return
    blocks = [range(start, min(start + _BLOCK, images)) for start in range(0, images, _BLOCK)]
    with progress("synthetic corpus", images, "images") as bar:
        for count in in_processes(partial(_draughtsman, root, draw, key), blocks, processes):
            bar.advance(count)
    for name, lines in lists.items():
        with filled(root / name) as stream:
            stream.writelines(f"{line}\n".encode() for line in lines)


def _draughtsman(
    root: Path, draw: Callable[[int], bytes | None], key: Callable[[int], str], number: int
) -> Callable[[range], int]:
    """What draws a block of images and says how many they were."""

    def write(block: range) -> int:
        for image in block:
            data = draw(image)
            if data is not None:
                path = root / key(image)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return len(block)

    return write
