"""The frame of the command line: options, environment, errors, exit codes, streams."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from helpers import tables

from rhostream import ConfigError, WorkspaceError, __version__
from rhostream.cli import main as frame
from rhostream.cli.options import examples, given, option, settings_options
from rhostream.pipeline.config.il_config import ILScoreConfig

Run = Callable[..., tuple[int, str, str]]
RHO = [sys.executable, "-c", "from rhostream.cli.main import main; main()"]
ENDLESS = "SELECT sum(a.range * b.range) FROM range(10000000) AS a, range(10000000) AS b"


@pytest.fixture
def rho(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `rho` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rho", *arguments])
        with pytest.raises(SystemExit) as exit_:
            frame.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[click.Command], None]:
    """Add a command `try` to `rho` for this test."""

    def add(added: click.Command) -> None:
        module = types.ModuleType("rho_try")
        module.added = added  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "rho_try", module)
        monkeypatch.setitem(frame.COMMANDS, "try", "rho_try:added")

    return add


def raising(error: BaseException) -> click.Command:
    def callback() -> None:
        raise error

    return click.Command("try", callback=callback)


def test_version(rho: Run) -> None:
    assert rho("--version") == (0, f"rho {__version__}\n", "")


def test_help_names_every_command_in_the_order_of_the_pipeline(rho: Run) -> None:
    code, out, _ = rho("--help")
    listed = re.findall(r"^  (\w+) ", out.partition("Commands:")[2].partition("Examples:")[0], re.MULTILINE)
    assert (code, listed) == (0, list(frame.COMMANDS))


def test_an_unknown_command_is_answered_with_the_one_meant(rho: Run) -> None:
    code, out, err = rho("trian")
    assert (code, out) == (2, "")
    assert "Did you mean 'train'?" in err


def test_a_missing_workspace_error_names_the_variable(rho: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RHO_WORKSPACE", raising=False)
    code, out, err = rho("views")
    assert (code, out) == (2, "")
    assert "--workspace" in err
    assert "RHO_WORKSPACE" in err


@pytest.mark.parametrize(("error", "code"), [(ConfigError("bad\n  flag"), 2), (WorkspaceError("no shards"), 1)])
def test_a_users_error_is_one_line_and_its_exit_code(
    rho: Run, command: Callable[[click.Command], None], error: Exception, code: int
) -> None:
    command(raising(error))
    assert rho("try") == (code, "", f"rho: {' '.join(str(error).split())}\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_disk_error_is_one_line_with_file_and_remedy(
    rho: Run, command: Callable[[click.Command], None], number: int
) -> None:
    command(raising(OSError(number, os.strerror(number), "/disk/file")))
    code, out, err = rho("try")
    assert (code, out) == (1, "")
    assert err.startswith(f"rho: /disk/file: {os.strerror(number)}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EBADF, "a bug")])
def test_a_bug_keeps_its_traceback(rho: Run, command: Callable[[click.Command], None], error: Exception) -> None:
    command(raising(error))
    with pytest.raises(type(error), match="a bug"):
        rho("try")


def test_options_read_the_environment_and_the_flag_wins(
    rho: Run, command: Callable[[click.Command], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command(epilog=examples("rho try --batch-size 3", "rho try"))
    @option("--batch-size", type=int, help="Samples.")
    @option("--il", "il_name", help="IL model.")
    @option("--flag/--no-flag", default=False, help="A switch.")
    @option("--rate", default=0.5, help="With a default.")
    @settings_options(ILScoreConfig, "device", "workers")
    def added(**values: object) -> None:
        for where, layer in given():
            click.echo(f"{where}: {sorted(layer.items())}")
        click.echo(given("batch_size")[1][1])

    command(added)
    monkeypatch.setenv("RHO_BATCH_SIZE", "8")
    monkeypatch.setenv("RHO_IL", "strided_cnn")
    monkeypatch.setenv("RHO_FLAG", "1")
    _, out, _ = rho("try", "--batch-size", "4", "--device", "cuda:1")
    assert out == (
        "environment: [('flag', True), ('il_name', 'strided_cnn')]\n"
        "command line: [('batch_size', 4), ('device', 'cuda:1')]\n"
        "{'batch_size': 4}\n"
    )
    _, out, _ = rho("try", "--help")
    for expected in ("RHO_BATCH_SIZE", "RHO_FLAG", "default: 0.5", "default: auto", "  rho try --batch-size 3\n"):
        assert expected in out
    for wrong in (["--device", "gpu"], ["--device", "cuda:x"], ["--workers", "-1"], ["--batch-size", "many"]):
        assert rho("try", *wrong)[0] == 2


def test_a_wrong_environment_value_error_names_the_variable(
    rho: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHO_FORMAT", "xml")
    code, _, err = rho("query", "SELECT 1", "--workspace", str(tmp_path))
    assert code == 2
    assert "RHO_FORMAT" in err


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tables.fill(str(tmp_path_factory.mktemp("workspace"))).location


def wait_until_it_computes(process: "subprocess.Popen[str]") -> None:
    """The command has loaded DuckDB, and used a second since: nothing else of it takes as long."""
    begun, ticks = None, os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        used = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / ticks
        if "duckdb" in Path(f"/proc/{process.pid}/maps").read_text():
            begun = used if begun is None else begun
            if used > begun + 1:
                return
        time.sleep(0.05)
    raise AssertionError(f"it has ended: {process.communicate()}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="NOT TESTED: looks into Linux's /proc")
def test_an_interrupt_is_one_line_and_exit_code_130(workspace: str) -> None:
    # Whoever started the tests in the background has every child ignore Ctrl-C: this one must not.
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [*RHO[:2], heeding + RHO[2], "query", ENDLESS, "--workspace", workspace]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_until_it_computes(process)
        process.send_signal(signal.SIGINT)  # once: DuckDB by itself has been seen to miss it
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.strip().startswith("rho: interrupted")
    assert err.strip().count("\n") == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_on_the_way_out_changes_nothing(number: signal.Signals) -> None:
    ending = f"import atexit, os; atexit.register(lambda: os.kill(os.getpid(), {int(number)})); "
    command = [*RHO[:2], ending + RHO[2], "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rho ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "swallowing"),
    [
        # A library's callback that turns whatever comes into an error of its own, as pyarrow's import of pandas does.
        (
            signal.SIGTERM,
            "def work(*_, **__):\n    try:\n        os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\n"
            "    except BaseException as error:\n        raise ImportError('cannot import') from error\n",
        ),
        # Ray, whose calls look for signals, raises a KeyboardInterrupt of its own.
        (
            signal.SIGTERM,
            "def work(*_, **__):\n    try:\n        os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\n"
            "    except BaseException:\n        pass\n    raise KeyboardInterrupt\n",
        ),
        # DuckDB, asked in the main thread, tells of Ctrl-C in these words; by itself it does not hear of it every time.
        (signal.SIGINT, "def work(*_, **__):\n    raise RuntimeError('Query interrupted')\n"),
    ],
)
def test_a_signal_that_a_library_swallows_ends_the_command(number: signal.Signals, swallowing: str) -> None:
    code = (
        "import os, signal, time\n" + swallowing + "from rhostream.cli import main\nmain.rho.main = work\nmain.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (128 + number, 1), done.stderr
    assert done.stderr.startswith(f"rho: interrupted by {number.name}")


@pytest.mark.slow
def test_a_reader_that_leaves_the_pipe_is_no_complaint(workspace: str) -> None:
    command = [*RHO, "query", "SELECT * FROM range(300000)", "--workspace", workspace]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TESTED: this system has no /dev/full")
@pytest.mark.parametrize("redirected", [True, False])
def test_a_full_disk_is_one_line(workspace: str, redirected: bool) -> None:
    command = [*RHO, "query", "SELECT 1", "--workspace", workspace]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command if redirected else [*command, "--output", "/dev/full"],
            stdout=full if redirected else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("rho: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
