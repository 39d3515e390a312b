"""`rho coreset`: selection via proxy (Coleman et al., 2020), a core set chosen once, before training.

The samples of the training split that a small model, the proxy, is least certain of are kept, and the target trains on
these alone. The proxy is an IL model, whose table holds the entropy of every sample.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream import schema
from rhostream.errors import ConfigError
from rhostream.loaders.index import (
    CORE_SET_KEY,
    CoreSetCard,
    CorpusMetadata,
    Shard,
    core_set_file,
    core_set_part,
    core_set_rows,
    has_row_part,
    read_core_set_card,
    read_shard_rows,
    row_part_origin,
)
from rhostream.loaders.reference import open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import CoreSetConfig
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
)
from rhostream.pipeline.shards import remove_own

_FORMAT: Final = 1
_READ_AHEAD: Final = 8  # parts of the IL table being read


@dataclass(frozen=True, kw_only=True)
class CoreSetSummary:
    """What was kept.

    Attributes:
        il: name of the proxy.
        samples, kept: of the training split, and how many of them are in the core set.
        least_entropy: nats, the lowest that was kept.
        already_made: was it there before?
    """

    name: str
    il: str
    samples: int
    kept: int
    least_entropy: float
    already_made: bool


def write_core_set(
    workspace: Workspace | str, config: CoreSetConfig, *, overwrite: bool = False
) -> CoreSetSummary | None:
    """Write `core_sets/<name>/rows/<shard>.parquet` for every training shard and, last, `core_set.json`.

    Kept are the samples of the highest entropy; ties go to the earlier one in shard order.

    Returns:
        None of a static job that has ended before others.

    Raises:
        ConfigError: no IL model to take.
        WorkspaceError: a core set of this name was made otherwise, or another process is making it.
        IrreducibleLossError: the IL table does not serve the training shards.
    """
    workspace = Workspace(workspace)
    engine = chosen_engine(config.engine, config.workers)
    if engine.is_shared and overwrite:
        raise ConfigError(
            "--overwrite with --engine static: each job would remove what others have made; give another --name"
        )
    corpus = CorpusMetadata.read(workspace)
    corpus.require_labels("a core set")
    metadata = ILMetadata.read(workspace, config.il or default_il_model(workspace, corpus))
    made_of = {
        "format": _FORMAT,
        "keep": config.keep,
        "il": metadata.name,
        "il_sha256": model_digest(workspace, metadata.name),
        "fingerprint": corpus.fingerprint,
    }
    file = core_set_file(config.name)
    folder = f"core_sets/{config.name}"
    with exclusive_lock(workspace, "rho coreset", folder, workers=core_set_rows(config.name), engine=engine):
        there = workspace.exists(file) and not overwrite
        if there:
            card: CoreSetCard | None = read_core_set_card(workspace, config.name)
        else:
            card = _write(workspace, corpus, config.name, made_of, engine)
        if card is None:
            return None
        if there:
            before = {name: value for name, value in asdict(card).items() if name in made_of}
            remedy = "give another --name, or replace it with --overwrite"
            require_same(f"core set {config.name!r} was made", before, made_of, remedy)
    return CoreSetSummary(
        name=config.name,
        il=metadata.name,
        samples=card.samples,
        kept=card.kept,
        least_entropy=card.least_entropy,
        already_made=there,
    )


def _write(
    workspace: Workspace, corpus: CorpusMetadata, name: str, made_of: dict[str, Any], engine: Engine
) -> CoreSetCard | None:
    """The card; None where other static jobs have yet to write parts."""
    shards = corpus.split("train")
    table = open_il_table(workspace, corpus, made_of["il"])

    def entropies(shard: Shard) -> npt.NDArray[np.float32]:
        return _entropies(workspace, shard, made_of["il"])

    def joined(shard: Shard) -> npt.NDArray[np.float32]:
        table.join(read_shard_rows(workspace, shard))  # raises where its IL part is not the right one
        return entropies(shard)

    identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    if not engine.is_shared:
        # First, so that a core set that is half rewritten never looks whole.
        workspace.remove(core_set_file(name))
    least, taken = highest(
        made_of["keep"],
        lambda: read_ahead(joined, shards, _READ_AHEAD),
        lambda: read_ahead(entropies, shards, _READ_AHEAD),
    )
    samples = sum(shard.rows for shard in shards)
    maker = _PartMaker(workspace=workspace, name=name, il=made_of["il"], identity=identity, least=least)
    units = [_Part(number=number, shard=shard, taken=taken[number]) for number, shard in enumerate(shards)]
    make_shards(maker, [unit for unit in units if engine.makes(unit.number)], engine, f"core set {name}")
    if engine.is_shared and not all(read_ahead(maker.is_made, shards, _READ_AHEAD)):
        return None
    remove_own(workspace, {core_set_rows(name): {f"{shard.name}.parquet" for shard in shards}})
    card = CoreSetCard(
        **made_of,
        name=name,
        identity=identity,
        samples=samples,
        kept=_count(samples, made_of["keep"]),
        least_entropy=least,
    )
    workspace.write_json(core_set_file(name), asdict(card))
    return card


@dataclass(frozen=True, kw_only=True)
class _Part(ShardUnit):
    """Of the shard's samples whose entropy is the least one kept, `taken` are, the first ones."""

    taken: int


@dataclass(frozen=True, kw_only=True)
class _PartMaker(Maker[_Part, None]):
    """Writes the parts of a core set: kept is what has a higher entropy than `least`."""

    name: str
    il: str
    identity: str
    least: float

    @property
    def folder(self) -> str:
        return core_set_rows(self.name)

    def __call__(self, unit: _Part, advance: Advance) -> None:
        shard, rows = unit.shard, read_shard_rows(self.workspace, unit.shard)
        entropies = _entropies(self.workspace, shard, self.il)
        kept = entropies > np.float32(self.least)
        kept[np.flatnonzero(entropies == np.float32(self.least))[: unit.taken]] = True
        columns = {
            "core_set": pa.repeat(self.name, shard.rows),
            "key": rows.keys,
            "shard": pa.repeat(shard.name, shard.rows),
            "row": np.arange(shard.rows, dtype=np.int32),
            "entropy": entropies,
            "kept": kept,
        }
        table = pa.table(columns, schema=schema.CORE_SETS.with_metadata(self._origin(shard)))
        self.workspace.write_table(core_set_part(self.name, shard.name), table)
        advance(shard.rows)

    def is_made(self, shard: Shard) -> bool:
        """Is the part of this shard there?"""
        part = core_set_part(self.name, shard.name)
        return has_row_part(self.workspace, part, schema.CORE_SETS, self._origin(shard))

    def _origin(self, shard: Shard) -> dict[bytes, bytes]:
        return row_part_origin(shard, CORE_SET_KEY, self.identity)


def _entropies(workspace: Workspace, shard: Shard, il: str) -> npt.NDArray[np.float32]:
    """float32 (rows,)."""
    column = workspace.read_table(shard.scores(il), ["entropy"], schema.IL)["entropy"]
    entropies: npt.NDArray[np.float32] = column.to_numpy()
    return entropies


def _count(samples: int, share: float) -> int:
    return max(1, math.floor(share * samples + 0.5))


Parts = Callable[[], Iterable[npt.NDArray[np.float32]]]


def highest(share: float, first: Parts, again: Parts) -> tuple[float, list[int]]:
    """The least of the highest values, of which a share (at least one) is wanted; of equal ones the first are.

    Values are only counted, by 16 of their bits at a time, so that memory does not grow with them.

    Args:
        first, again: all values, part by part, in their order: read for the first time, and for the two next ones.

    Returns:
        The least value, and how many of the values equal to it each part gives.
    """
    counts = _counted(_ordered(part) >> np.uint32(16) for part in first())
    wanted = _count(int(counts.sum()), share)
    high, above = _place(counts, wanted)
    counts = _counted(bits[bits >> 16 == high] & np.uint32(0xFFFF) for bits in map(_ordered, again()))
    low, more = _place(counts, wanted - above)
    least = high << 16 | low
    left, taken = wanted - above - more, []
    for part in again():
        taken.append(min(left, int((_ordered(part) == least).sum())))
        left -= taken[-1]
    bits = np.uint32(least & 0x7FFFFFFF if least >> 31 else ~least & 0xFFFFFFFF)
    return float(bits.view(np.float32)), taken


def _ordered(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Numbers in the order of the values, uint32 of the same shape; both zeros are one."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _counted(parts: Iterable[npt.NDArray[np.uint32]]) -> npt.NDArray[np.int64]:
    """How often each number below 2^16 occurs."""
    counts = np.zeros(1 << 16, np.int64)
    for part in parts:
        counts += np.bincount(part, minlength=len(counts))
    return counts


def _place(counts: npt.NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """The number at which the highest `wanted` begin, and how many are above it."""
    above = np.cumsum(counts[::-1])
    at = int(np.searchsorted(above, wanted))
    return len(counts) - 1 - at, int(above[at] - counts[::-1][at])
