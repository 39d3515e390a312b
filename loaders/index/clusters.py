"""Clusters: to which group of like ones each sample of the training split belongs."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rhostream.errors import Remedy, Stage, WorkspaceError
from rhostream.loaders.index.columns import values
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, ShardRows
from rhostream.loaders.index.row_parts import read_row_part, row_part_origin
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import CLUSTERS

#: Metadata of a part's Parquet: SHA-256 of what the clusters were made of.
CLUSTERS_KEY = b"rhostream.clusters"


@dataclass(frozen=True, kw_only=True)
class ClustersCard:
    """`clusters/<name>/clusters.json`, which is written last.

    Attributes:
        count: of clusters.
        of: the embedding that was clustered, "image" or "text"; "embedding" where these came in files of their own.
        seed: of the centers that k-means began with.
        il, il_sha256: the reference model, and its digest; or the name of the files' folder, and their digest.
        fingerprint: of the corpus.
        identity: of all before, and of how the clusters are made.
        sizes: samples of each cluster.
    """

    format: int
    count: int
    of: str
    seed: int
    il: str
    il_sha256: str
    fingerprint: str
    name: str
    identity: str
    sizes: tuple[int, ...]


def read_clusters_card(workspace: Workspace, name: str) -> ClustersCard:
    """Raises WorkspaceError where it is damaged, or of other clusters."""
    file = clusters_file(name)
    card = workspace.read_record(file, ClustersCard)
    with workspace.reading(file):
        if card.name != name:
            raise UnreadableError(f"is of the clusters {card.name!r}")
    return card


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """`clusters/<name>`: metadata, and a part per shard that is row-aligned with it.

    Attributes:
        identity: of what they were made of, and how.
        count: of clusters.
    """

    workspace: Workspace
    name: str
    identity: str
    count: int

    @classmethod
    def read(cls, workspace: Workspace, corpus: CorpusMetadata, name: str) -> "Clusters":
        """Raises WorkspaceError where there are no such clusters, or they are of other shards."""
        file = clusters_file(name)
        if not workspace.exists(file):
            known = ", ".join(workspace.names("clusters")) or "none"
            raise WorkspaceError(
                f"clusters {name!r}: workspace {workspace.location!r} has no {file} (clusters there: {known})",
                Remedy(Stage.CLUSTER, workspace.location, {"name": name}),
            )
        card = read_clusters_card(workspace, name)
        if card.fingerprint != corpus.fingerprint:
            raise WorkspaceError(
                f"clusters {name!r} are of another split of the corpus than the shards are now",
                Remedy(Stage.CLUSTER, workspace.location, {"name": name, "overwrite": True}),
            )
        return cls(workspace=workspace, name=name, identity=card.identity, count=card.count)

    def of(self, rows: ShardRows) -> npt.NDArray[np.int32]:
        """int32 (n,): the cluster of each row of this shard.

        Raises:
            WorkspaceError: their part is missing, or is of another shard or of other clusters.
        """
        file = clusters_part(self.name, rows.shard.name)
        remedy = Remedy(Stage.CLUSTER, self.workspace.location, {"name": self.name, "overwrite": True})
        if not self.workspace.exists(file):
            raise WorkspaceError(
                f"clusters {self.name!r} have no part for shard {rows.shard.name}: stream the split train, or", remedy
            )
        origin = row_part_origin(rows.shard, CLUSTERS_KEY, self.identity)
        table = read_row_part(
            self.workspace, file, ["key", "cluster"], CLUSTERS, origin, rows, "other clusters", remedy
        )
        found = values(table.column("cluster"))
        if not ((found >= 0) & (found < self.count)).all():
            raise WorkspaceError(
                f"{self.workspace.path(file)} tells of clusters that {self.name!r} does not have", remedy
            )
        return found


def clusters_file(name: str) -> str:
    return f"clusters/{name}/clusters.json"


def clusters_rows(name: str) -> str:
    return f"clusters/{name}/rows"


def clusters_part(name: str, shard: str) -> str:
    return f"{clusters_rows(name)}/{shard}.parquet"
