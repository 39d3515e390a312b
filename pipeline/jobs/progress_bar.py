"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts units of one stage; `advance` may carry a short note (a loss, a speed)."""

    def __init__(self, stage: str, total: int | None, unit: str, initial: int = 0, *, shown: bool = True) -> None:
        self.stage, self.total, self.unit, self.done = stage, total, unit, initial
        self._initial, self._start = initial, time.monotonic()
        self._last = self._start
        self._bar = (
            tqdm(total=total, initial=initial, desc=stage, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)
            if shown and sys.stderr.isatty()
            else None
        )
        self._shown = shown

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self._line(note)

    def close(self, note: str = "") -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._line(note)

    def _line(self, note: str) -> None:
        if not self._shown:
            return
        elapsed = time.monotonic() - self._start
        rate = (self.done - self._initial) / elapsed if elapsed > 0 else 0.0
        to_do = 0 if self.total is None else self.total - self.done
        left = f", {to_do / rate:.0f} s left" if rate and to_do > 0 else ""
        tail = f", {note}" if note else ""
        of = self.done if self.total is None else f"{self.done}/{self.total}"
        line = f"{self.stage}: {of} {self.unit}, {rate:.1f}/s{left}{tail}"
        tqdm.get_lock()  # made here: `write` takes a signal that comes while it makes it for an error of its own
        tqdm.write(line, file=sys.stderr)


@contextmanager
def progress(stage: str, total: int | None, unit: str, initial: int = 0, *, shown: bool = True) -> Iterator[Progress]:
    reporter = Progress(stage, total, unit, initial, shown=shown)
    try:
        yield reporter
    finally:
        reporter.close()
