"""The samples of a WebDataset tar: consecutive members with one key, and which are image, text, label and extra."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import IO, Any, Final

import pyarrow as pa

from rhostream.errors import ConfigError, CorpusError
from rhostream.loaders.decode import image_format
from rhostream.pipeline.config import TaskName, WebDatasetOptions
from rhostream.pipeline.corpora.columns import extra_column_name
from rhostream.pipeline.corpora.labels import without_surrogates
from rhostream.pipeline.corpora.tars.members import Damage, DamagedTarError, Member, tar_members

#: WebDataset's rule: the key ends at the first dot of the file's own name.
_KEY_AND_EXTENSION: Final = re.compile(r"(?:\./)?((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
#: What webdataset passes over, as it is about the tar: __meta__.json is of a sample, __meta__/a.json is not.
_ABOUT_THE_TAR: Final = re.compile(r"__[^/]*__(?:/.*)?", re.DOTALL)
_TEXT_MEMBERS: Final = ("cls", "json", "txt")
_MEMBERS_NAMED = 6  # in one message
_MAGIC_BYTES: Final = 32  # at least as many as `image_format` looks at
_MOST_TEXT_BYTES: Final = {"cls": 1 << 16, "txt": 1 << 20, "json": 1 << 22}
_MOST_IMAGE_BYTES: Final = 1 << 28
_STRAY: Final = ""  # the extension of an image that belongs to no sample


@dataclass(kw_only=True)
class TarSample:
    """One sample of a tar: its members by extension (lower case)."""

    key: str
    members: dict[str, Member]

    def text(self, extension: str) -> str | None:
        """The text of a member; None where it is not there or was not read."""
        member = self.members.get(extension)
        if member is None or member.content is None:
            return None
        return member.content.decode("utf-8", "backslashreplace")

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """Its .json; empty where there is none or it is not a JSON object."""
        try:
            fields = json.loads(self.text("json") or "{}")
        except (ValueError, RecursionError):
            return {}
        return fields if isinstance(fields, dict) else {}


class SampleReader:
    """Finds the samples of tars, and in each its image, its label and its extra columns, as the options say.

    Raises:
        ConfigError: options that cannot be.
    """

    def __init__(self, options: WebDatasetOptions, task: TaskName = "classification") -> None:
        is_pairs = task == "pairs"
        member, _, self._label_field = options.label.partition(".")
        if member not in _TEXT_MEMBERS or (member == "json") != bool(self._label_field):
            raise ConfigError(f"[options] label = {options.label!r}: choose cls, txt or json.<field>")
        if options.separator and task != "multi_label":
            raise ConfigError(
                f"[options] separator = {options.separator!r} is of multi-label corpora: leave it out, or say "
                'task = "multi_label"'
            )
        text = options.text or ("txt" if is_pairs else "")
        text_member, _, self._text_field = text.partition(".")
        if text and (text_member not in ("txt", "json") or (text_member == "json") != bool(self._text_field)):
            raise ConfigError(f"[options] text = {text!r}: choose txt or json.<field>")
        if text and text == options.label and not is_pairs:
            raise ConfigError(f"[options] text and label are both {text!r}: name the places of both")
        #: What a sample has; the index tells where the first one lies.
        self.fields = ("image", "text") if is_pairs else ("text",) if text else ("image",)
        self.field = self.fields[0]
        self._text_member = text_member
        self._label_member = text_member if is_pairs else member
        self._images = options.images
        self._on_bad_tar = options.on_bad_tar
        self._extra, self._task = _typed(options.extra), task
        types = {extra_column_name(name, task): kind for name, kind in self._extra.items()}
        self.extra_columns: Mapping[str, pa.DataType] = types
        self._texts = {self._label_member} | {"txt" if name == "txt" else "json" for name in self._extra}

    def samples(self, stream: IO[bytes], *, contents: bool = False) -> Iterator[TarSample | Damage]:
        """Every sample of a tar, with what tells its label, and its image or text where `contents` says so.

        An image whose name gives it no extension is a sample by itself, which has no image: see `without_content`. With
        `on_bad_tar = "skip"` damage comes between the samples; of the ones beside it members may be missing.

        Raises:
            DamagedTarError: after the samples before the damage; of the last of these, members may be missing.
        """
        sample: TarSample | None = None
        try:
            for member in tar_members(
                stream, partial(self._bytes_wanted, contents), skip_damage=self._on_bad_tar == "skip"
            ):
                if isinstance(member, Damage):
                    yield member
                    continue
                key, extension = _key_and_extension(member.name)
                if not extension:
                    if image_format(member.content or b"") is not None:
                        yield TarSample(key=_valid(member.name.removeprefix("./")), members={_STRAY: member})
                    continue
                if sample is None or sample.key != key or extension in sample.members:
                    if sample is not None:
                        yield sample
                    sample = TarSample(key=key, members={})
                sample.members[extension] = member
        except DamagedTarError:
            if sample is not None:
                yield sample
            raise
        if sample is not None:
            yield sample

    def _bytes_wanted(self, contents: bool, name: str) -> int:
        extension = _key_and_extension(name)[1]
        if not extension:
            return _MAGIC_BYTES
        if extension in self._texts:
            return _MOST_TEXT_BYTES[extension]
        if contents and extension == self._text_member:
            return _MOST_TEXT_BYTES[extension]
        return _MOST_IMAGE_BYTES if contents and self.field == "image" and extension in self._images else 0

    def oversized(self, sample: TarSample) -> tuple[str, str] | None:
        """(reason, detail) of a sample with a member of more bytes than are ever read; None where there is none."""
        content = self.content(sample)
        if self.field == "text" and content is not None and content.size > _MOST_TEXT_BYTES[self._text_member]:
            most = _MOST_TEXT_BYTES[self._text_member]
            return "too_long", f"its {self._text_member} has {content.size} bytes; at most {most} are read"
        for extension, member in sample.members.items():
            most = _MOST_IMAGE_BYTES if extension in self._images else _MOST_TEXT_BYTES.get(extension, member.size)
            if (extension in self._images or extension in self._texts) and member.size > most:
                reason = "decompression_bomb" if extension in self._images else self._too_long
                return reason, f"its {extension} has {member.size} bytes; at most {most} are read"
        return None

    @property
    def _too_long(self) -> str:
        """The reason of a sample whose label or caption is of too many bytes."""
        return "too_long" if len(self.fields) > 1 else "label_unknown"

    def content(self, sample: TarSample) -> Member | None:
        """The member that is, or holds, the sample's image or text; None where it has none, see `without_content`."""
        if self.field == "text":
            return sample.members.get(self._text_member)
        return next((sample.members[ext] for ext in self._images if ext in sample.members), None)

    def text_in(self, member: bytes) -> bytes:
        """The text of a sample, of the whole member that holds it; empty where that has none."""
        if not self._text_field:
            return member
        try:
            found = json.loads(member)[self._text_field]
        except (ValueError, RecursionError, KeyError, TypeError):
            return b""
        return found.encode("utf-8", "surrogatepass") if isinstance(found, str) else b""

    def without_content(self, sample: TarSample) -> list[tuple[str, str]]:
        """(name, detail) of every entry that a sample without image or text stands for.

        There is one, but for images with a dot in their names: "cat.1.jpg" and "cat.2.jpg" are members "1.jpg" and
        "2.jpg" of one sample "cat" to webdataset.
        """
        if self.field == "text":
            members = ", ".join(list(sample.members)[:_MEMBERS_NAMED])
            return [(sample.key, f"no {self._text_member} among its members {members}")]
        if _STRAY in sample.members:
            detail = (
                "an image that is of no sample to webdataset: its name needs an extension, no dot in front, and no "
                "folder such as __meta__"
            )
            return [(sample.key, detail)]
        dotted = [ext for ext in sample.members if ext.rpartition(".")[2] in self._images]
        if dotted:
            detail = "webdataset ends a key at the first dot of a name: {ext!r} is no image of sample {key!r} to it"
            return [(f"{sample.key}.{ext}", detail.format(ext=ext, key=sample.key)) for ext in dotted]
        named = ", ".join(list(sample.members)[:_MEMBERS_NAMED])
        more = len(sample.members) - _MEMBERS_NAMED
        return [(sample.key, f"no image among its members {named}{f' and {more} more' if more > 0 else ''}")]

    def label(self, sample: TarSample) -> Any:
        """As the tar says it; None where it does not."""
        return sample.fields.get(self._label_field) if self._label_field else sample.text(self._label_member)

    def caption(self, sample: TarSample) -> bytes | str | None:
        """Of a pair, as the tar says it; None where it does not."""
        if self._text_field:
            found = sample.fields.get(self._text_field)
            return found if isinstance(found, str) else None
        member = sample.members.get(self._text_member)
        return None if member is None else member.content or b""

    def extra(self, sample: TarSample, source: str) -> dict[str, Any]:
        """The values of the extra columns, None where the sample does not have them.

        Raises:
            CorpusError: a value is not of the declared type.
        """
        fields = sample.fields
        return {
            extra_column_name(name, self._task): _value(
                sample.text("txt") if name == "txt" else fields.get(name), kind, name, source
            )
            for name, kind in self._extra.items()
        }


def _key_and_extension(name: str) -> tuple[str, str]:
    """("", "") for a file that belongs to no sample."""
    match = _KEY_AND_EXTENSION.fullmatch(name)
    if match is None or _ABOUT_THE_TAR.fullmatch(name):
        return "", ""
    return _valid(match[1]), match[2].lower()


def _valid(name: str) -> str:
    """Bytes that are not UTF-8, and lone surrogates, become backslash escapes."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return without_surrogates(name)


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


def _value(value: Any, kind: pa.DataType, name: str, source: str) -> Any:
    if value is None:
        return None
    if kind == pa.string():
        return without_surrogates(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise CorpusError(
            f"{source}: {name} = {value!r} is not {kind}; declare it as string in [options] extra"
        ) from error
