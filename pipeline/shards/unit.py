"""A unit of `rho shards`: a slice of the listing becomes one shard per split and fold, and the rejects of the slice."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pyarrow as pa

from rhostream.errors import CorpusError, UndecodableError, WorkspaceError
from rhostream.loaders.decode import content_hash
from rhostream.loaders.index import Shard
from rhostream.loaders.storage import UnreadableError, Workspace, shaped
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.corpora import Corpus, Entry, fields_of
from rhostream.pipeline.jobs import Advance, Maker
from rhostream.pipeline.shards.captions import pair_identity
from rhostream.pipeline.shards.content import content_of, with_caption
from rhostream.pipeline.shards.index_rows import IndexRows, SampleFacts, names_of
from rhostream.pipeline.shards.listing import Unit
from rhostream.pipeline.shards.refusals import Refusals, by_reason, refuse_mostly_bad
from rhostream.pipeline.shards.shard_writer import ShardWriter
from rhostream.plain_text import hide_secrets
from rhostream.schema import MULTI_LABEL, REJECTS, SAMPLES

FORMAT = 2  # of the shards; another one makes every unit anew
SPLIT_OF_PAIRS = "captions that several share, else the image"  # what it follows, where a corpus has pairs
METADATA = b"rhostream"
_OF_PAIRS = b"rhostream.pairs"
ENTRIES_BEFORE_GIVING_UP = 1000
ENTRIES_BETWEEN_REPORTS = 16
_PIECE_BYTES = 1 << 20
# Of an index of any task and fields.
_PROMISED = pa.schema([field for field in SAMPLES if field.name not in (*MULTI_LABEL, "width", "height")])


@dataclass(frozen=True, kw_only=True)
class UnitRecord:
    """What a unit has become: in the metadata of its `rejects/<unit>.parquet`, which is written last.

    Attributes:
        settings: of the manifest and the corpus, all that decides the bytes.
        listing: number of entries of the whole corpus, and a digest of this slice.
        shards: with the size in bytes of tar and index.
        rejects: reason to number and an example.
        tar_sha256: of the tars that we have written, by the shard's name; a former release told of none.
    """

    settings: dict[str, Any]
    listing: tuple[int, str]
    shards: tuple[tuple[Shard, int, int], ...]
    rejects: Refusals
    tar_sha256: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, workspace: Workspace, number: int) -> Self | None:
        """None where the unit is not there, or its record is damaged."""
        try:
            metadata = workspace.read_schema(rejects_name(number), REJECTS).metadata or {}
            return shaped(json.loads(metadata.get(METADATA, b"")), cls)
        except (FileNotFoundError, WorkspaceError, UnreadableError, ValueError):
            return None

    def is_whole(self, workspace: Workspace, *, read_tars: bool = True) -> bool:
        """Is every file that the workspace holds there, as it was written?

        Args:
            read_tars: to the last byte; else, and in a store, which checks its own, they are compared by their size.
        """
        try:
            for shard, tar, index in self.shards:
                if workspace.size(shard.index) != index or not (shard.source or workspace.size(shard.tar) == tar):
                    return False
                workspace.check_table(shard.index, _PROMISED)
                written = self.tar_sha256.get(shard.name)
                if (
                    read_tars
                    and workspace.is_local
                    and written is not None
                    and _sha256(workspace, shard.tar) != written
                ):
                    return False
        except (FileNotFoundError, WorkspaceError):
            return False
        return True

    @property
    def entries(self) -> int:
        return sum(shard.rows for shard, _, _ in self.shards) + sum(count for count, _ in self.rejects.values())


@dataclass(frozen=True, kw_only=True)
class PairFacts:
    """What the indexes of a unit of pairs do not tell: in the metadata of its rejects, beside the record.

    Attributes:
        official: keys of those which the corpus itself puts into the holdout.
        straddling: of those refused for the side of the split that they stood on: key, split, hashes of image and
            caption.
    """

    official: tuple[str, ...] = ()
    straddling: tuple[tuple[str, str, str, str], ...] = ()

    @classmethod
    def read(cls, workspace: Workspace, number: int) -> Self:
        """Raises WorkspaceError where they are missing or damaged."""
        file = rejects_name(number)
        metadata = workspace.read_schema(file, REJECTS).metadata or {}
        with workspace.reading(file):
            try:
                return shaped(json.loads(metadata.get(_OF_PAIRS, b"")), cls)
            except ValueError as error:
                raise UnreadableError("does not tell which of its pairs have an official split") from error


@dataclass(frozen=True, kw_only=True)
class UnitMaker(Maker[Unit, UnitRecord]):
    """Makes units of `rho shards`. `listed` is the number of entries of the whole corpus."""

    corpus: Corpus
    extra_columns: Mapping[str, pa.DataType]
    manifest: Manifest
    listed: int

    @property
    def folder(self) -> str:
        return "shards"

    def settings(self) -> dict[str, Any]:
        """All but the listing that decides the bytes of a unit, as JSON values."""
        manifest = self.manifest
        return {
            "shard_format": FORMAT,
            "seed": manifest.seed,
            "holdout": manifest.holdout,
            "folds": manifest.folds,
            "shard_size": manifest.shard_size,
            "max_side": manifest.max_side,
            "max_pixels": manifest.max_pixels,
            "classes": list(self.corpus.classes),
            "extra_columns": {name: str(kind) for name, kind in self.extra_columns.items()},
            **settings_of_task(manifest),
            **settings_of_fields(self.fields, manifest),
        }

    @property
    def fields(self) -> tuple[str, ...]:
        """What samples have."""
        return fields_of(self.corpus)

    def listing(self, unit: Unit) -> tuple[int, str]:
        digest = hashlib.sha256()
        for key, entry in unit.entries():
            said = (
                key,
                entry.source,
                entry.split,
                entry.label,
                entry.reason,
                entry.detail,
                sorted(entry.extra.items()),
                *([] if entry.text is None else [entry.text]),
            )
            digest.update(repr(said).encode())
        return (self.listed, digest.hexdigest())

    def __call__(self, unit: Unit, advance: Advance) -> UnitRecord:
        """Write the shards, their indexes and, last, the rejects of `unit`.

        Raises:
            CorpusError: most of the first entries are refused.
            WorkspaceError: a file cannot be written.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Pillow says of odd metadata helps nobody a million times
                return self._make(unit, advance)
        except OSError as error:
            raise WorkspaceError(
                f"cannot write unit {unit.number:06d} to {self.workspace.location}: "
                f"{error.strerror or error}; mend that and run the same command again, it keeps the "
                "finished shards"
            ) from error

    def _make(self, unit: Unit, advance: Advance) -> UnitRecord:
        rejects: list[dict[str, str]] = []
        writers: dict[str, ShardWriter] = {}
        official: list[str] = []
        unreported = 0
        with ExitStack() as files:
            for position, (key, entry) in enumerate(unit.entries(), 1):
                try:
                    split, fold, sample, stored = self._sample(key, entry, unit.binding)
                except UndecodableError as error:
                    rejects.append(
                        {
                            "source": clean_text(entry.source),
                            "key": key,
                            "reason": error.reason,
                            "detail": clean_text(error.detail),
                        }
                    )
                else:
                    name = shard_name(split, fold, unit.number)
                    if name not in writers:
                        stream = files.enter_context(self.workspace.writing(f"shards/{name}.tar"))
                        rows = IndexRows(
                            name=name,
                            split=split,
                            fold=fold,
                            task=self.manifest.task,
                            fields=self.fields,
                            extra=self.extra_columns,
                        )
                        writers[name] = ShardWriter(stream, rows)
                    writers[name].add(sample, stored)
                    if entry.split == "holdout":
                        official.append(key)
                if position == ENTRIES_BEFORE_GIVING_UP:
                    refuse_mostly_bad(by_reason(rejects), position, self.manifest)
                unreported += 1
                if unreported == ENTRIES_BETWEEN_REPORTS or position == len(unit):
                    advance(unreported)
                    unreported = 0
            shards = [(writer.rows, writer.close()) for _, writer in sorted(writers.items())]
        return write_unit(
            self.workspace,
            unit.number,
            shards,
            rejects,
            settings=self.settings(),
            listing=self.listing(unit),
            tar_sha256={name: writer.sha256 for name, writer in sorted(writers.items())},
            pairs=PairFacts(official=tuple(official)) if self.manifest.task == "pairs" else None,
        )

    def _sample(self, key: str, entry: Entry, binding: Set[str]) -> tuple[str, int, SampleFacts, bytes]:
        """(split, fold, sample, what is stored) of an entry; UndecodableError with the reason where it is refused."""
        if entry.reason or entry.label is None:
            raise UndecodableError(entry.reason, entry.detail)
        try:
            found = self.corpus.read(entry)
        except FileNotFoundError as error:
            raise UndecodableError("missing", error.strerror or "no such file") from error
        except OSError as error:
            raise UndecodableError("unreadable", error.strerror or str(error)) from error
        except UnreadableError as error:
            raise UndecodableError("unreadable", error.cause) from error
        content = content_of(self.fields[0], found, self.manifest)
        identity = content.identity
        if entry.text is not None:
            content = with_caption(content, entry.text)
            identity = pair_identity(content_hash(content.stored), content.measures["text_hash"], binding)
        split, fold = split_of(entry.split, identity, self.manifest)
        sample = SampleFacts(
            key=key,
            source=clean_text(entry.source),
            label=entry.label,
            class_name=names_of(entry.label, self.corpus.classes),
            ext=content.ext,
            measures=content.measures,
            extra=entry.extra,
            text=entry.text,
        )
        return split, fold, sample, content.stored


def settings_of_task(manifest: Manifest) -> dict[str, Any]:
    """What units of another task than classification record; units that were made before there was one say nothing."""
    return {} if manifest.task == "classification" else {"task": manifest.task}


def settings_of_fields(fields: Sequence[str], manifest: Manifest) -> dict[str, Any]:
    """What units of other samples than images record."""
    if fields == ("image",):
        return {}
    split_of_pairs = {"split_of_pairs": SPLIT_OF_PAIRS} if len(fields) > 1 else {}
    return {"fields": list(fields), "max_text_bytes": manifest.max_text_bytes, **split_of_pairs}


def write_unit(
    workspace: Workspace,
    number: int,
    shards: Sequence[tuple[IndexRows, int]],
    rejects: list[dict[str, str]],
    *,
    settings: dict[str, Any],
    listing: tuple[int, str],
    tar_sha256: Mapping[str, str] = {},
    pairs: PairFacts | None = None,
) -> UnitRecord:
    """Write the indexes of a unit and, last, its rejects with the record.

    Args:
        shards: rows, and the size of their tar in bytes.
        rejects: rows of `rhostream.schema.REJECTS`.
        tar_sha256: see `UnitRecord`.
        pairs: of a unit of pairs.
    """
    written = []
    for rows, tar_size in shards:
        shard = rows.shard()
        workspace.write_table(shard.index, rows.table())
        written.append((shard, tar_size, workspace.size(shard.index)))
    record = UnitRecord(
        settings=settings,
        listing=listing,
        shards=tuple(written),
        rejects=by_reason(rejects),
        tar_sha256=dict(tar_sha256),
    )
    table = pa.Table.from_pylist(rejects, schema=REJECTS)
    metadata = {METADATA: _told(record)} | ({} if pairs is None else {_OF_PAIRS: _told(pairs)})
    workspace.write_table(rejects_name(number), table.replace_schema_metadata(metadata))
    return record


def _told(record: UnitRecord | PairFacts) -> bytes:
    return json.dumps(asdict(record), ensure_ascii=False).encode()


def _sha256(workspace: Workspace, name: str) -> str:
    digest = hashlib.sha256()
    with workspace.open(name) as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def split_of(official: str | None, digest: bytes, manifest: Manifest) -> tuple[str, int]:
    """(split, fold) of a sample by a hash of its `Content.identity`; an official "holdout", "val" or "test" wins."""
    if official in ("holdout", "val", "test"):
        return official, -1
    salt = str(manifest.seed).encode()[:64]
    value = int.from_bytes(hashlib.blake2b(digest, digest_size=8, key=salt, person=b"rho split").digest(), "big")
    if value < manifest.holdout * 2**64:
        return "holdout", -1
    return "train", value % manifest.folds if manifest.folds else -1


def shard_name(split: str, fold: int, unit: int) -> str:
    return f"{split}-{unit:06d}" if fold < 0 else f"{split}-fold{fold}-{unit:06d}"


def rejects_name(unit: int) -> str:
    return f"rejects/{unit:06d}.parquet"


def require_two_classes(classes: Sequence[str], manifest: Manifest) -> None:
    """Raises CorpusError where there is nothing to tell apart: a multi-label sample may have its only class or not."""
    if len(classes) < 2 and manifest.task == "classification":
        raise CorpusError(
            f"{manifest.place} has {len(classes)} class(es) {list(classes)}: a classifier needs at "
            "least 2; check its root and the options of its format"
        )


def clean_text(text: str) -> str:
    """`text` as valid Unicode (file names may hold any bytes), without secrets of URLs."""
    return hide_secrets(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
