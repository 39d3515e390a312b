"""Files behind a URL, through fsspec: every operation ends, with its result or with one clear error.

An operation is tried again as `retries.RETRIES` says, and each attempt has a time limit. All functions raise
`FileNotFoundError` where there is no such object, and `WorkspaceError` where access is refused or the store keeps
failing.
"""

import contextlib
import hashlib
import io
import threading
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.asyn import sync

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.extras import install_command
from rhostream.loaders.storage import retries
from rhostream.loaders.storage.retries import with_retries
from rhostream.loaders.storage.secret_urls import refuse_secrets
from rhostream.plain_text import completed

_BUFFER_BYTES = 4 << 20

#: What fsspec needs for a URL of each scheme; the other schemes' libraries are in no extra of ours.
_LIBRARIES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs"}


def is_remote(path: str) -> bool:
    """Is this a URL, and no path of this machine?"""
    return "://" in path and not path.startswith(("file://", "local://"))


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL and its path there; in every process its own, so that a fork inherits no connection.

    References to the environment in the URL, such as `${TOKEN}`, are completed here and nowhere else, so that what is
    kept of it, in a workspace or a message, holds no secret.

    Raises:
        ConfigError: no fsspec file system serves this URL, it is a scheme alone, it holds a secret, or it refers to a
            variable that is not set.
    """
    scheme, sign, rest = url.partition("://")
    if sign and not rest.strip("/") and scheme != "memory":
        raise ConfigError(f"{url!r} names no host or bucket: write it out, or name a folder")
    refuse_secrets(url)
    try:
        url = completed(url)
    except KeyError as error:
        raise ConfigError(f"{url}: the environment variable {error.args[0]} is not set") from error
    try:
        found: tuple[fsspec.AbstractFileSystem, str] = fsspec.core.url_to_fs(url, **_options(url))
    except (ImportError, ValueError) as error:
        command = install_command(_LIBRARIES.get(scheme, ""))
        remedy = f"run `{command}`" if command else "install the fsspec package for it"
        raise ConfigError(f"{url!r}: {error}; {remedy}, or name a folder") from error
    return found


def stat(url: str) -> tuple[int, str]:
    """Bytes of an object, and an identity that changes when the object does (its ETag, time or generation)."""
    info = _info(url)
    if info.get("size") is None:
        raise WorkspaceError(f"{url}: its server does not tell its size (no Content-Length): use one that does")
    told = sorted((name, str(value)) for name, value in info.items() if name not in ("name", "url"))
    return int(info["size"]), hashlib.sha256(f"{url} {told}".encode()).hexdigest()


def exists(url: str) -> bool:
    """Of an object or folder."""
    try:
        _info(url)
    except FileNotFoundError:
        return False
    return True


def read(url: str) -> bytes:
    """The whole object."""
    size = stat(url)[0]
    return read_range(url, 0, size)


def read_range(url: str, start: int, end: int) -> bytes:
    """Bytes start to end of an object: fewer only where the object ends before `end`."""
    if end <= start:
        return b""

    def attempt() -> bytes:
        try:
            data: bytes = _call(url, "cat_file", size=end - start, start=start, end=end)
        except Exception as error:
            if retries.status(error) != 416:  # the range begins behind the object's end
                raise
            data = b""
        if len(data) > end - start:  # a server that knows no ranges sends all
            data = data[start:end]
        if len(data) < end - start and len(data) < stat(url)[0] - start:
            raise ConnectionError(f"{len(data)} of {end - start} bytes have come")
        return data

    return with_retries(attempt, url)


def open_file(url: str) -> IO[bytes]:
    """For reading, seekable."""
    return io.BufferedReader(_RangedFile(url), _BUFFER_BYTES)


def names(url: str) -> list[str]:
    """Names directly inside a folder; empty where there is none."""
    try:
        found = with_retries(lambda: _call(url, "ls", detail=False), url)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]


def put(file: Path, url: str) -> None:
    """Publish a local file as an object, as a whole or not at all."""

    def attempt() -> None:
        location, path = filesystem(url)
        _guarded(location, "put_file", str(file), path, size=file.stat().st_size)

    try:
        with_retries(attempt, url)
    except (NotImplementedError, WorkspaceError) as error:
        if isinstance(error, NotImplementedError) or retries.status(error) in (405, 501):
            raise WorkspaceError(f"{url}: this store cannot be written to; name another --workspace") from error
        raise


def remove(url: str) -> None:
    """An object, or a folder with all that is in it; nothing happens where there is none."""
    with contextlib.suppress(FileNotFoundError):
        with_retries(lambda: _call(url, "rm", recursive=True), url)


class _RangedFile(io.RawIOBase):
    def __init__(self, url: str) -> None:
        self._url, self._size, self._position = url, stat(url)[0], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = read_range(self._url, self._position, min(self._position + len(buffer), self._size))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        data = read_range(self._url, self._position, self._size)
        self._position += len(data)
        return data


def _info(url: str) -> dict[str, Any]:
    found: dict[str, Any] = with_retries(lambda: _call(url, "info"), url)
    return found


def _call(url: str, method: str, *, size: int = 0, **arguments: Any) -> Any:
    location, path = filesystem(url)
    return _guarded(location, method, path, size=size, **arguments)


def _guarded(location: fsspec.AbstractFileSystem, method: str, *arguments: Any, size: int, **named: Any) -> Any:
    """Call it, and raise TimeoutError where it does not come back in the time that `size` bytes may take."""
    seconds = retries.RETRIES.limit(size)
    if location.async_impl:
        return sync(location.loop, getattr(location, f"_{method}"), *arguments, timeout=seconds, **named)
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((getattr(location, method)(*arguments, **named), None))
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the thread that asked
            outcome.append((None, error))

    # A daemon, so that a call that never comes back does not keep the process from ending either.
    thread = threading.Thread(target=work, daemon=True, name="rhostream-remote")
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def _options(url: str) -> dict[str, Any]:
    """Time limits, and no second layer of retries or of remembered listings; the user's fsspec settings go first."""
    scheme = url.partition("://")[0]
    given = fsspec.config.conf.get(scheme, {})
    stall = retries.RETRIES.stall
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": stall / 2, "read_timeout": stall, "retries": {"total_max_attempts": 1}}
        return {"use_listings_cache": False, "config_kwargs": limits | given.get("config_kwargs", {})}
    if scheme in ("gs", "gcs", "abfs", "az"):
        return {"use_listings_cache": False}
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        limit = ClientTimeout(total=None, sock_connect=stall / 2, sock_read=stall)
        return {"client_kwargs": {"timeout": limit} | given.get("client_kwargs", {})}
    return {}
