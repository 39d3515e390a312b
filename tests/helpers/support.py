"""What several tests share: the real datasets, where they are there, and small images."""

import atexit
import functools
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared"

#: Marks a test that reads the real datasets, which are not part of this repository; conftest.py skips it without them.
needs_shared = pytest.mark.real_data


@functools.cache
def unpack(kind: str) -> Path:
    """The folder of a real corpus, unpacked once a session; read it, never change it.

    Args:
        kind: "clothing1m", "imagefolder", "clothing", "dirty", "mnist" (1 to 2 s each) or "cifar10" (20 s).
    """
    folder = _session_folder() / kind
    command = [sys.executable, str(SHARED / "data" / "unpack.py"), kind, str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@functools.cache
def _session_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="rhostream-corpora-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def picture(seed: int = 0, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    """A reproducible image of noise, (width, height) pixels; other seeds give other pixels."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def jpeg(seed: int = 0, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> bytes:
    return encoded(picture(seed, size, mode), "JPEG")


def png(seed: int = 0, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> bytes:
    return encoded(picture(seed, size, mode), "PNG")


def put(path: Path, content: bytes | str) -> Path:
    """Write a file, its folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
