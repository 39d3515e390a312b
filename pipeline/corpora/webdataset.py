"""WebDataset tars written by others, those of img2dataset included."""

from collections.abc import Iterator
from fnmatch import fnmatch

from rhostream.errors import CorpusError
from rhostream.loaders.storage import UnreadableError, open_file, read_file
from rhostream.pipeline.config import Manifest, WebDatasetOptions
from rhostream.pipeline.corpora.base import Entry, Label
from rhostream.pipeline.corpora.captions import parse_caption
from rhostream.pipeline.corpora.labels import Parser, derive_classes, label_parser, label_texts
from rhostream.pipeline.corpora.splits import checked_splits
from rhostream.pipeline.corpora.tars.files import find_tars
from rhostream.pipeline.corpora.tars.img2dataset import failed_and_missing
from rhostream.pipeline.corpora.tars.members import Damage, DamagedTarError
from rhostream.pipeline.corpora.tars.samples import SampleReader, TarSample


class WebDatasetTars:
    """Every sample (consecutive members with one key) is an entry, its source `<tar>/<key>`.

    The root is a folder, searched for `*.tar` at any depth, or a glob or brace pattern (`shards/{000..127}.tar`). A
    sample without image is refused as `missing`; under the option `text` samples have texts in place of images. Beside
    a tar of img2dataset its Parquet file adds the URLs that failed (`download_failed`), and those said to be in the tar
    which are not (`missing`). Members other than images, .cls, .json and .txt are never read. The label of a
    multi-label sample is a list in its .json, or a text that the option `separator` splits. A pair is an image and the
    caption in its .txt, or in a field of its .json; without one it is refused as `caption_missing`.
    """

    Options = WebDatasetOptions

    def __init__(self, manifest: Manifest, options: WebDatasetOptions) -> None:
        self._base, self._tars = find_tars(manifest)
        self._options, self._task, self._max_text_bytes = options, manifest.task, manifest.max_text_bytes
        self._splits = checked_splits(options.splits, "[options] splits")
        self._reader = SampleReader(options, manifest.task)
        self.fields = self._reader.fields
        self.extra_columns = self._reader.extra_columns
        self.classes = manifest.classes or (() if manifest.task == "pairs" else self._derived_classes())

    def entries(self) -> Iterator[Entry]:
        parser = label_parser(self.classes, self._task, self._options.separator)
        for tar in self._tars:
            split = next((split for glob, split in self._splits.items() if fnmatch(tar, glob)), None)
            keys: set[str] = set()
            for found in self._samples(tar):
                if isinstance(found, Damage):
                    yield Entry(source=f"{tar}/@{found.offset}", split=split, reason="truncated", detail=skipped(found))
                    continue
                keys.add(found.key)
                yield from self._entries(tar, found, split, parser)
            status = (self._base / tar).with_suffix(".parquet")
            if status.is_file():
                for key, reason, detail in failed_and_missing(str(status), read_file(status), keys):
                    yield self._refused(tar, key, split, reason, detail)

    def read(self, entry: Entry) -> bytes:
        tar, offset, size = entry.locator
        with open_file(self._base / str(tar)) as stream:
            stream.seek(offset)
            found: bytes = stream.read(size)
        return self._reader.text_in(found) if self._reader.field == "text" else found

    def _entries(self, tar: str, sample: TarSample, split: str | None, parser: Parser) -> Iterator[Entry]:
        if oversized := self._reader.oversized(sample):
            yield self._refused(tar, sample.key, split, *oversized)
            return
        content = self._reader.content(sample)
        if content is None:
            for name, detail in self._reader.without_content(sample):
                yield self._refused(tar, name, split, "missing", detail)
            return
        label: Label | None
        text = None
        if self._task == "pairs":
            text, reason, detail = parse_caption(self._reader.caption(sample), self._max_text_bytes)
            label = None if text is None else ()
        else:
            label, reason, detail = parser.parse(self._reader.label(sample))
        source = f"{tar}/{sample.key}"
        yield Entry(
            source=source,
            key=sample.key if self._options.keys == "sample" else None,
            split=split,
            label=label,
            text=text,
            reason=reason,
            detail=detail,
            extra=self._reader.extra(sample, source),
            locator=(tar, content.offset, content.size),
        )

    def _refused(self, tar: str, name: str, split: str | None, reason: str, detail: str) -> Entry:
        key = name if self._options.keys == "sample" else None
        return Entry(source=f"{tar}/{name}", key=key, split=split, reason=reason, detail=detail)

    def _derived_classes(self) -> tuple[str, ...]:
        texts: set[str | None] = set()
        for tar in self._tars:
            found = (sample for sample in self._samples(tar) if isinstance(sample, TarSample))
            for sample in found:
                texts.update(label_texts(self._reader.label(sample), self._task, self._options.separator))
        return derive_classes(texts, f"{self._options.label} in the tars of {self._base}")

    def _samples(self, tar: str) -> Iterator[TarSample | Damage]:
        try:
            with open_file(self._base / tar) as stream:
                yield from self._reader.samples(stream)
        except UnreadableError as error:
            raise CorpusError(
                f"{self._base / tar} {error.cause}: {error.remedy or 'name a tar, or restore it'}"
            ) from error
        except DamagedTarError as error:
            raise bad_tar(str(self._base / tar), error) from error


def bad_tar(tar: str, error: DamagedTarError) -> CorpusError:
    """What a damaged tar means to the user."""
    return CorpusError(
        f'{tar}: {error}; fetch the tar again, or keep what is whole with on_bad_tar = "skip" in [options] '
        "(rho index: --on-bad-tar skip)"
    )


def skipped(damage: Damage) -> str:
    """The detail of a reject that stands for bytes of a tar."""
    return f"{damage.size} bytes from byte {damage.offset} on belong to no member that can be told: {damage.cause}"
