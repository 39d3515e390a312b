"""Tokens: beside every shard, the token ids of each text, so that ten candidates cost little more than one.

`tokens/<name>/rows/<shard>.parquet` is row-aligned with the shard, `tokens/<name>/tokens.json` is written last.
"""

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from rhostream.errors import Remedy, Stage, WorkspaceError
from rhostream.loaders.decode import InputSpec, TextSpec
from rhostream.loaders.index.corpus_metadata import SHARD_DIGEST_KEY, CorpusMetadata, ShardRows
from rhostream.loaders.index.shard_list import ShardList
from rhostream.loaders.storage import UnreadableError, Workspace
from rhostream.schema import TOKENS

#: Metadata of a part's Parquet, beside `SHARD_DIGEST_KEY`: `Tokens.name`, and SHA-256 of the tokenizer file.
TOKENIZER_KEY: Final = b"rhostream.tokenizer"


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """`tokens/<name>/tokens.json`.

    Attributes:
        spec: what the ids were made by, see `TextSpec.to_dict`.
        fingerprint: of the corpus they were made for.
        splits: those of which every shard is there.
        rows, ids: texts of these splits, and their tokens.
    """

    name: str
    spec: dict[str, Any]
    fingerprint: str
    splits: tuple[str, ...]
    rows: int
    ids: int

    @classmethod
    def read(cls, workspace: Workspace, name: str) -> "Tokens":
        """Raises WorkspaceError where it is damaged, or of other tokens."""
        found = workspace.read_record(tokens_file(name), cls)
        with workspace.reading(tokens_file(name)):
            if found.name != name:
                raise UnreadableError(f"is of the tokens {found.name!r}")
        return found


def tokens_name(spec: TextSpec) -> str:
    """For instance "128-words", or "128-" and the first digits of the tokenizer file's SHA-256."""
    return f"{spec.length}-{spec.sha256[:16] or spec.tokenizer}"


def stored_tokens(workspace: Workspace, corpus: CorpusMetadata, spec: InputSpec, shards: ShardList) -> str | None:
    """Name of the tokens that `spec` asks for, if they are stored of all these shards; else None."""
    if not isinstance(spec, TextSpec) or callable(spec.tokenizer):
        return None
    name = tokens_name(spec)
    if not workspace.exists(tokens_file(name)):
        return None
    found = Tokens.read(workspace, name)
    whole = found.fingerprint == corpus.fingerprint and {*shards.splits} <= {*found.splits}
    return name if whole else None


def read_tokens(workspace: Workspace, name: str, rows: ShardRows) -> pa.ListArray:
    """Token ids of the texts of one shard, a list of int32 for each, in its order.

    Raises:
        WorkspaceError: they are missing, or were made of another shard than `rows` describes.
    """
    file = tokens_part(name, rows.shard.name)
    remedy = tokens_remedy(workspace, rows.shard.split)
    if not workspace.exists(file):
        raise WorkspaceError(f"{workspace.path(file)} is missing", remedy)
    table = workspace.read_table(file, schema=TOKENS)
    made_of = table.schema.metadata or {}
    fits = made_of.get(SHARD_DIGEST_KEY) == rows.shard.digest.encode() and made_of.get(TOKENIZER_KEY) == name.encode()
    if not fits or not table.column("key").combine_chunks().equals(rows.keys):
        raise WorkspaceError(f"{workspace.path(file)} is of other texts than shard {rows.shard.name} holds", remedy)
    return table.column("ids").combine_chunks()


def tokens_remedy(workspace: Workspace, split: str = "train") -> Remedy:
    """What makes the tokens of a split anew."""
    return Remedy(Stage.TOKENS, workspace.location, {"split": split, "overwrite": True})


def tokens_file(name: str) -> str:
    return f"tokens/{name}/tokens.json"


def tokens_rows(name: str) -> str:
    return f"tokens/{name}/rows"


def tokens_part(name: str, shard: str) -> str:
    return f"{tokens_rows(name)}/{shard}.parquet"
