"""SQL over the tables of a workspace: read-only, and blind to everything outside the workspace."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import duckdb
import fsspec
import pyarrow as pa

from rhostream.errors import ConfigError, RhostreamError, WorkspaceError
from rhostream.loaders.storage import Workspace, remote, with_retries
from rhostream.pipeline.jobs import TemporaryFolder
from rhostream.pipeline.sql.kept_tables import KeptTable, States, is_scattered, kept_folder
from rhostream.pipeline.sql.read_only import check_read_only
from rhostream.pipeline.sql.verified import verify
from rhostream.pipeline.sql.views import VIEWS, escape_glob, location, quote, require_workspace, rows_of

Result = TypeVar("Result")

SECONDS_TO_STOP = 2.0  # given to DuckDB after Ctrl-C

_SQL_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.SyntaxException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.TypeMismatchException,
    duckdb.NotImplementedException,
)


def query(workspace: str | os.PathLike[str] | Workspace, sql: str) -> pa.Table:
    """Run one reading SQL statement over the views of a workspace (`rhostream.pipeline.sql.views.VIEWS`).

    The statement can read files inside the workspace and nothing else: no other file, no network, no environment,
    no variable of this process. It can write nothing.

    Returns:
        The rows; a column name that occurs again gets a number (`key`, `key_1`).

    Raises:
        ConfigError: SQL that is wrong, that does more than read, or that reaches outside the workspace.
        WorkspaceError: no workspace, or a file in it that cannot be read.
    """
    with reading(Workspace(workspace)) as reader:
        return reader.ask(sql)


class Reader:
    """Answers statements about one workspace; each view is made when it is first asked for.

    Attributes:
        connection: to the views made so far.
    """

    def __init__(self, workspace: Workspace, root: str, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._workspace, self._root = workspace, root
        self._made: set[str] = set()
        self._verified: set[str] = set()

    def ask(self, sql: str) -> pa.Table:
        """What `query` answers."""
        statement, tables = check_read_only(self.connection, sql)
        self.prepare(tables & VIEWS.keys())
        if tables - VIEWS.keys():  # a list of the views, or a name that is similar to one
            self._make(VIEWS.keys(), {})
        table = run_interruptibly(self.connection, lambda: self.connection.sql(statement).to_arrow_table())
        return table.rename_columns(_unique(table.column_names))

    def prepare(self, views: Set[str]) -> None:
        """Verify the files of these views, see `verified.verify`, and make the views."""
        new = views - self._verified
        self._make(new, verify(self._workspace, new) if new else {})
        self._verified |= new

    def _make(self, views: Set[str], found: Mapping[str, States]) -> None:
        for view in sorted(views - self._made):
            rows, states = rows_of(self._workspace, view, self._root), found.get(view, {})
            if is_scattered(states):
                self._make_table(view, rows, KeptTable(kept_folder(self._workspace), view, states, rows))
            else:
                self._execute(f"CREATE VIEW {view} AS {rows}")
            self._made.add(view)

    def _make_table(self, view: str, rows: str, kept: KeptTable) -> None:
        if kept.is_there():
            self._execute(f"CREATE TABLE {view} AS FROM read_parquet({quote(escape_glob(str(kept.path)))})")
            return
        self._execute(f"CREATE TABLE {view} AS {rows}")
        kept.keep(run_interruptibly(self.connection, self.connection.table(view).to_arrow_table))

    def _execute(self, statement: str) -> None:
        run_interruptibly(self.connection, partial(self.connection.execute, statement))


@contextmanager
def reading(workspace: Workspace, *, memory: str = "50%") -> Iterator[Reader]:
    """Within the block, statements about a workspace are answered.

    Args:
        memory: that DuckDB may take, as it writes it: "2GiB", or a share of the machine's.

    Raises:
        ConfigError, WorkspaceError: as `query` does, for what fails inside the block too.
    """
    require_workspace(workspace)
    try:
        with TemporaryFolder("rho-query-") as spill:
            connection, root = _connect(workspace, str(spill), memory)
            try:
                yield Reader(workspace, root, connection)
            except KeyboardInterrupt:
                raise  # a thread may still be at work with it, and to close it then aborts the process
            except BaseException:
                connection.close()
                raise
            connection.close()
    except duckdb.InternalException:
        raise
    except duckdb.Error as error:
        raise _explained(error, workspace) from error


def run_interruptibly(connection: duckdb.DuckDBPyConnection, work: Callable[[], Result]) -> Result:
    """The result of `work`, done in a thread: DuckDB does not always hear of Ctrl-C when it runs in the main one."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed on
            outcome.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        connection.interrupt()
        thread.join(SECONDS_TO_STOP)
        raise


def _connect(workspace: Workspace, spill: str, memory: str) -> tuple[duckdb.DuckDBPyConnection, str]:
    """A connection, and what the paths of the workspace start with there."""
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            # By default half of it: a training run may be at work beside this query. More spills to disk.
            "memory_limit": memory,
            "temp_directory": spill,
        }
    )
    try:
        if workspace.is_local:
            root = location(workspace)
            folders = {root, str(kept_folder(workspace))}
        else:
            connection.register_filesystem(_ReadOnlyFileSystem(workspace.location))
            root = f"{_ReadOnlyFileSystem.protocol}:/"
            folders = {root}
        # A pattern is checked against this list as it is written, the files it matches as they are called.
        allowed = ", ".join(quote(f"{path}/") for path in sorted({*folders, *map(escape_glob, folders)}))
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        # A question names a view more than once, and each time would read the footers of all of its files.
        connection.execute("SET parquet_metadata_cache = true")
        connection.execute("SET enable_progress_bar = false")  # it would be printed between the rows
        connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection, root


class _ReadOnlyFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A remote workspace as `workspace://name`: DuckDB gets no other path of its file system, and cannot write."""

    protocol = "workspace"
    cachable = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._inner, root = remote.filesystem(url)
        self._root = root.rstrip("/")

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        found = self._tried(lambda: self._inner.ls(self._path(path), detail=True, **options))
        entries = [self._named(entry) for entry in found]
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        return self._named(self._tried(lambda: self._inner.info(self._path(path), **options)))

    def modified(self, path: str) -> Any:
        return self._tried(lambda: self._inner.modified(self._path(path)))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            raise PermissionError(f"{path}: queries cannot write")
        name = self._path(path).removeprefix(self._root).lstrip("/")
        return remote.open_file(f"{self._url.rstrip('/')}/{name}")

    def _tried(self, operation: Callable[[], Result]) -> Result:
        return with_retries(operation, self._url)

    def _path(self, path: str) -> str:
        name = self._strip_protocol(path).strip("/")
        if ".." in name.split("/"):
            raise PermissionError(f"{path}: queries read only inside the workspace")
        return f"{self._root}/{name}" if name else self._root

    def _named(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "name": entry["name"].removeprefix(self._root).lstrip("/")}


def _explained(error: duckdb.Error, workspace: Workspace) -> RhostreamError:
    message = " ".join(str(error).split("\n\nLINE ")[0].split())
    if isinstance(error, duckdb.PermissionException):
        return ConfigError(f"the query may only read files inside {workspace.location!r}: {message}")
    if isinstance(error, _SQL_ERRORS):
        return ConfigError(f"{message} (the tables and their columns: `SHOW ALL TABLES`)")
    return WorkspaceError(f"query over {workspace.location!r} failed: {message}")


def _unique(names: list[str]) -> list[str]:
    result: list[str] = []
    for position, name in enumerate(names):
        free, number = name, 0
        while free in result or (number and free in names[position:]):
            number += 1
            free = f"{name}_{number}"
        result.append(free)
    return result
