"""What img2dataset writes beside each tar: one Parquet row for every URL, the failed ones too."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rhostream.errors import CorpusError

_COLUMNS = ["key", "status", "error_message"]


def failed_and_missing(path: Path, in_tar: set[str]) -> Iterator[tuple[str, str, str]]:
    """Key, reject reason and detail of every row without a sample in the tar.

    Args:
        path: the Parquet file beside the tar; nothing is given where there is none, or one by another tool.
        in_tar: keys of the tar's samples.
    """
    if not path.is_file():
        return
    try:
        names = set(pq.read_schema(path).names)
        if not names.issuperset(_COLUMNS):
            return
        rows = pq.read_table(path, columns=_COLUMNS).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError(
            f"{path}: not a readable Parquet file ({error}); fetch it again, or remove it to count only "
            "what is in the tar"
        ) from error
    for row in rows:
        if row["status"] != "success":
            yield row["key"], "download_failed", f"{row['status']}: {row['error_message']}"
        elif row["key"] not in in_tar:
            yield row["key"], "missing", f"{path.name} says success, the tar has no such sample"
