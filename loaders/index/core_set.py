"""A core set: the part of the training split that was chosen once, before training, to be streamed alone."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rhostream.errors import Remedy, Stage, WorkspaceError
from rhostream.loaders.index.columns import values
from rhostream.loaders.index.corpus_metadata import CorpusMetadata, ShardRows
from rhostream.loaders.index.row_parts import read_row_part, row_part_origin
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import CORE_SETS

#: Metadata of a part's Parquet: SHA-256 of what the core set was chosen from.
CORE_SET_KEY = b"rhostream.core_set"


@dataclass(frozen=True, kw_only=True)
class CoreSetCard:
    """`core_sets/<name>/core_set.json`, which is written last.

    Attributes:
        keep: the share that was asked for.
        il, il_sha256: the proxy, and its model's digest.
        fingerprint: of the corpus it was chosen from.
        identity: of all before, and how it was chosen.
        samples, kept: of the training split, and how many of them are in the core set.
        least_entropy: nats, the lowest that was kept.
    """

    format: int
    keep: float
    il: str
    il_sha256: str
    fingerprint: str
    name: str
    identity: str
    samples: int
    kept: int
    least_entropy: float


def read_core_set_card(workspace: Workspace, name: str) -> CoreSetCard:
    """Raises WorkspaceError where it is damaged, or of another core set."""
    file = core_set_file(name)
    card = workspace.read_record(file, CoreSetCard)
    with workspace.reading(file):
        if card.name != name:
            raise UnreadableError(f"is of the core set {card.name!r}")
    return card


@dataclass(frozen=True, kw_only=True)
class CoreSet:
    """`core_sets/<name>`: metadata, and a part per shard that is row-aligned with it.

    Attributes:
        identity: of what it was chosen from, and how.
    """

    workspace: Workspace
    name: str
    identity: str

    @classmethod
    def read(cls, workspace: Workspace, corpus: CorpusMetadata, name: str) -> "CoreSet":
        """Raises WorkspaceError where there is no such core set, or it is of other shards."""
        file = core_set_file(name)
        if not workspace.exists(file):
            known = ", ".join(workspace.names("core_sets")) or "none"
            raise WorkspaceError(
                f"core set {name!r}: workspace {workspace.location!r} has no {file} (core sets there: {known})",
                Remedy(Stage.CORE_SET, workspace.location, {"name": name}),
            )
        written = read_core_set_card(workspace, name)
        if written.fingerprint != corpus.fingerprint:
            raise WorkspaceError(
                f"core set {name!r} is of another split of the corpus than the shards are now",
                Remedy(Stage.CORE_SET, workspace.location, {"name": name, "overwrite": True}),
            )
        return cls(workspace=workspace, name=name, identity=written.identity)

    def kept(self, rows: ShardRows) -> npt.NDArray[np.bool_]:
        """bool (n,): which rows of this shard are in the core set.

        Raises:
            WorkspaceError: its part is missing, or is of another shard or core set.
        """
        file = core_set_part(self.name, rows.shard.name)
        remedy = Remedy(Stage.CORE_SET, self.workspace.location, {"name": self.name, "overwrite": True})
        if not self.workspace.exists(file):
            raise WorkspaceError(
                f"core set {self.name!r} has no part for shard {rows.shard.name}: stream the split train, or", remedy
            )
        origin = row_part_origin(rows.shard, CORE_SET_KEY, self.identity)
        table = read_row_part(
            self.workspace, file, ["key", "kept"], CORE_SETS, origin, rows, "another core set", remedy
        )
        return values(table.column("kept"))


def core_set_file(name: str) -> str:
    return f"core_sets/{name}/core_set.json"


def core_set_rows(name: str) -> str:
    return f"core_sets/{name}/rows"


def core_set_part(name: str, shard: str) -> str:
    return f"{core_set_rows(name)}/{shard}.parquet"
