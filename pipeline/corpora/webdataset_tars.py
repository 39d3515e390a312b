"""WebDataset tars written by others, those of img2dataset included."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, Final, Literal

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.pipeline.corpora.base import Entry
from rhostream.pipeline.corpora.columns import extra_column_name
from rhostream.pipeline.corpora.img2dataset_status import failed_and_missing
from rhostream.pipeline.corpora.labels import LabelParser, derive_classes, label_text
from rhostream.pipeline.corpora.splits import checked_splits
from rhostream.pipeline.corpora.tar_files import find_tars
from rhostream.pipeline.corpora.tar_members import DamagedTarError, Member, tar_members
from rhostream.pipeline.manifest import Manifest

#: WebDataset's rule: the key ends at the first dot of the file's own name.
_KEY_AND_EXTENSION: Final = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_TEXT_MEMBERS: Final = ("cls", "json", "txt")


@dataclass(frozen=True, kw_only=True)
class WebDatasetOptions:
    """Attributes:
    label: where the label is: "cls" or "txt" (the member's text), or "json.<field>".
    images: extensions of images; a sample with several uses the first one here.
    extra: fields of the .json to keep in the index, or "txt" for the text of the .txt; a list keeps them as text,
        a table gives each its Arrow type (`{ sender_id = "int64" }`).
    splits: official splits by the name of the tar: a glob, and "train", "val" or "test".
    on_bad_tar: "error" stops at a damaged tar; "skip" keeps the samples before the damage and refuses the tar
        itself as one entry, `truncated`.
    """

    label: str = "cls"
    images: tuple[str, ...] = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
    extra: tuple[str, ...] | dict[str, str] = ()
    splits: dict[str, str] = field(default_factory=dict)
    on_bad_tar: Literal["error", "skip"] = "error"


@dataclass(kw_only=True, slots=True)
class _Sample:
    tar: str
    key: str
    members: dict[str, Member]
    texts: dict[str, bytes]

    @property
    def source(self) -> str:
        return f"{self.tar}/{self.key}"


class WebDatasetTars:
    """Every sample (consecutive members with one key) is an entry, its source `<tar>/<key>`.

    The root is a folder, searched for `*.tar` at any depth, or a glob or brace pattern (`shards/{000..127}.tar`). A
    sample without image is refused as `missing`. Beside a tar of img2dataset its Parquet file adds the URLs that failed
    (`download_failed`), and those said to be in the tar which are not (`missing`). Members other than images, .cls,
    .json and .txt are never read.
    """

    Options = WebDatasetOptions

    def __init__(self, manifest: Manifest, options: WebDatasetOptions) -> None:
        self._base, self._tars = find_tars(manifest)
        self._options = options
        self._splits = checked_splits(options.splits, "[options] splits")
        member, _, self._label_field = options.label.partition(".")
        if member not in _TEXT_MEMBERS or (member == "json") != bool(self._label_field):
            raise ConfigError(f"[options] label = {options.label!r}: choose cls, txt or json.<field>")
        self._label_member = member
        self._extra = _typed(options.extra)
        self.extra_columns: Mapping[str, pa.DataType] = {extra_column_name(n): t for n, t in self._extra.items()}
        self._texts = {member} | {"txt" if name == "txt" else "json" for name in self._extra}
        self.classes = manifest.classes or self._derived_classes()

    def entries(self) -> Iterator[Entry]:
        parser = LabelParser(self.classes)
        for tar in self._tars:
            split = next((split for glob, split in self._splits.items() if fnmatch(tar, glob)), None)
            keys: set[str] = set()
            try:
                for sample in self._samples(tar):
                    keys.add(sample.key)
                    yield self._entry(sample, split, parser)
            except DamagedTarError as error:
                if self._options.on_bad_tar == "error":
                    raise self._bad_tar(tar, error) from error
                yield Entry(source=tar, split=split, reason="truncated", detail=str(error))
            status = (self._base / tar).with_suffix(".parquet")
            for key, reason, detail in failed_and_missing(status, keys):
                yield Entry(source=f"{tar}/{key}", key=key, split=split, reason=reason, detail=detail)

    def read(self, entry: Entry) -> bytes:
        tar, offset, size = entry.locator
        with (self._base / str(tar)).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def _entry(self, sample: _Sample, split: str | None, parser: LabelParser) -> Entry:
        image = next((sample.members[ext] for ext in self._options.images if ext in sample.members), None)
        if image is None:
            detail = f"no image among its members {', '.join(sample.members)}"
            return Entry(source=sample.source, key=sample.key, split=split, reason="missing", detail=detail)
        fields = _json_fields(sample)
        label, reason, detail = parser.parse(self._raw_label(sample, fields))
        return Entry(
            source=sample.source,
            key=sample.key,
            split=split,
            label=label,
            reason=reason,
            detail=detail,
            extra={extra_column_name(name): _value(sample, fields, name, kind) for name, kind in self._extra.items()},
            locator=(sample.tar, image.offset, image.size),
        )

    def _raw_label(self, sample: _Sample, fields: Mapping[str, Any]) -> Any:
        if self._label_field:
            return fields.get(self._label_field)
        text = sample.texts.get(self._label_member)
        return None if text is None else text.decode("utf-8", "backslashreplace")

    def _derived_classes(self) -> tuple[str, ...]:
        texts: set[str | None] = set()
        for tar in self._tars:
            try:
                texts.update(label_text(self._raw_label(sample, _json_fields(sample))) for sample in self._samples(tar))
            except DamagedTarError as error:
                if self._options.on_bad_tar == "error":
                    raise self._bad_tar(tar, error) from error
        return derive_classes(texts, f"{self._options.label} in the tars of {self._base}")

    def _samples(self, tar: str) -> Iterator[_Sample]:
        sample: _Sample | None = None
        with (self._base / tar).open("rb") as stream:
            try:
                for member in tar_members(stream):
                    match = _KEY_AND_EXTENSION.fullmatch(member.name)
                    if match is None:
                        continue
                    key, extension = _printable(match[1]), match[2].lower()
                    if sample is None or sample.key != key or extension in sample.members:
                        if sample is not None:
                            yield sample
                        sample = _Sample(tar=tar, key=key, members={}, texts={})
                    sample.members[extension] = member
                    if extension in self._texts:
                        sample.texts[extension] = os.pread(stream.fileno(), member.size, member.offset)
            except DamagedTarError:
                if sample is not None:
                    yield sample
                raise
        if sample is not None:
            yield sample

    def _bad_tar(self, tar: str, error: DamagedTarError) -> CorpusError:
        return CorpusError(
            f"{self._base / tar}: {error}; fetch the tar again, or keep what is before the damage with "
            'on_bad_tar = "skip" in [options]'
        )


def _typed(extra: tuple[str, ...] | Mapping[str, str]) -> dict[str, pa.DataType]:
    """Each extra field with its Arrow type."""
    if not isinstance(extra, Mapping):
        return dict.fromkeys(extra, pa.string())
    types = {}
    for name, alias in extra.items():
        try:
            types[name] = pa.type_for_alias(alias)
        except ValueError as error:
            raise ConfigError(
                f"[options] extra: {name} = {alias!r} is no type; choose string, int64, double or bool"
            ) from error
    return types


def _json_fields(sample: _Sample) -> Mapping[str, Any]:
    """The sample's .json; empty where there is none or it is not a JSON object."""
    try:
        fields = json.loads(sample.texts.get("json", b"{}"))
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _value(sample: _Sample, fields: Mapping[str, Any], name: str, kind: pa.DataType) -> Any:
    """The value of an extra column, None where the sample does not have it."""
    if name == "txt":
        text = sample.texts.get("txt")
        value: Any = None if text is None else text.decode("utf-8", "backslashreplace")
    else:
        value = fields.get(name)
    if value is None:
        return None
    if kind == pa.string():
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError) as error:
        raise CorpusError(
            f"{sample.source}: {name} = {value!r} is not {kind}; declare it as string in [options] extra"
        ) from error


def _printable(name: str) -> str:
    """A member's name with bytes that are not UTF-8 as backslash escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
