"""`rho cluster`: k-means of the embeddings that the reference table of pairs holds, or of another model's.

The clusters of DnC (divide and contrast, arXiv 2105.08054): negatives out of the own cluster are harder. Centers are
found from at most `_FITTED` samples, those of the smallest hashes of their keys, so that memory does not grow with the
corpus; then the samples of each shard go to the nearest one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rhostream import schema
from rhostream.errors import ConfigError, WorkspaceError
from rhostream.extras import install_command
from rhostream.loaders.index import (
    CLUSTERED,
    CLUSTERS_KEY,
    ClustersCard,
    CorpusMetadata,
    Shard,
    ShardRows,
    clusters_file,
    clusters_part,
    clusters_rows,
    has_row_part,
    key_hashes,
    read_clusters_card,
    read_shard_rows,
    row_part_origin,
)
from rhostream.loaders.reference import open_il_table
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.pipeline.config import ClusterConfig
from rhostream.pipeline.il.metadata import ILMetadata, default_il_model, model_digest
from rhostream.pipeline.jobs import (
    Advance,
    Engine,
    Maker,
    ShardUnit,
    chosen_engine,
    exclusive_lock,
    make_shards,
    read_ahead,
    require_same,
    units_due,
    units_of,
)
from rhostream.pipeline.shards import remove_own

_FORMAT: Final = 1
_FITTED: Final = 100_000  # samples that centers are found from
_READ_AHEAD: Final = 8  # parts of the reference table being read

Embeddings = npt.NDArray[np.float32]

_LISTS: Final = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_NUMBERS: Final = (pa.types.is_floating, pa.types.is_integer)


@dataclass(frozen=True, kw_only=True)
class ClustersSummary:
    """What was made.

    Attributes:
        il: name of the reference model, or of the folder of embeddings.
        sizes: samples of each cluster.
        already_made: was it there before?
    """

    name: str
    il: str
    of: str
    sizes: tuple[int, ...]
    already_made: bool


def write_clusters(workspace: Workspace | str, config: ClusterConfig, *, overwrite: bool = False) -> ClustersSummary:
    """Write `clusters/<name>/rows/<shard>.parquet` for every training shard and, last, `clusters.json`.

    Raises:
        ConfigError: the samples are no pairs, no reference model to take, or scikit-learn is not installed.
        WorkspaceError: clusters of this name were made otherwise, or another process is making them; embeddings in
            files are missing, or not of these samples.
        IrreducibleLossError: the reference table does not serve the training shards.
    """
    workspace = Workspace(workspace)
    engine = chosen_engine(config.engine, config.workers)
    if engine.is_shared:
        raise ConfigError("engine 'static': each job would fit centers of its own; take local or ray")
    corpus = CorpusMetadata.read(workspace)
    if corpus.task != "pairs":
        raise ConfigError(
            f"clusters of a corpus of task {corpus.task}: image-text pairs alone are clustered; name a "
            "workspace of these"
        )
    source = _source(workspace, corpus, config)
    name, digest = source.identity()
    made_of = {
        "format": _FORMAT,
        "count": config.count,
        "of": source.of,
        "seed": config.seed,
        "il": name,
        "il_sha256": digest,
        "fingerprint": corpus.fingerprint,
    }
    file, folder = clusters_file(config.name), f"clusters/{config.name}"
    with exclusive_lock(workspace, "rho cluster", folder, workers=clusters_rows(config.name), engine=engine):
        there = workspace.exists(file) and not overwrite
        card = (
            read_clusters_card(workspace, config.name)
            if there
            else _write(workspace, corpus, config.name, source, made_of, engine)
        )
        if there:
            before = {name: value for name, value in asdict(card).items() if name in made_of}
            remedy = "give another --name, or replace them with --overwrite"
            require_same(f"clusters {config.name!r} were made", before, made_of, remedy)
    return ClustersSummary(name=config.name, il=name, of=source.of, sizes=card.sizes, already_made=there)


class _Source(Protocol):
    """Where the embeddings are.

    Attributes:
        of: what they are of.
    """

    of: str

    def identity(self) -> tuple[str, str]:
        """A name, and a SHA-256 of what they are or follow from."""
        ...

    def embeddings(self, rows: ShardRows) -> Embeddings:
        """float32 (n, D), normalized: of the rows of a shard."""
        ...


@dataclass(frozen=True, kw_only=True)
class _ReferenceTable(_Source):
    workspace: Workspace
    corpus: CorpusMetadata
    il: str
    of: str

    def identity(self) -> tuple[str, str]:
        return self.il, model_digest(self.workspace, self.il)

    def embeddings(self, rows: ShardRows) -> Embeddings:
        table = open_il_table(self.workspace, self.corpus, self.il)
        return _normalized(table.join(rows).embeddings[f"{self.of}_embedding"].astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class _Files(_Source):
    """Parquet of the names of the shards, with the columns key and embedding."""

    folder: Workspace
    shards: tuple[str, ...]
    of: str = "embedding"

    def identity(self) -> tuple[str, str]:
        digest = hashlib.sha256()
        for shard in self.shards:
            if not self.folder.exists(f"{shard}.parquet"):
                raise WorkspaceError(
                    f"embeddings {self.folder.location!r} have no {shard}.parquet: give a file for each training shard"
                )
            digest.update(hashlib.sha256(self.folder.read_bytes(f"{shard}.parquet")).digest())
        return self.folder.location.rstrip("/").rpartition("/")[2], digest.hexdigest()

    def embeddings(self, rows: ShardRows) -> Embeddings:
        file = f"{rows.shard.name}.parquet"
        table = self.folder.read_table(file, ["key", "embedding"])
        with self.folder.reading(file):
            if table.column("key").to_pylist() != rows.keys.to_pylist():
                raise UnreadableError(f"has other keys than the {len(rows)} of shard {rows.shard.name}, in its order")
            kind = table.schema.field("embedding").type
            if not any(each(kind) for each in _LISTS) or not any(each(kind.value_type) for each in _NUMBERS):
                raise UnreadableError("has a column embedding that holds no lists of numbers")
            lengths = np.asarray(pc.list_value_length(table.column("embedding")))
            numbers = np.asarray(pc.list_flatten(table.column("embedding")), np.float32)
            if not ((lengths == lengths[:1]).all() and lengths.all() and np.isfinite(numbers).all()):
                raise UnreadableError("has embeddings of several lengths, of none, or that are not finite")
        return _normalized(numbers.reshape(len(rows), -1))


def _source(workspace: Workspace, corpus: CorpusMetadata, config: ClusterConfig) -> _Source:
    if config.embeddings:
        shards = tuple(shard.name for shard in corpus.split("train"))
        return _Files(folder=Workspace(config.embeddings), shards=shards)
    metadata = ILMetadata.read(workspace, config.il or default_il_model(workspace, corpus))
    return _ReferenceTable(workspace=workspace, corpus=corpus, il=metadata.name, of=config.of)


def _write(
    workspace: Workspace, corpus: CorpusMetadata, name: str, source: _Source, made_of: dict[str, Any], engine: Engine
) -> ClustersCard:
    shards = corpus.split("train")
    # First, so that clusters that are half rewritten never look whole.
    workspace.remove(clusters_file(name))
    centers = _centers(workspace, shards, source, made_of)
    identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode() + centers.tobytes()).hexdigest()
    maker = _PartMaker(
        workspace=workspace,
        source=source,
        name=name,
        identity=identity,
        centers=centers,
    )
    due = units_due(units_of(shards, engine), maker.is_made)
    make_shards(maker, due, engine, f"cluster {name}")
    remove_own(workspace, {clusters_rows(name): {f"{shard.name}.parquet" for shard in shards}})
    sizes: npt.NDArray[np.int64] = np.zeros(len(centers), np.int64)
    for of_shard in read_ahead(maker.sizes, shards, _READ_AHEAD):
        sizes += of_shard
    card = ClustersCard(**made_of, name=name, identity=identity, sizes=tuple(sizes.tolist()))
    workspace.write_json(clusters_file(name), asdict(card))
    return card


def _centers(workspace: Workspace, shards: Sequence[Shard], source: _Source, made_of: dict[str, Any]) -> Embeddings:
    """float32 (clusters, D), normalized: a function of the embeddings and the settings."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ConfigError(
            f"clusters: the package scikit-learn is not installed; run `{install_command('scikit-learn')}`"
        ) from error
    samples = sum(shard.rows for shard in shards)
    if samples < made_of["count"]:
        raise ConfigError(f"{made_of['count']} clusters of {samples} training samples: ask for fewer")
    hashes: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
    fitted: Embeddings | None = None

    def read(shard: Shard) -> tuple[npt.NDArray[np.uint64], Embeddings]:
        rows = read_shard_rows(workspace, shard)
        return key_hashes(rows.keys.to_pylist(), CLUSTERED), source.embeddings(rows)

    for of_rows, embeddings in read_ahead(read, shards, _READ_AHEAD):
        if fitted is not None and embeddings.shape[1] != fitted.shape[1]:
            raise WorkspaceError(
                f"embeddings of {fitted.shape[1]} numbers in some shards, of {embeddings.shape[1]} in others: "
                "take those of one model"
            )
        hashes = np.concatenate([hashes, of_rows])
        fitted = embeddings if fitted is None else np.concatenate([fitted, embeddings])
        if len(hashes) > _FITTED:
            kept = np.sort(np.argsort(hashes, kind="stable")[:_FITTED])
            hashes, fitted = hashes[kept], fitted[kept]
    assert fitted is not None, "there is a sample"
    means = MiniBatchKMeans(made_of["count"], random_state=made_of["seed"], n_init=3, batch_size=4096).fit(fitted)
    return _normalized(np.asarray(means.cluster_centers_, np.float32))


def _normalized(vectors: Embeddings) -> Embeddings:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Embeddings = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


@dataclass(frozen=True, kw_only=True)
class _PartMaker(Maker[ShardUnit, None]):
    """Writes the parts of clusters: each sample goes to the center that it is most like."""

    source: _Source
    name: str
    identity: str
    centers: Embeddings

    @property
    def folder(self) -> str:
        return clusters_rows(self.name)

    def __call__(self, unit: ShardUnit, advance: Advance) -> None:
        shard, rows = unit.shard, read_shard_rows(self.workspace, unit.shard)
        likeness = self.source.embeddings(rows) @ self.centers.T
        columns = {
            "clustering": pa.repeat(self.name, shard.rows),
            "key": rows.keys,
            "shard": pa.repeat(shard.name, shard.rows),
            "row": np.arange(shard.rows, dtype=np.int32),
            "cluster": likeness.argmax(1).astype(np.int32),
            "similarity": likeness.max(1),
        }
        table = pa.table(columns, schema=schema.CLUSTERS.with_metadata(self._origin(shard)))
        self.workspace.write_table(clusters_part(self.name, shard.name), table)
        advance(shard.rows)

    def is_made(self, shard: Shard) -> bool:
        """Is the part of this shard there?"""
        part = clusters_part(self.name, shard.name)
        return has_row_part(self.workspace, part, schema.CLUSTERS, self._origin(shard))

    def sizes(self, shard: Shard) -> npt.NDArray[np.int64]:
        """int64 (clusters,): samples of the shard in each."""
        column = self.workspace.read_table(clusters_part(self.name, shard.name), ["cluster"], schema.CLUSTERS)
        found: npt.NDArray[np.int64] = np.bincount(column["cluster"].to_numpy(), minlength=len(self.centers))
        return found

    def _origin(self, shard: Shard) -> dict[bytes, bytes]:
        return row_part_origin(shard, CLUSTERS_KEY, self.identity)
