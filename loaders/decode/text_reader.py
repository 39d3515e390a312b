"""Token ids of stored texts: read by offset and tokenized, by threads."""

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from rhostream.errors import UndecodableError
from rhostream.loaders.decode.chunk import Failures
from rhostream.loaders.decode.read_options import ReadOptions
from rhostream.loaders.decode.stored import read_stored
from rhostream.loaders.decode.stored_refs import StoredRefs
from rhostream.loaders.decode.text_spec import NO_TOKEN, TextSpec
from rhostream.loaders.decode.texts import decode_text
from rhostream.loaders.decode.tokenizers import Ids, Tokenizer, tokenizer_of
from rhostream.loaders.storage import ShardReader, Workspace

#: Token ids of n texts, int32 (n, longest), `NO_TOKEN` after the end of each.
Tokens = npt.NDArray[np.int32]

_LEAST_IN_CHUNK: Final = 64

#: Of a chunk: the ids and the text of each.
_Chunk = tuple[list[Ids], list[str], Failures]


class PendingTexts:
    """Texts that are being read.

    Attributes:
        texts: the raw ones, known after `result`.
    """

    texts: list[str] | None = None

    def __init__(self, reader: "TextReader", chunks: "Sequence[tuple[int, Future[_Chunk]]]") -> None:
        self._reader, self._chunks = reader, chunks

    def result(self) -> tuple[Tokens, Failures]:
        """Wait for them.

        Returns:
            Token ids, and (position, reason) of the texts that cannot be read; their rows are empty.

        Raises:
            ShardError: a tar has vanished or is truncated.
            concurrent.futures.CancelledError: the reader was closed before.
        """
        done = [(start, *chunk.result()) for start, chunk in self._chunks]
        self.texts = [text for _, _, some, _ in done for text in some]
        ids = [each for _, some, _, _ in done for each in some]
        return padded(ids), [(start + at, reason) for start, _, _, failed in done for at, reason in failed]


class TextReader:
    """Reads stored texts and makes token ids of them. Safe for threads and after a fork."""

    def __init__(self, workspace: Workspace, read_options: ReadOptions = ReadOptions()) -> None:
        self._workspace, self._read_options = workspace, read_options
        self._engine: _Engine | None = None
        self._starting = threading.Lock()

    def submit(self, refs: StoredRefs, spec: TextSpec, *, urgent: bool = False) -> PendingTexts:
        """Begin to read these texts.

        Args:
            urgent: few of them; remote tars are not copied for them (`ShardReader.read`).

        Raises:
            ConfigError: the spec's tokenizer is not there.
        """
        return PendingTexts(self, self._started().submit(refs, spec, urgent))

    def tokenize(self, texts: Sequence[str], spec: TextSpec) -> PendingTexts:
        """Begin to make ids of texts that are there already.

        Raises:
            ConfigError: the spec's tokenizer is not there.
        """
        return PendingTexts(self, self._started().tokenize(list(texts), spec))

    def close(self) -> None:
        """End the threads; what is not begun is given up."""
        if self._engine is not None:
            self._engine.close()

    def _started(self) -> "_Engine":
        with self._starting:
            engine = self._engine
            if engine is None or engine.pid != os.getpid():
                engine = self._engine = _Engine(self._workspace, self._read_options)
                weakref.finalize(self, engine.close)
        return engine


class _Engine:
    """The threads, in the process that made them."""

    def __init__(self, workspace: Workspace, read_options: ReadOptions) -> None:
        self.pid = os.getpid()
        self._workspace, self._shards = workspace, ShardReader(workspace)
        self._count = read_options.decoders()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="rhostream-texts")
        self._tokenizers: dict[tuple[str, int], Tokenizer] = {}

    def submit(self, refs: StoredRefs, spec: TextSpec, urgent: bool) -> "list[tuple[int, Future[_Chunk]]]":
        tokenizer = self._tokenizer(spec)
        length = max(_LEAST_IN_CHUNK, -(-len(refs) // self._count))
        return [
            (start, self._pool.submit(self._read, refs.take(slice(start, start + length)), spec, tokenizer, urgent))
            for start in range(0, len(refs), length)
        ]

    def tokenize(self, texts: list[str], spec: TextSpec) -> "list[tuple[int, Future[_Chunk]]]":
        tokenizer = self._tokenizer(spec)

        def ids(some: list[str]) -> _Chunk:
            return tokenizer.ids(some, spec.length), some, []

        length = max(_LEAST_IN_CHUNK, -(-len(texts) // self._count))
        return [
            (start, self._pool.submit(ids, texts[start : start + length])) for start in range(0, len(texts), length)
        ]

    def close(self) -> None:
        if os.getpid() == self.pid:  # a fork has not the threads
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _tokenizer(self, spec: TextSpec) -> Tokenizer:
        if callable(spec.tokenizer):
            return tokenizer_of(spec)
        at = (spec.tokenizer, spec.length)
        if at not in self._tokenizers:
            self._tokenizers[at] = tokenizer_of(spec, self._workspace)
        return self._tokenizers[at]

    def _read(self, refs: StoredRefs, spec: TextSpec, tokenizer: Tokenizer, urgent: bool) -> _Chunk:
        texts: list[str] = []
        failures: Failures = []
        where = zip(refs.numbers.tolist(), refs.offsets.tolist(), refs.sizes.tolist(), strict=True)
        for position, (number, offset, size) in enumerate(where):
            expected = None if refs.hashes is None else refs.hashes[position]
            try:
                data = read_stored(self._shards, refs.tars[number], offset, size, expected, whole=not urgent)
                texts.append(decode_text(data, max_bytes=size))
            except UndecodableError as error:
                failures.append((position, str(error)))
                texts.append("")
        return tokenizer.ids(texts, spec.length), texts, failures


def padded(ids: Sequence[Ids]) -> Tokens:
    """int32 (n, longest), at least one column."""
    lengths = np.array([len(each) for each in ids], np.int64)
    longest = max(1, int(lengths.max())) if len(ids) else 1
    tokens = np.full((len(ids), longest), NO_TOKEN, np.int32)
    if lengths.any():
        tokens[np.arange(longest) < lengths[:, None]] = np.concatenate(ids)
    return tokens
