"""What img2dataset writes beside each tar: one Parquet row for every URL, the failed ones too."""

from collections.abc import Iterator

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, opened_parquet

_COLUMNS = ["key", "status", "error_message"]


def failed_and_missing(path: str, content: bytes, in_tar: set[str]) -> Iterator[tuple[str, str, str]]:
    """Key, reject reason and detail of every row without a sample in the tar.

    Args:
        path, content: of the Parquet file beside the tar; nothing is given where another tool wrote it.
        in_tar: keys of the tar's samples.
    """
    try:
        with opened_parquet(content) as file:
            if not set(file.schema_arrow.names).issuperset(_COLUMNS):
                return
            rows = file.read(columns=_COLUMNS).to_pylist()
    except UnreadableError as error:
        raise CorpusError(
            f"{path} {error.cause}: fetch it again, or remove it to count only what is in the tar"
        ) from error
    name = path.rpartition("/")[2]
    for row in rows:
        if row["status"] != "success":
            yield row["key"], "download_failed", f"{row['status']}: {row['error_message']}"
        elif row["key"] not in in_tar:
            yield row["key"], "missing", f"{name} says success, the tar has no such sample"
