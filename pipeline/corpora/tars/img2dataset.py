"""What img2dataset writes beside each tar: one Parquet row for every URL, the failed ones too."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from rhostream.errors import CorpusError

_COLUMNS = ["key", "status", "error_message"]


def failed_and_missing(path: str, content: bytes, in_tar: set[str]) -> Iterator[tuple[str, str, str]]:
    """Key, reject reason and detail of every row without a sample in the tar.

    Args:
        path, content: of the Parquet file beside the tar; nothing is given where another tool wrote it.
        in_tar: keys of the tar's samples.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if not set(file.schema_arrow.names).issuperset(_COLUMNS):
            return
        rows = file.read(columns=_COLUMNS).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorpusError(
            f"{path}: not a readable Parquet file ({error}); fetch it again, or remove it to count only "
            "what is in the tar"
        ) from error
    name = path.rpartition("/")[2]
    for row in rows:
        if row["status"] != "success":
            yield row["key"], "download_failed", f"{row['status']}: {row['error_message']}"
        elif row["key"] not in in_tar:
            yield row["key"], "missing", f"{name} says success, the tar has no such sample"
