"""Signals that come where Python cannot raise."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, time, weakref
from rhostream.pipeline.jobs import interrupt_on_sigterm, repeat_ignored_signals

class Referred: pass

interrupt_on_sigterm()
repeat_ignored_signals()
referred = Referred()
reference = weakref.ref(referred, lambda _: os.kill(os.getpid(), signal.{name}))
try:
    del referred
    print("goes on", flush=True)
    time.sleep(60)
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(("name", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Interrupted")])
def test_signal_ignored_in_a_callback_comes_again(name: str, raised: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(name=name)], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"goes on\n{raised}\n", "")


def test_other_ignored_errors_are_told_as_before() -> None:
    script = SCRIPT.format(name="SIGINT").replace("os.kill(os.getpid(), signal.SIGINT)", "1 / 0").replace("60", "0")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert "ZeroDivisionError" in done.stderr
