"""The command `rho`: finds the sub-command, and turns errors into one line and an exit code."""

import errno
import importlib
import io
import logging
import os
import signal
import sys

import click

from rhostream import ConfigError, RhostreamError, __version__
from rhostream.cli.options import CONTEXT_SETTINGS, examples
from rhostream.cli.remedies import RemediesAsCommands, with_commands
from rhostream.extras import install_command
from rhostream.pipeline.jobs import (
    Interrupted,
    another_tells,
    interrupt_on_sigterm,
    remove_temporary_folders,
    repeat_ignored_signals,
    swallowed_signal,
)
from rhostream.plain_text import told as safe

COMMANDS = {
    "init": "rhostream.cli.init:init",
    "shards": "rhostream.cli.shards:shards",
    "index": "rhostream.cli.index:index",
    "thumbnails": "rhostream.cli.thumbnails:thumbnails",
    "tokenize": "rhostream.cli.tokenize:tokenize",
    "il": "rhostream.cli.il:il",
    "coreset": "rhostream.cli.coreset:coreset",
    "cluster": "rhostream.cli.cluster:cluster",
    "plan": "rhostream.cli.plan:plan",
    "train": "rhostream.cli.train:train",
    "explain": "rhostream.cli.explain:explain",
    "export": "rhostream.cli.export:export",
    "status": "rhostream.cli.status:status",
    "report": "rhostream.cli.report:report",
    "query": "rhostream.cli.query:query",
    "views": "rhostream.cli.query:views",
}

EXIT_ERROR, EXIT_USAGE, EXIT_BY_SIGNAL = 1, 2, 128  # and the number of the signal


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, listed in the order of the pipeline."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT_SETTINGS,
    epilog=examples(
        "rho shards   --manifest data_manifests/synthetic.toml --workspace runs/demo",
        "rho il train --workspace runs/demo && rho il score --workspace runs/demo",
        "rho train    --workspace runs/demo --steps 1000",
        "rho report   --workspace runs/demo --output report.html",
        'rho query    --workspace runs/demo "SELECT reason, count(*) FROM rejects GROUP BY reason"',
    ),
)
@click.version_option(__version__, prog_name="rho", message="%(prog)s %(version)s")
def rho() -> None:
    """Train on points that are learnable, worth learning and not yet learnt.

    Options are also read from the environment, mostly as RHO_<OPTION>: the help of a command names the variables. The
    flag wins over the variable, the variable over the manifest. Results are printed on stdout, progress and errors on
    stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
    """


def main() -> None:
    """Run `rho` on `sys.argv` and exit."""
    try:
        _prepare()
        code = _run()
        _be_deaf()
    except KeyboardInterrupt as error:  # came before the command began, or while its end was being told
        _be_deaf()
        code = _interrupted(error)
    except Exception as error:
        signaled = swallowed_signal(error)
        if signaled is None:
            raise
        _be_deaf()
        code = _interrupted(signaled)
    if code > EXIT_BY_SIGNAL:
        # At once: an orderly end of the interpreter would wait for threads that are still computing.
        sys.stdout.flush()
        remove_temporary_folders()
        os._exit(code)
    sys.exit(code)


def _prepare() -> None:
    """What holds for the whole process."""
    # Torch's idle threads sleep: where others use the cores too (our decoders do), spinning made training ten times
    # slower. Read when torch is imported, so it is set before any command is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings = logging.StreamHandler()
    warnings.addFilter(RemediesAsCommands())
    warnings.setFormatter(_Told("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[warnings])
    interrupt_on_sigterm()
    repeat_ignored_signals()


def _be_deaf() -> None:
    """There is nothing left for a signal to end: on the way out it would only leave a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Told(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


def _run() -> int:
    try:
        code = rho.main(prog_name="rho", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(safe(shown.getvalue()), err=True, nl=False)
        return error.exit_code
    except RhostreamError as error:
        code = EXIT_USAGE if isinstance(error, ConfigError) else EXIT_ERROR
        return code if another_tells(error) else _fail(with_commands(error), code)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # Click's own reading of it: a file ended early, nobody pressed a key
            raise error.__cause__ from None
        return _interrupted(error)
    except ModuleNotFoundError as error:
        command = install_command(error.name or "")
        if command is None:
            raise
        return _fail(f"this needs {error.name}, which is not installed: run `{command}`", EXIT_ERROR)
    except BrokenPipeError:
        # The reader of the pipe has left; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        if another_tells():
            return EXIT_ERROR
        what = f"{error.filename}: " if error.filename else ""
        return _fail(f"{what}{error.strerror}: {remedy}", EXIT_ERROR)
    return code if isinstance(code, int) else 0


_REMEDIES = {
    errno.ENOSPC: "make room and run the same command again, it goes on where it stopped",
    errno.EDQUOT: "make room and run the same command again, it goes on where it stopped",
    errno.EFBIG: "allow larger files (`ulimit -f`) and run the same command again, it goes on where it stopped",
    errno.EIO: "the disk has failed: mend it or name another path, and run the same command again",
    errno.EMFILE: "allow this process more open files (`ulimit -n`)",
    errno.ENFILE: "allow this machine more open files, or end what holds them",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EACCES: "give this user access to it, or name another path",
    errno.EPERM: "give this user access to it, or name another path",
    errno.EROFS: "name a path on a writable file system",
}


def _interrupted(error: BaseException) -> int:
    """Tell what a signal has ended; click raises an Abort of its own from it."""
    cause = error.__cause__ or error.__context__ if isinstance(error, click.Abort) else error
    if not isinstance(cause, Interrupted):
        cause = swallowed_signal(error) or cause
    number = cause.number if isinstance(cause, Interrupted) else signal.SIGINT
    told = (
        str(cause or "") or f"interrupted by {number.name}: what is finished stays, the same command goes on from there"
    )
    code = EXIT_BY_SIGNAL + number
    return code if another_tells() else _fail(told, code)


def _fail(message: str, code: int) -> int:
    click.echo(safe(f"rho: {' '.join(message.split())}"), err=True)
    return code
