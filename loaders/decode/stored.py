"""The bytes of a stored sample, as the index tells of them."""

from rhostream.errors import UndecodableError
from rhostream.loaders.decode.rgb import content_hash
from rhostream.loaders.storage import ShardReader


def read_stored(
    shards: ShardReader, tar: str, offset: int, size: int, expected: str | None, *, whole: bool = True
) -> bytes:
    """The bytes of one sample, compared with their hash; what a damaged copy in the cache gives is fetched again.

    Args:
        expected: its `content_hash`; None compares nothing.
        whole: see `ShardReader.read`.

    Raises:
        UndecodableError: they are not those that were indexed.
        ShardError: the tar has vanished or is truncated.
    """
    data = shards.read(tar, offset, size, whole=whole)
    if expected is None or content_hash(data) == expected:
        return data
    if shards.forget_copy(tar):
        data = shards.read(tar, offset, size, whole=whole)
        if content_hash(data) == expected:
            return data
    raise UndecodableError("corrupt", "its bytes are not those that the index describes")
