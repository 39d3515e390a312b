"""Tensors: safetensors, and the archives of `torch.save` that hold tensors and plain values alone.

The only module that reads either, and that knows how a damaged one fails.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rhostream.loaders.storage.json_files import SEAL
from rhostream.loaders.storage.unreadable import UnreadableError

if TYPE_CHECKING:
    import torch

_UNSEALED: Final = "0" * 64
_SEAL: Final = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def encode_safetensors(tensors: "Mapping[str, torch.Tensor]") -> bytes:
    """A sealed safetensors file: its metadata holds the SHA-256 of all bytes, with zeros in the place of itself."""
    import safetensors.torch  # here, so that processes which only decode do not load torch

    content = safetensors.torch.save(dict(tensors), {SEAL: _UNSEALED})
    start = content.index(_UNSEALED.encode())
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[start + len(_UNSEALED) :]


def decode_safetensors(content: bytes) -> "dict[str, torch.Tensor]":
    """The tensors by name, on the CPU.

    Raises:
        UnreadableError: it is no such file, or its seal is broken.
    """
    import safetensors.torch

    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    if found := _SEAL.search(header):
        start, end = (8 + at for at in found.span(1))
        unsealed = content[:start] + _UNSEALED.encode() + content[end:]
        if hashlib.sha256(unsealed).hexdigest() != found[1].decode():
            raise UnreadableError("was damaged or changed after it was written (its seal is broken)")
    try:
        return safetensors.torch.load(content)
    # What a damaged file makes safetensors and torch raise is listed nowhere.
    except Exception as error:
        raise UnreadableError(f"is no safetensors file, or a damaged one ({error})") from error


def decode_torch(content: bytes) -> Any:
    """What `torch.save` wrote, its tensors on the CPU. A flipped bit is noticed by the check sums of the archive.

    Raises:
        UnreadableError: it is no such archive, is damaged, or holds what would have to run code.
    """
    import torch

    stream = io.BytesIO(content)
    try:
        # A file of a former release of torch is no archive, and has no check sums.
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(f"check sum of {damaged}")
        stream.seek(0)
        return torch.load(stream, map_location="cpu", weights_only=True)
    # What a damaged archive makes zipfile and torch raise is listed nowhere.
    except Exception as error:
        raise UnreadableError(f"is no file of tensors and plain values alone, or a damaged one ({error})") from error
