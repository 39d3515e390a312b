"""The token ids of one shard, in a Parquet that is row-aligned with it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.errors import UndecodableError, WorkspaceError
from rhostream.loaders.decode import TextSpec, decode_text, read_stored, tokenizer_of
from rhostream.loaders.index import (
    SHARD_DIGEST_KEY,
    TOKENIZER_KEY,
    Shard,
    ShardRows,
    read_shard_rows,
    tokens_name,
    tokens_part,
    tokens_rows,
    undecodable,
)
from rhostream.loaders.storage import ShardReader
from rhostream.pipeline.jobs import Advance, Maker, ShardUnit
from rhostream.schema import TOKENS

_TEXTS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class TokenMaker(Maker[ShardUnit, int]):
    """Makes the tokens of shards; the same bytes in any process."""

    spec: TextSpec

    @property
    def name(self) -> str:
        return tokens_name(self.spec)

    @property
    def folder(self) -> str:
        """What the worker processes hold."""
        return tokens_rows(self.name)

    def made(self, shard: Shard) -> int | None:
        """Number of the ids of this shard as it is now; None where they must be made (again)."""
        try:
            part = tokens_part(self.name, shard.name)
            found = self.workspace.read_schema(part, TOKENS).metadata or {}
            if any(found.get(name) != value for name, value in self._metadata(shard).items()):
                return None
            ids = self.workspace.read_table(part, ["ids"], TOKENS).column("ids")
        except (FileNotFoundError, WorkspaceError):
            return None
        return int(pc.sum(pc.list_value_length(ids)).as_py() or 0)

    def __call__(self, unit: ShardUnit, advance: Advance) -> int:
        """Write the tokens of this shard; returns their number.

        Raises:
            ShardError: a text cannot be read, or is not the one that the index describes.
        """
        rows = read_shard_rows(self.workspace, unit.shard)
        tokenizer, reader = tokenizer_of(self.spec, self.workspace), ShardReader(self.workspace)
        ids, lengths = [np.zeros(0, np.int32)], [0]
        for start in range(0, len(rows), _TEXTS_AT_ONCE):
            numbers = range(start, min(start + _TEXTS_AT_ONCE, len(rows)))
            texts = [self._text(reader, rows, number) for number in numbers]
            found = tokenizer.ids(texts, self.spec.length)
            ids += found
            lengths += map(len, found)
            advance(len(numbers))
        lists = pa.ListArray.from_arrays(pa.array(np.cumsum(lengths, dtype=np.int32)), pa.array(np.concatenate(ids)))
        table = pa.table({"key": rows.keys, "ids": lists}, schema=TOKENS.with_metadata(self._metadata(unit.shard)))
        self.workspace.write_table(tokens_part(self.name, unit.shard.name), table)
        return sum(lengths)

    def _metadata(self, shard: Shard) -> dict[bytes, bytes]:
        return {SHARD_DIGEST_KEY: shard.digest.encode(), TOKENIZER_KEY: self.name.encode()}

    def _text(self, reader: ShardReader, rows: ShardRows, row: int) -> str:
        if rows.texts is not None:
            return str(rows.texts[row].as_py())
        offset, size, expected = int(rows.offsets[row]), int(rows.sizes[row]), rows.hashes[row].as_py()
        try:
            return decode_text(read_stored(reader, rows.shard.tar, offset, size, expected), max_bytes=size)
        except UndecodableError as error:
            raise undecodable(self.workspace, rows.shard, row, str(error)) from error
