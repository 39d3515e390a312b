"""The join of a shard's rows with their irreducible losses: by key, always."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import IrreducibleLossError, Remedy, Stage
from rhostream.former import il_model_today
from rhostream.loaders.decode import InputSpec, spec_of
from rhostream.loaders.index import IL_MODEL_KEY, SHARD_DIGEST_KEY, CorpusMetadata, Shard, ShardRows, values
from rhostream.loaders.reference.joined_rows import JoinedRows
from rhostream.loaders.reference.key_table import KeyTable
from rhostream.loaders.reference.pair_reference import PairReference
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import IL

#: What is read of a part. A loss that is missing is the stream's to refuse, with counts, or to drop.
_PROMISED: Final = pa.schema(
    [IL.field("key"), IL.field("il").with_nullable(True), IL.field("predicted"), IL.field("in_sample")]
)


class ILTable(Protocol):
    """Irreducible losses by key, or the embeddings of pairs.

    Attributes:
        reference: how these become losses; None where there are none.
    """

    reference: PairReference | None

    def join(self, rows: ShardRows) -> JoinedRows:
        """The losses of these rows, in their order."""
        ...


def open_il_table(workspace: Workspace, corpus: CorpusMetadata, il: str) -> ILTable:
    """The IL table `il`: a name in this workspace, or the path of a Parquet file (or folder) with columns key and il.

    Raises:
        IrreducibleLossError: there is no such table, or it was made for another class list; `join` raises it where a
            part was made for other rows, labels or images, by another model, or in-sample.
    """
    if _is_path(il):
        return ForeignTable(il)
    return RowAlignedTable(workspace, corpus, il)


def il_digest(workspace: Workspace, il: str) -> str:
    """What identifies the content of an IL table: SHA-256 of its model's metadata, or of its Parquet files' state.

    Raises:
        IrreducibleLossError: there is no such table.
    """
    if _is_path(il):
        return KeyTable.stamp(il)
    return hashlib.sha256(_model_metadata(workspace, il)).hexdigest()


def _model_metadata(workspace: Workspace, name: str) -> bytes:
    """What the IL model's `model.json` holds.

    Raises:
        IrreducibleLossError: the workspace has no such model.
    """
    file = f"il/{name}/model.json"
    if not workspace.exists(file):
        known = ", ".join(workspace.names("il")) or "none"
        raise IrreducibleLossError(
            f"IL table {name!r}: workspace {workspace.location!r} has no {file} (IL models there: {known})",
            Remedy(Stage.IL_TRAIN, workspace.location, {"name": name}),
            Remedy(Stage.IL_SCORE, workspace.location, {"name": name}),
        )
    return workspace.read_bytes(file)


def _is_path(il: str) -> bool:
    return "/" in il or il.endswith(".parquet")


def il_spec(workspace: Workspace, il: str) -> InputSpec | None:
    """The spec that the IL table was computed on; None where it does not say (a Parquet made elsewhere)."""
    if _is_path(il):
        return None
    spec = _model_card(workspace, il).spec
    return spec_of(spec) if spec is not None else None


@dataclass(frozen=True, kw_only=True)
class _ModelCard:
    """What a table needs to know of its model."""

    classes: tuple[str, ...]
    fingerprint: str
    spec: dict[str, Any] | None = None
    name: str = ""
    pairs: PairReference | None = None


def _model_card(workspace: Workspace, name: str) -> _ModelCard:
    _model_metadata(workspace, name)  # says what to do where there is none
    file = f"il/{name}/model.json"
    found = workspace.read_json(file, format=int)
    card = workspace.read_record(file, _ModelCard, value=il_model_today(found))
    with workspace.reading(file):
        if card.name not in ("", name):
            raise UnreadableError(f"is of the IL model {card.name!r}")
    return card


class RowAlignedTable:
    """`il/<name>/scores`: one part per shard, row-aligned with it; every row's key is compared."""

    def __init__(self, workspace: Workspace, corpus: CorpusMetadata, name: str) -> None:
        self._workspace, self._name = workspace, name
        self._predicts = corpus.task == "classification"
        train_again = Remedy(Stage.IL_TRAIN, workspace.location, {"name": name, "overwrite": True})
        score_again = Remedy(Stage.IL_SCORE, workspace.location, {"name": name})
        model = _model_card(workspace, name)
        classes = model.classes
        if classes != corpus.classes:
            raise IrreducibleLossError(
                f"IL table {name!r} knows {len(classes)} classes {classes[:3]}…, the corpus has {len(corpus.classes)} "
                f"{corpus.classes[:3]}…",
                train_again,
                score_again,
            )
        if model.fingerprint not in corpus.fingerprints:
            raise IrreducibleLossError(
                f"IL model {name!r} was trained on another split of the corpus than the one that the shards have now",
                train_again,
                score_again,
            )
        self._model = il_digest(workspace, name)
        self.reference = model.pairs
        if (corpus.task == "pairs") != (self.reference is not None):
            raise IrreducibleLossError(
                f"IL model {name!r} is of another task than the corpus's, {corpus.task}", train_again, score_again
            )

    def join(self, rows: ShardRows) -> JoinedRows:
        shard, part = rows.shard, rows.shard.scores(self._name)
        if not self._workspace.exists(part):
            raise self._refusal(shard, f"IL table {self._name!r} has no part for shard {shard.name}")
        embedded = () if self.reference is None else ("image_embedding", "text_embedding")
        columns = ["key", "il", "in_sample", *(["predicted"] if self._predicts else []), *embedded]
        table = self._workspace.read_table(part, columns, _PROMISED)
        if table.num_rows != len(rows):
            raise self._refusal(
                shard,
                f"shard {shard.name} has {len(rows)} rows, its IL part has {table.num_rows}: it was scored before the "
                "shard was rewritten",
            )
        keys = table.column("key").combine_chunks()
        if not keys.equals(rows.keys):
            differing = pc.not_equal(keys, rows.keys)
            first = pc.index(differing, pa.scalar(True)).as_py()
            raise self._refusal(
                shard,
                f"shard {shard.name}: {pc.sum(differing).as_py()} of {len(rows)} keys differ from those of its IL part "
                f"(row {first}: {rows.keys[first].as_py()}, there {keys[first].as_py()}): it is of another shard",
            )
        made_of = table.schema.metadata or {}
        if made_of.get(SHARD_DIGEST_KEY) != shard.digest.encode():
            raise self._refusal(
                shard,
                f"shard {shard.name} holds other labels or images than when it was scored (its keys are the same)",
            )
        if made_of.get(IL_MODEL_KEY) != self._model.encode():
            raise self._refusal(
                shard, f"the IL part of shard {shard.name} was made by another model than {self._name!r}"
            )
        seen = pc.sum(table.column("in_sample")).as_py()
        if seen:
            raise IrreducibleLossError(
                f"shard {shard.name}: the IL model was trained on {seen} of its {len(rows)} samples, whose losses are "
                "therefore no irreducible ones: stream shards of the split train only"
            )
        il = values(table.column("il")).astype(np.float32, copy=False)
        predicted = values(table.column("predicted")) if self._predicts else np.full(len(il), -1, np.int32)
        embeddings = {name: self._embedding(shard, table, name) for name in embedded}
        return JoinedRows(il=il, predicted=predicted, embeddings=embeddings)

    def _embedding(self, shard: Shard, table: pa.Table, name: str) -> npt.NDArray[np.float16]:
        """float16 (n, D)."""
        lists = table.column(name).combine_chunks()
        numbers = np.asarray(lists.flatten())
        width, left = divmod(len(numbers), len(lists)) if len(lists) else (0, 0)
        if left or not np.array_equal(np.asarray(lists.value_lengths()), np.full(len(lists), width)):
            raise self._refusal(shard, f"the embeddings of shard {shard.name} are not all of one length")
        if not np.isfinite(numbers).all():
            raise self._refusal(shard, f"embeddings of shard {shard.name} are not finite")
        found: npt.NDArray[np.float16] = numbers.astype(np.float16).reshape(len(lists), width)
        return found

    def _refusal(self, shard: Shard, cause: str) -> IrreducibleLossError:
        settings: dict[str, str | bool] = {"name": self._name, "only": shard.name}
        return IrreducibleLossError(cause, Remedy(Stage.IL_SCORE, self._workspace.location, settings))


class ForeignTable:
    """Any Parquet with columns `key` and `il` (and maybe `predicted`), made with these shards or not."""

    reference: PairReference | None = None

    def __init__(self, path: str) -> None:
        self._table = KeyTable.of_parquet(path)

    def join(self, rows: ShardRows) -> JoinedRows:
        il, predicted = self._table.lookup(rows.keys.to_pylist())
        return JoinedRows(il=il, predicted=predicted)
