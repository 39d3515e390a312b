"""`rho coreset`: selection via proxy (Coleman et al., 2020), a core set chosen once, before training.

The samples of the training split that a small model, the proxy, is least certain of are kept, and the target trains on
these alone. The proxy is an IL model, whose table holds the entropy of every sample.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream import schema
from rhostream.loaders.index import (
    CORE_SET_KEY,
    SHARD_DIGEST_KEY,
    CoreSetCard,
    CorpusMetadata,
    Shard,
    core_set_file,
    core_set_part,
    core_set_rows,
    read_core_set_card,
    read_shard_rows,
)
from rhostream.loaders.reference import open_il_table
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import CoreSetConfig
from rhostream.pipeline.il.metadata import ILMetadata, default_il_model, model_digest
from rhostream.pipeline.jobs import exclusive_lock, require_same
from rhostream.pipeline.shards import remove_own

_FORMAT: Final = 1


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


def write_core_set(workspace: Workspace | str, config: CoreSetConfig, *, overwrite: bool = False) -> CoreSetSummary:
    """Write `core_sets/<name>/rows/<shard>.parquet` for every training shard and, last, `core_set.json`.

    Kept are the samples of the highest entropy; ties go to the earlier one in shard order. Memory: 4 bytes a sample.

    Raises:
        ConfigError: no IL model to take.
        WorkspaceError: a core set of this name was made otherwise, or another process is making it.
        IrreducibleLossError: the IL table does not serve the training shards.
    """
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    metadata = ILMetadata.read(workspace, config.il or default_il_model(workspace, corpus))
    made_of = {
        "format": _FORMAT,
        "keep": config.keep,
        "il": metadata.name,
        "il_sha256": model_digest(workspace, metadata.name),
        "fingerprint": corpus.fingerprint,
    }
    file = core_set_file(config.name)
    with exclusive_lock(workspace, "rho coreset", f"core_sets/{config.name}"):
        there = workspace.exists(file) and not overwrite
        card = read_core_set_card(workspace, config.name) if there else _write(workspace, corpus, config.name, made_of)
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


def _write(workspace: Workspace, corpus: CorpusMetadata, name: str, made_of: dict[str, Any]) -> CoreSetCard:
    shards = corpus.split("train")
    parts = [_entropies(workspace, corpus, shard, made_of["il"]) for shard in shards]
    kept = highest(np.concatenate(parts), made_of["keep"])
    identity = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    # First, so that a core set that is half rewritten never looks whole.
    workspace.remove(core_set_file(name))
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    for shard, start, entropies in zip(shards, starts, parts, strict=False):
        rows = read_shard_rows(workspace, shard)
        columns = {
            "core_set": pa.repeat(name, shard.rows),
            "key": rows.keys,
            "shard": pa.repeat(shard.name, shard.rows),
            "row": np.arange(shard.rows, dtype=np.int32),
            "entropy": entropies,
            "kept": kept[start : start + shard.rows],
        }
        made_from = {SHARD_DIGEST_KEY: shard.digest.encode(), CORE_SET_KEY: identity.encode()}
        table = pa.table(columns, schema=schema.CORE_SETS.with_metadata(made_from))
        workspace.write_table(core_set_part(name, shard.name), table)
    remove_own(workspace, {core_set_rows(name): {f"{shard.name}.parquet" for shard in shards}})
    card = CoreSetCard(
        **made_of,
        name=name,
        identity=identity,
        samples=len(kept),
        kept=int(kept.sum()),
        least_entropy=float(np.concatenate(parts)[kept].min()),
    )
    workspace.write_json(core_set_file(name), asdict(card))
    return card


def _entropies(workspace: Workspace, corpus: CorpusMetadata, shard: Shard, il: str) -> npt.NDArray[np.float32]:
    """float32 (rows,), of a shard whose IL part is the right one."""
    open_il_table(workspace, corpus, il).join(read_shard_rows(workspace, shard))  # raises where it is not
    entropies: npt.NDArray[np.float32] = workspace.read_table(shard.scores(il), ["entropy"], schema.IL)[
        "entropy"
    ].to_numpy()
    return entropies


def highest(values: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.bool_]:
    """bool (n,): the share (at least one) of the highest values; of equal ones the first."""
    count = max(1, math.floor(share * len(values) + 0.5))
    least = np.partition(values, len(values) - count)[len(values) - count]
    chosen: npt.NDArray[np.bool_] = values > least
    chosen[np.flatnonzero(values == least)[: count - int(chosen.sum())]] = True
    return chosen
