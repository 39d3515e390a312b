"""The shard index: what a workspace holds, without opening a tar."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rhostream.errors import ConfigError, Remedy, ShardError, Stage, WorkspaceError
from rhostream.former import manifest_today
from rhostream.loaders.decode import ImageSpec, TextSpec
from rhostream.loaders.index.columns import values
from rhostream.loaders.index.keys import SAFE_KEY, unsafe_ext, unsafe_key
from rhostream.loaders.index.labels import LABEL_COLUMNS, Labels, labels_in
from rhostream.loaders.index.shard_list import Shard, ShardList, list_name
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import MULTI_LABEL, SAMPLES, SHARDS, TEXT

METADATA_NAME = "corpus.json"

#: What a sample may have.
FIELDS: Final = ("image", "text")

#: Metadata of the Parquet files of a shard: `Shard.digest` in its index, and in what was computed from it.
SHARD_DIGEST_KEY = b"rhostream.shard_digest"
#: Metadata of an IL part's Parquet.
IL_MODEL_KEY = b"rhostream.il_model_sha256"  # of the model's metadata

_CAPTION: Final = "text"
_COLUMNS: Final = ("key", "offset", "size", "content_hash")
#: Types of the columns of an index, whatever the task.
_PROMISED: Final = pa.schema([*SAMPLES, *TEXT, *(field for field in MULTI_LABEL.values() if field is not None)])


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What one run has added to a finished workspace.

    Attributes:
        date: of the day, as YYYY-MM-DD.
        entries: how many were new.
        units: into which they were cut.
        first_unit: number of the first of these.
        fingerprint: of the corpus before.
    """

    date: str
    entries: int
    units: int
    first_unit: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CorpusMetadata:
    """`corpus.json`: what the workspace was made from.

    Attributes:
        manifest: the resolved manifest, as JSON values.
        task: "classification", "multi_label" where a sample has any number of classes, or "pairs" (image, caption).
        classes: name of every label.
        counts: entries = samples + rejects, and samples by split.
        shards: in name order.
        fingerprint: of the split; changes with any key, label, content or assignment.
        appended: what was added since the shards were first finished, in order.
        fields: what a sample has, of "image" and "text". The index says of the first one where it lies in plain columns
            (offset, size, content_hash); the caption of a pair, its second field, is a column itself: `text`.
    """

    manifest: dict[str, Any]
    classes: tuple[str, ...]
    counts: dict[str, Any]
    shards: ShardList
    fingerprint: str
    task: str = "classification"
    appended: tuple[Appended, ...] = ()
    fields: tuple[str, ...] = ("image",)

    @classmethod
    def read(cls, workspace: Workspace) -> "CorpusMetadata":
        """Raises WorkspaceError where the shards are not finished, or shards are missing from what it lists."""
        if not workspace.exists(METADATA_NAME):
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no {METADATA_NAME}: name another workspace, or",
                Remedy(Stage.SHARDS, workspace.location),
            )
        told = workspace.read_json(METADATA_NAME)
        if isinstance(told, dict) and "shards" in told:
            told = told | {"shards": _shards(workspace, told)}
        corpus = workspace.read_record(METADATA_NAME, cls, value=told)
        with workspace.reading(METADATA_NAME):
            if corpus.shards.fingerprint() != corpus.fingerprint:
                raise UnreadableError(
                    f"lists {len(corpus.shards)} shards that are not those of its fingerprint: some were removed or "
                    "changed"
                )
            if (strange := corpus.shards.strange_name(SAFE_KEY.pattern)) is not None:
                raise UnreadableError(f"lists a shard {strange[:60]!r}, which no shard of ours is called")
            if not corpus.fields or not {*corpus.fields} <= {*FIELDS}:
                raise UnreadableError(
                    f"lists the fields {corpus.fields}, of which this release knows {', '.join(FIELDS)}"
                )
            for table in ("image", "text", "il", "train"):
                if not isinstance(corpus.manifest.get(table, {}), dict):
                    raise UnreadableError(f"has a manifest whose [{table}] is no table")
            if missing := [
                name for name in ("entries", "samples", "rejects") if type(corpus.counts.get(name)) is not int
            ]:
                raise UnreadableError(f"counts no {missing[0]}")
            if (rows := corpus.shards.samples) != corpus.counts["samples"]:
                raise UnreadableError(f"counts {corpus.counts['samples']} samples, and lists shards of {rows}")
        return replace(corpus, manifest=manifest_today(corpus.manifest))

    @property
    def fingerprints(self) -> set[str]:
        """Of the corpus as it is, and as it was before each time that something was added: all its shards are there."""
        return {self.fingerprint, *(each.fingerprint for each in self.appended)}

    @property
    def input_field(self) -> str:
        """The field that models of this corpus's task take."""
        return self.fields[0]

    def input_spec(self, *, image_size: int = 0, tokenizer: str = "", text_length: int = 0) -> ImageSpec | TextSpec:
        """The spec of `input_field`: the manifest's, but for the settings given here. See `text_spec` of pairs.

        Raises:
            ConfigError: a setting of another field than this corpus's, or no such tokenizer.
        """
        settings = {"image_size": image_size, "tokenizer": tokenizer, "text_length": text_length}
        of_field = {"text": ("tokenizer", "text_length"), "image": ("image_size",)}
        foreign = [name for field in FIELDS if field not in self.fields for name in of_field[field]]
        for name in foreign:
            if settings[name]:
                raise ConfigError(f"{name} {settings[name]!r}: the corpus has {self.input_field}s, leave it out")
        if self.input_field == "image":
            return self.image_spec(image_size)
        return self.text_spec(tokenizer, text_length)

    def text_spec(self, tokenizer: str = "", text_length: int = 0) -> TextSpec:
        """The spec of texts that the manifest asks for, but for the settings given here.

        Raises:
            ConfigError: no such tokenizer.
        """
        usual = self.manifest.get("text", {})
        length = {"length": text_length or usual["length"]} if text_length or "length" in usual else {}
        # What a manifest tells of its tokenizer file says nothing of another one.
        return TextSpec.from_dict(({"tokenizer": tokenizer} if tokenizer else usual) | length)

    def image_spec(self, size: int = 0) -> ImageSpec:
        """The spec that the manifest asks for, or the same at another size (0 keeps the manifest's)."""
        spec = ImageSpec.from_dict(self.manifest.get("image", {}))
        return replace(spec, size=size) if size else spec

    def require_labels(self, what: str) -> None:
        """Raises ConfigError where the samples are pairs, which have none, and `what` asks for them."""
        if self.task == "pairs":
            raise ConfigError(
                f"{what} asks for the labels of samples, and image-text pairs have none: ask the views `samples`, `il` "
                "and `ledger` in SQL"
            )

    def split(self, *splits: str) -> ShardList:
        """The shards of these splits, in name order."""
        return self.shards.of_splits(*splits)


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """Of a card that lists its shards itself."""

    shards: tuple[Shard, ...]


def _shards(workspace: Workspace, card: dict[str, Any]) -> ShardList:
    """The shards that a card tells of: in a list of its own, or by the name of the Parquet that lists them."""
    told = card.get("shards")
    if not isinstance(told, str):
        return ShardList.of(workspace.read_record(METADATA_NAME, _Listed, value=card).shards)
    with workspace.reading(METADATA_NAME):
        if told != list_name(str(card.get("fingerprint"))):
            raise UnreadableError(f"names a list of shards {told[:60]!r}, which is not that of its fingerprint")
        if not workspace.exists(told):
            raise UnreadableError(f"names a list of shards, {told}, which is not there")
    return ShardList(workspace.read_table(told, schema=SHARDS))


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """The index of one shard as columns, each of length `len(rows)`, in shard order.

    Attributes:
        labels: 0 of pairs, which have none.
        texts: the captions of pairs, else None.
    """

    shard: Shard
    keys: pa.StringArray
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    hashes: pa.StringArray
    labels: Labels
    extra: dict[str, npt.NDArray[Any]]
    texts: pa.StringArray | None = None

    def __len__(self) -> int:
        return len(self.keys)


def read_shard_rows(workspace: Workspace, shard: Shard, extra: tuple[str, ...] = ()) -> ShardRows:
    """Read the index of one shard.

    Args:
        extra: further columns to read, for instance `clean_label`; a column that this corpus lacks is left out.

    Raises:
        WorkspaceError: the index is missing, or is not the one of which `shard` tells: with other rows, or rewritten.
    """
    table = read_index(workspace, shard, _COLUMNS, tuple(dict.fromkeys((*LABEL_COLUMNS, _CAPTION, *extra))))
    is_labeled = bool({*LABEL_COLUMNS} & {*table.column_names})
    captions = None if is_labeled or _CAPTION not in table.column_names else table.column(_CAPTION).combine_chunks()
    if not is_labeled and (captions is None or not pa.types.is_string(captions.type) or captions.null_count):
        with workspace.reading(shard.index):
            raise UnreadableError(
                f"has no column {' or '.join(LABEL_COLUMNS)} (it has {', '.join(table.column_names)})"
            )
    return ShardRows(
        shard=shard,
        keys=table.column("key").combine_chunks(),
        offsets=values(table.column("offset")),
        sizes=values(table.column("size")),
        hashes=table.column("content_hash").combine_chunks(),
        labels=labels_in(table) if is_labeled else np.zeros(len(table), np.int32),
        texts=captions,
        extra={name: values(table.column(name)) for name in extra if name in table.column_names},
    )


def read_index(
    workspace: Workspace, shard: Shard, columns: Sequence[str] | None = None, extra: Sequence[str] = ()
) -> pa.Table:
    """The index of one shard, or these columns of it, and those of the extra ones that this corpus has.

    Raises:
        WorkspaceError: the index is missing, damaged, holds a key or extension that could not be a file's name, or is
            not the one of which `shard` tells: with other rows, or rewritten.
    """
    if not workspace.exists(shard.index):
        raise WorkspaceError(
            f"{workspace.path(shard.index)} is missing, though {METADATA_NAME} lists it",
            shard.remedy(workspace),
        )
    table = workspace.read_table(shard.index, columns, _PROMISED, extra)
    digest = (table.schema.metadata or {}).get(SHARD_DIGEST_KEY)
    if table.num_rows != shard.rows or digest != shard.digest.encode():
        differs = "keys, labels or contents" if table.num_rows == shard.rows else f"{shard.rows} rows"
        raise WorkspaceError(
            f"{workspace.path(shard.index)} ({table.num_rows} rows) is not the index that {METADATA_NAME} tells of, "
            f"which has other {differs}: start again if the index was rewritten meanwhile; else delete it and",
            shard.remedy(workspace),
        )
    with workspace.reading(shard.index):
        _require_names(table)
    return table


def _require_names(samples: pa.Table) -> None:
    """Raises UnreadableError where a key or extension of these rows would name a file elsewhere, see `keys`."""
    for column, unsafe in (("key", unsafe_key), ("ext", unsafe_ext)):
        if column in samples.column_names and (found := unsafe(samples[column].to_pylist())) is not None:
            raise UnreadableError(f"has the {column} {found[:60]!r}, which no sample of ours has")


def undecodable(workspace: Workspace, shard: Shard, row: int, reason: str) -> ShardError:
    """The error for a stored sample that was decodable when its shard was made."""
    key = read_shard_rows(workspace, shard).keys[row].as_py()
    return ShardError(
        f"{workspace.path(shard.tar)} row {row}, key {key!r}: {reason}; the tar was changed or damaged after it was "
        f"indexed: restore it, or{'' if shard.source else ' delete it and'}",
        shard.remedy(workspace, overwrite=bool(shard.source)),
    )
