"""What is tried again, how often and for how long."""

import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rhostream.errors import WorkspaceError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Retries:
    """The bounds of one network operation.

    Attributes:
        attempts: how often it is tried.
        seconds: after so long no further attempt begins.
        pause: seconds before the second attempt; doubled before each further one, less a random part of up to a half,
            so that the ranks of a job do not knock at an ailing store in step.
        longest_pause: seconds.
        stall: seconds without a byte after which an attempt has failed.
        slowest: bytes per second; an attempt has failed as well when it takes longer than `stall` plus the time that
            its bytes take at this rate.
    """

    attempts: int = 8
    seconds: float = 120.0
    pause: float = 0.25
    longest_pause: float = 10.0
    stall: float = 20.0
    slowest: float = 100_000.0

    def pauses(self) -> Iterator[float]:
        """Seconds to wait after each failed attempt but the last."""
        for number in range(self.attempts - 1):
            yield min(self.longest_pause, self.pause * 2**number) * random.uniform(0.5, 1)

    def limit(self, size: int) -> float:
        """Seconds that one attempt to move `size` bytes may take."""
        return self.stall + size / self.slowest


#: Of every network operation: an outage of about 20 s is ridden out.
RETRIES = Retries()

_TRANSIENT_ERRNOS = {
    errno.EBUSY,
    errno.EAGAIN,
    errno.EIO,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.EHOSTUNREACH,
    errno.EHOSTDOWN,
    getattr(errno, "EREMOTEIO", errno.EIO),
}
# Classes of the HTTP libraries, by name: none of these is imported unless a file system has done so.
_TRANSIENT_NAMES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ServerDisconnectedError",  # aiohttp
    "ConnectionError",  # botocore's own: refused, connect timeout, proxy; and Python's
    "HTTPClientError",
    "IncompleteReadError",
    "ResponseParserError",  # botocore
    "IncompleteRead",
    "ProtocolError",  # urllib3, http.client
    "TransportError",  # httpx
}


def with_retries(operation: Callable[[], T], url: str, retries: Retries | None = None) -> T:
    """The result of an operation on `url`, tried again after errors that may pass.

    Raises:
        WorkspaceError: it still failed after all attempts, or the store refuses it.
        Exception: any other error that will not pass by itself, as it is.
    """
    retries = retries or RETRIES
    begin = time.monotonic()
    pauses = retries.pauses()
    attempts = 0
    while True:
        attempts += 1
        try:
            return operation()
        except Exception as error:
            if not is_transient(error):
                if _is_refusal(error):
                    raise WorkspaceError(
                        f"{url}: access is refused ({_one_line(error)}): check the credentials and the store's policy"
                    ) from error
                if _is_answer(error):
                    raise WorkspaceError(
                        f"{url}: {_one_line(error)}: check the URL and the store's settings"
                    ) from error
                raise
            pause, elapsed = next(pauses, None), time.monotonic() - begin
            if pause is None or elapsed + pause > retries.seconds:
                raise WorkspaceError(
                    f"{url}: {attempts} attempts in {elapsed:.0f} s have failed, the last with {_one_line(error)}: "
                    "check the network and the store, then run again; it goes on where it stopped"
                ) from error
            time.sleep(pause)


def is_transient(error: BaseException) -> bool:
    """May the same operation succeed a moment later?"""
    if any(kind.__name__ in _TRANSIENT_NAMES for kind in type(error).__mro__):
        return True
    code = status(error)
    if code is not None:
        return code in (408, 425, 429) or (code >= 500 and code not in (501, 505))
    if isinstance(error, FileNotFoundError):  # some file systems say so whatever the cause
        return error.__cause__ is not None and is_transient(error.__cause__)
    if isinstance(error, (ConnectionError, TimeoutError, EOFError)):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS


def status(error: BaseException | None) -> int | None:
    """The HTTP status that an error, or what caused it, tells."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(response, "status_code", None) or getattr(error, "status", None)
            found = found or getattr(error, "code", None)
        if isinstance(found, int) and found >= 400:
            return found
        error = error.__cause__
    return None


def _is_refusal(error: BaseException) -> bool:
    lacks_credentials = any("Credential" in kind.__name__ for kind in type(error).__mro__)
    return lacks_credentials or isinstance(error, PermissionError) or status(error) in (401, 403)


def _is_answer(error: BaseException) -> bool:
    """Has the store, or its library, answered with an error, other than that there is no such object?"""
    missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
    told = isinstance(error, OSError) or any(kind.__name__ == "BotoCoreError" for kind in type(error).__mro__)
    return not missing and (told or status(error) is not None)


def _one_line(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
