"""The unit of work of `rho index`: one tar, read once, every sample of it found and looked through."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from rhostream.errors import CorpusError, UndecodableError, WorkspaceError
from rhostream.loaders.storage import UnreadableError, shaped
from rhostream.pipeline.config import Manifest, WebDatasetOptions
from rhostream.pipeline.corpora import (
    SEVERAL_LABELS,
    Damage,
    DamagedTarError,
    Member,
    SampleReader,
    TarFile,
    TarSample,
    bad_tar,
    failed_and_missing,
    label_text,
    parse_caption,
    skipped,
    text_of_labels,
)
from rhostream.pipeline.jobs import Advance, Maker
from rhostream.pipeline.shards import (
    ENTRIES_BEFORE_GIVING_UP,
    ENTRIES_BETWEEN_REPORTS,
    METADATA,
    content_of,
    refuse_mostly_bad,
    settings_of_task,
    with_caption,
)
from rhostream.schema import PAIR, SAMPLES, TEXT

SCANS = "scans"
FORMAT = 3  # of the scans; another one reads every tar anew
EXTRA = "extra."  # begins the names of the extra columns
_MB = 1_000_000

#: One row per entry of a tar, in its order. `label` is as found; from `offset` on, all is null without image or text.
_COLUMNS: Final = (
    pa.field("name", pa.string(), nullable=False),  # of the entry inside the tar; "@N" are skipped bytes
    pa.field("key", pa.string(), nullable=False),  # as webdataset has it
    pa.field("label", pa.string()),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
    pa.field("offset", pa.int64()),
    pa.field("size", pa.int64()),
    pa.field("sha256", pa.binary(32)),  # of its bytes
    pa.field("ext", pa.string()),
)
#: What a scan says of an image or text, beside that: see `rhostream.pipeline.shards.Content.measures`.
_MEASURES: Final[dict[str, tuple[pa.Field, ...]]] = {
    "image": (SAMPLES.field("width").with_nullable(True), SAMPLES.field("height").with_nullable(True)),
    "text": tuple(field.with_nullable(True) for field in TEXT),
}
_CAPTION: Final = tuple(field.with_nullable(True) for field in PAIR)  # of pairs, after those of the image


@dataclass(frozen=True, kw_only=True)
class TarUnit:
    """A tar, and its number in the corpus."""

    number: int
    tar: TarFile

    @property
    def megabytes(self) -> int:
        return -(-self.tar.size // _MB)


@dataclass(frozen=True, kw_only=True)
class ScanRecord:
    """What a tar holds: entries in all, and of those that are already refused the reason, number and an example."""

    entries: int
    rejects: dict[str, tuple[int, str]]


@dataclass(frozen=True, kw_only=True)
class TarScanner(Maker[TarUnit, ScanRecord]):
    """Writes `scans/<digest>.parquet`, named for the tar, its state and all settings that decide the content."""

    manifest: Manifest
    options: WebDatasetOptions

    @property
    def folder(self) -> str:
        return SCANS

    def name(self, tar: TarFile) -> str:
        options = self.options
        said = [
            FORMAT,
            vars(tar),
            options.label,
            options.images,
            options.extra,
            options.on_bad_tar,
            self.manifest.max_pixels,
            *settings_of_task(self.manifest).values(),
            *([options.text, self.manifest.max_text_bytes] if options.text or self.manifest.task == "pairs" else []),
        ]
        return f"{SCANS}/{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]}.parquet"

    @property
    def fields(self) -> tuple[str, ...]:
        """What samples have."""
        if self.manifest.task == "pairs":
            return ("image", "text")
        return ("text",) if self.options.text else ("image",)

    @property
    def _measured(self) -> tuple[pa.Field, ...]:
        return (*_MEASURES[self.fields[0]], *(_CAPTION if len(self.fields) > 1 else ()))

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns of the index that tell of the image or text, or of both."""
        return tuple(field.name for field in self._measured)

    @property
    def schema(self) -> pa.Schema:
        """Of a scan, but for its extra columns."""
        return pa.schema([*_COLUMNS, *self._measured])

    def record(self, tar: TarFile) -> ScanRecord | None:
        """Of a finished scan; None where there is none, or it is damaged."""
        try:
            found = self.workspace.read_schema(self.name(tar), self.schema)
            if not set(self.schema.names) <= set(found.names):
                return None
            metadata = found.metadata or {}
            return shaped(json.loads(metadata.get(METADATA, b"")), ScanRecord)
        except (FileNotFoundError, WorkspaceError, UnreadableError, ValueError):
            return None

    def rows(self, tar: TarFile, columns: Sequence[str] | None = None) -> pa.Table:
        """What the scan of a tar found, or these columns of it."""
        return self.workspace.read_table(self.name(tar), columns, self.schema)

    def __call__(self, unit: TarUnit, advance: Advance) -> ScanRecord:
        """Read one tar and write its scan; `advance` gets megabytes.

        Raises:
            CorpusError: the tar is damaged (unless the options say to skip that), cannot be read or changes meanwhile,
                or most of its first entries are refused.
            WorkspaceError: the scan cannot be written, or the tar's store keeps failing.
        """
        reader = SampleReader(self.options, self.manifest.task)
        rows: list[dict[str, Any]] = []
        rejects = Counter[str]()
        examples: dict[str, str] = {}
        reported = 0
        try:
            for row, position in self._rows(unit.tar, reader):
                rows.append(row)
                if row["reason"]:
                    rejects[row["reason"]] += 1
                    examples.setdefault(row["reason"], f"{unit.tar.url}/{row['name']}: {row['detail']}")
                if len(rows) == ENTRIES_BEFORE_GIVING_UP:
                    refuse_mostly_bad(_counted(rejects, examples), len(rows), self.manifest)
                if len(rows) % ENTRIES_BETWEEN_REPORTS == 0:
                    advance(position // _MB - reported)
                    reported = position // _MB
            changed = TarFile.of(unit.tar.url) != unit.tar
        except DamagedTarError as error:
            raise bad_tar(unit.tar.url, error) from error
        except UnreadableError as error:
            raise CorpusError(f"{unit.tar.url} {error.cause}: {error.remedy or 'name a tar, or restore it'}") from error
        except OSError as error:
            raise CorpusError(
                f"{unit.tar.url} cannot be read ({error.strerror or error}): restore it, and run the same command "
                "again; it keeps the tars that are done"
            ) from error
        if changed:
            raise CorpusError(f"{unit.tar.url} was rewritten while it was read: wait for its writer, then run again")
        record = ScanRecord(entries=len(rows), rejects=_counted(rejects, examples))
        schema = pa.schema(
            [*self.schema, *(pa.field(EXTRA + name, kind) for name, kind in reader.extra_columns.items())]
        )
        table = pa.Table.from_pylist(rows, schema.with_metadata({METADATA: json.dumps(asdict(record)).encode()}))
        try:
            self.workspace.write_table(self.name(unit.tar), table)
        except OSError as error:
            raise WorkspaceError(
                f"cannot write to {self.workspace.location}: {error.strerror or error}; mend that and run the same "
                "command again, it keeps the tars that are done"
            ) from error
        advance(unit.megabytes - reported)
        return record

    def _rows(self, tar: TarFile, reader: SampleReader) -> Iterator[tuple[dict[str, Any], int]]:
        """Rows of the scan, and how far the tar has been read."""
        keys, position = set(), 0
        with tar.open() as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of odd metadata helps nobody a million times
            for found in reader.samples(stream, contents=True):
                if isinstance(found, Damage):
                    position = found.offset + found.size
                    name = f"@{found.offset}"
                    yield _refused(name, name, "truncated", skipped(found)), position
                    continue
                keys.add(found.key)
                position = max(member.offset for member in found.members.values())
                for row in self._entries(found, reader, tar):
                    yield row, position
        status = tar.beside(".parquet")
        if status is not None:
            for key, reason, detail in failed_and_missing(f"{tar.url.removesuffix('.tar')}.parquet", status, keys):
                yield _refused(key, key, reason, detail), tar.size

    def _entries(self, sample: TarSample, reader: SampleReader, tar: TarFile) -> Iterator[dict[str, Any]]:
        if oversized := reader.oversized(sample):
            yield _refused(sample.key, sample.key, *oversized)
            return
        content = reader.content(sample)
        if content is None:
            for name, detail in reader.without_content(sample):
                yield _refused(name, name, "missing", detail)
            return
        row = _refused(sample.key, sample.key, "", "")
        if self.manifest.task == "pairs":
            row |= {EXTRA + name: value for name, value in reader.extra(sample, f"{tar.url}/{sample.key}").items()}
            text, reason, detail = parse_caption(reader.caption(sample), self.manifest.max_text_bytes)
            yield row | ({"reason": reason, "detail": detail} if text is None else self._content(content, text))
            return
        found = reader.label(sample)
        if self.manifest.task == "multi_label":
            row["label"] = text_of_labels(found)
        elif isinstance(found, list):
            yield row | {"reason": "label_unknown", "detail": SEVERAL_LABELS}
            return
        else:
            row["label"] = label_text(found)
        row |= {EXTRA + name: value for name, value in reader.extra(sample, f"{tar.url}/{sample.key}").items()}
        if row["label"] is None:
            row |= {"reason": "label_missing", "detail": "the label is empty"}
        else:
            row |= self._content(content)
        yield row

    def _content(self, member: Member, caption: str | None = None) -> dict[str, Any]:
        found = member.content or b""
        try:
            content = content_of(self.fields[0], found, self.manifest)
            if caption is not None:
                content = with_caption(content, caption)
        except UndecodableError as error:
            return {"reason": error.reason, "detail": error.detail}
        return {
            "offset": member.offset,
            "size": member.size,
            "sha256": hashlib.sha256(found).digest(),
            "ext": content.ext,
            **content.measures,
        }


def _refused(name: str, key: str, reason: str, detail: str) -> dict[str, Any]:
    return {"name": name, "key": key, "reason": reason, "detail": detail}


def _counted(rejects: Counter[str], examples: dict[str, str]) -> dict[str, tuple[int, str]]:
    return {reason: (count, examples[reason]) for reason, count in sorted(rejects.items())}
