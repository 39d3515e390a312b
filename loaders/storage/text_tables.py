"""Tables as text, CSV or JSON lines: the only module that reads them, and that knows how a damaged one fails."""

from pathlib import Path
from typing import TYPE_CHECKING

from rhostream.loaders.storage.local_files import open_file
from rhostream.loaders.storage.unreadable import UnreadableError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.csv


def read_csv(
    path: Path,
    layout: "pyarrow.csv.ParseOptions | None" = None,
    types: "pyarrow.csv.ConvertOptions | None" = None,
    names: "pyarrow.csv.ReadOptions | None" = None,
) -> "pa.Table":
    """The table; FileNotFoundError where there is none, UnreadableError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.csv

    with open_file(path) as stream:
        try:
            return pyarrow.csv.read_csv(stream, names, layout, types)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise UnreadableError(f"is not valid CSV ({error})") from error


def csv_schema(
    path: Path,
    layout: "pyarrow.csv.ParseOptions | None" = None,
    names: "pyarrow.csv.ReadOptions | None" = None,
) -> "pa.Schema":
    """The columns in order; raises as `read_csv` does."""
    import pyarrow as pa
    import pyarrow.csv

    with open_file(path) as stream:
        try:
            return pyarrow.csv.open_csv(stream, names, parse_options=layout).schema
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise UnreadableError(f"is not valid CSV ({error})") from error


def read_ndjson(path: Path) -> "pa.Table":
    """JSON lines of others as a table; raises as `read_csv` does."""
    import pyarrow as pa
    import pyarrow.json

    with open_file(path) as stream:
        try:
            return pyarrow.json.read_json(stream)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise UnreadableError(f"is not valid JSON lines ({error})") from error
