"""WebDataset tars as others write them, whole and damaged, and their index."""

import hashlib
import io
import tarfile
from pathlib import Path

from helpers.support import jpeg
from rhostream.loaders.index.corpus_metadata import CorpusMetadata
from rhostream.loaders.storage.shard_reader import ShardReader
from rhostream.loaders.storage.workspace import Workspace
from rhostream.pipeline.config.manifest import Manifest
from rhostream.pipeline.in_place.tars import index_tars
from rhostream.pipeline.shards.write import ShardsSummary
from rhostream.schema import SAMPLES

#: Ways in which `damaged` damages a tar.
DAMAGES = ("cut inside a member", "cut inside a header", "cut between members", "bad header", "zeros inside")


def tar(path: Path, *members: tuple[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, label: str, seed: int = 0) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", jpeg(seed)), (f"{key}.cls", label.encode())]


def damaged(path: Path, how: str) -> int:
    """A tar of five samples, damaged after the third; returns the byte where that is noticed."""
    whole = tar(path, *(member for n in range(5) for member in sample(f"{n}", "0"))).read_bytes()
    with tarfile.open(path) as archive:
        headers = {member.name: member.offset for member in archive}
    at = headers["3.jpg"]
    if how == "cut inside a member":
        path.write_bytes(whole[: at + 600])
    elif how == "cut inside a header":
        path.write_bytes(whole[: at + 100])
    elif how == "cut between members":
        path.write_bytes(whole[:at])
    elif how == "bad header":
        path.write_bytes(whole[:at] + b"\xff" * 512 + whole[at + 512 :])
    elif how == "zeros inside":
        path.write_bytes(whole[:at] + bytes(1024) + whole[at + 1024 :])
        return at + 512
    return at


def manifest(**settings: object) -> Manifest:
    values = {"name": "tiny", "format": "webdataset", "holdout": 0.3} | settings
    return Manifest(**values)  # type: ignore[arg-type]


def index(
    workspace: Path | str, *tars: Path | str, workers: int = 0, overwrite: bool = False, **settings: object
) -> ShardsSummary:
    names = [str(name) for name in tars]
    return index_tars(str(workspace), names, manifest(**settings), workers=workers, overwrite=overwrite)


def assert_rows_point_into_tars(workspace: Path | str) -> None:
    place = Workspace(workspace)
    reader = ShardReader(place)
    for shard in CorpusMetadata.read(place).shards:
        table = place.read_table(shard.index)
        assert table.schema.names[: len(SAMPLES)] == SAMPLES.names
        assert table.num_rows == shard.rows
        for position, row in enumerate(table.to_pylist()):
            data = reader.read(shard.tar, row["offset"], row["size"])
            assert hashlib.sha256(data).hexdigest()[:32] == row["content_hash"]
            assert (row["shard"], row["row"], row["split"], row["fold"]) == (
                shard.name,
                position,
                shard.split,
                shard.fold,
            )
