"""The super-batches that a selector is given: which ranks share them out, and whether all got the same."""

import hashlib
from typing import Final

from torch.utils.data import DataLoader

from rhostream.errors import ConfigError
from rhostream.loaders.stream import Ranks, SuperBatch, SuperBatchStream

DIGEST_BYTES: Final = 16
#: What processes compare of each super-batch.
DIFFERENCE: Final = "the candidates that were read (their keys, epoch or position)"


def digest_of(super_batch: SuperBatch | None) -> bytes:
    """Of the candidates of all ranks: bytes that are equal where the candidates are, and only there."""
    if super_batch is None:
        return b""
    whole = super_batch if super_batch.part is None else super_batch.part.whole
    told = "\n".join([str(whole.state), str(whole.index), *whole.keys])
    return hashlib.blake2b(told.encode(), digest_size=DIGEST_BYTES).digest()


def ranks_of(source: object) -> Ranks:
    """The ranks that share out the super-batches of a stream, or of a DataLoader of one."""
    stream = source.dataset if isinstance(source, DataLoader) else source
    return stream.ranks if isinstance(stream, SuperBatchStream) else Ranks()


def require_unbatched(source: object) -> None:
    """Raises ConfigError for a DataLoader that would batch super-batches again."""
    size = source.batch_size if isinstance(source, DataLoader) else None
    if size is not None:
        raise ConfigError(f"batch_size={size} would batch super-batches again: DataLoader(stream, batch_size=None)")
