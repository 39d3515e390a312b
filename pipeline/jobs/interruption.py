"""SIGINT and SIGTERM: a training takes the step that it is at, keeps it, and says where it stopped."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rhostream.loaders.stream import Exchange

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SECONDS_UNTIL_AGAIN: Final = 0.01


class Interrupted(KeyboardInterrupt):
    """A signal has ended the work. Not an error that `except Exception` would take for one.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: signal.Signals) -> None:
        super().__init__(message)
        self.number = number


class StopRequest:
    """Whether a signal has asked a training to stop, and what is kept if a second one ends it at once.

    Attributes:
        signal: the one that asked; None as long as none did.
        asked: had one asked as the processes last agreed?
        kept: what a training that ends at once has kept, as the end of a sentence.
    """

    def __init__(self, what: str, *, tells: bool = True) -> None:
        self.what = what
        self._tells = tells
        self.signal: signal.Signals | None = None
        self.asked = False
        self.kept = "nothing of it is kept, and the same command begins anew"

    def at(self, place: str, exchange: "Exchange") -> None:
        """Tell that all up to this place ("step 37 of 60") is kept; every process of a job tells so.

        Raises:
            Interrupted: a signal has asked for the end, in any of the processes: none ends alone.
        """
        self.kept = f"it is kept up to {place}, and the same command goes on from there"
        self.agreed(exchange, False)
        if self.asked and self.signal is not None:
            raise Interrupted(f"{self.what} stopped by {self.signal.name} at {place}: {self.kept}", self.signal)

    def agreed(self, exchange: "Exchange", due: bool) -> bool:
        """Is `due` true in any process of a job? And a signal that one of them has got asks all to stop."""
        told = exchange.gathered(bytes([self.signal or 0, due]))
        number = max(each[0] for each in told)
        self.asked = number > 0
        if number and self.signal is None:
            self.signal = signal.Signals(number)
        return any(each[1] for each in told)

    def _asked(self, number: int, _: FrameType | None) -> None:
        named = signal.Signals(number)
        if self.signal is not None:
            raise Interrupted(f"{self.what} ended at once by {named.name}: {self.kept}", named)
        self.signal = named
        if not self._tells:
            return
        # Not through sys.stderr: the signal may have come while it was being written to.
        with contextlib.suppress(OSError):
            os.write(
                2, f"\nrho: {named.name}: {self.what} stops after the next step; once more ends it at once\n".encode()
            )


@contextmanager
def stop_request(what: str, *, tells: bool = True) -> Iterator[StopRequest]:
    """Within the block SIGINT and SIGTERM ask for an end at the next step; the second one ends the work at once.

    A signal that the process ignores (a shell's background job) stays ignored. In another thread than the main one,
    where no signal can be handled, they do what they did.

    Args:
        what: begins the messages: "run 'rho_loss'".
        tells: say at once that the signal was heard; for one process of a job.
    """
    request = StopRequest(what, tells=tells)
    with contextlib.ExitStack() as put_back:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    put_back.callback(signal.signal, number, signal.signal(number, request._asked))
        yield request


_terminated: list[signal.Signals] = []  # SIGTERM, once it has come


def interrupt_on_sigterm() -> None:
    """Have SIGTERM raise `Interrupted`, as Ctrl-C raises KeyboardInterrupt, wherever no `stop_request` is in force."""

    def interrupt(number: int, _: Any) -> None:
        _terminated.append(signal.Signals(number))
        raise Interrupted("", signal.Signals(number))

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, interrupt)


def repeat_ignored_signals() -> None:
    """Have a signal come again that Python ignores, as it came in the callback of a weak reference or a finalizer.

    It is neither lost then, nor told of by a traceback.
    """
    usual = sys.unraisablehook

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            usual(ignored)
            return
        number = getattr(ignored.exc_value, "number", signal.SIGINT)
        again = threading.Timer(_SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook


def swallowed_signal(error: BaseException) -> Interrupted | None:
    """The signal that a library has made an error of its own of; None where none came.

    DuckDB tells of Ctrl-C by a RuntimeError, Ray of SIGTERM by a KeyboardInterrupt, others of a failed import or
    callback.
    """
    if _terminated:
        return Interrupted("", _terminated[-1])
    asked = isinstance(error, RuntimeError) and "Query interrupted" in str(error)
    return Interrupted("", signal.SIGINT) if asked else None
