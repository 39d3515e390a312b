"""Work in local processes, and what is said where they cannot begin."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
from operator import methodcaller
from rhostream import RhostreamError
from rhostream.pipeline.jobs import in_processes

try:
    print(list(in_processes(methodcaller("bit_length"), [1], 2)))
except RhostreamError as error:
    print(error)
"""


def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (said,) = done.stdout.splitlines()
    assert said.startswith("none of 1 worker processes could begin: a script that starts workers must do so below `if ")
    assert "Traceback" not in done.stderr
