"""`rho tokenize`: beside every shard, the token ids of each text, which the stream reads in place of the texts."""

import time
from dataclasses import asdict, dataclass

from rhostream.errors import ConfigError
from rhostream.loaders.decode import keep_tokenizer
from rhostream.loaders.index import CorpusMetadata, Tokens, tokens_file, tokens_part
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import TokenizeConfig
from rhostream.pipeline.jobs import (
    chosen_engine,
    exclusive_lock,
    make_shards,
    shards_asked_for,
    units_due,
    units_of,
    whole_splits,
)
from rhostream.pipeline.shards import remove_own
from rhostream.pipeline.tokens.maker import TokenMaker


@dataclass(frozen=True, kw_only=True)
class TokensSummary:
    """What is stored.

    Attributes:
        name, splits, rows, ids: see `Tokens`.
        shards, shards_made: shards of these splits, and how many of them this run has made.
    """

    workspace: str
    name: str
    splits: tuple[str, ...]
    rows: int
    ids: int
    shards: int
    shards_made: int
    seconds: float


def write_tokens(workspace: Workspace | str, config: TokenizeConfig) -> TokensSummary:
    """Write the tokens of every shard that has no valid ones yet and, last, `tokens/<name>/tokens.json`.

    Run again after an interruption, it makes the shards that are missing; the result is the same, byte for byte.
    Splits that were asked for earlier stay.

    Raises:
        ConfigError: the corpus has images, or there is no such tokenizer.
        WorkspaceError: no finished corpus, no such split, or another process is making them.
        ShardError: a text cannot be read, or is not the one that the index describes.
    """
    begin = time.monotonic()
    workspace = Workspace(workspace)
    corpus = CorpusMetadata.read(workspace)
    if "text" not in corpus.fields:
        raise ConfigError(f"workspace {workspace.location!r} has images, not texts: make thumbnails of them")
    spec = corpus.text_spec(config.tokenizer, config.text_length)
    engine = chosen_engine(config.engine, config.workers)
    asked = shards_asked_for(workspace, corpus, config.splits)
    maker = TokenMaker(workspace=workspace, spec=spec)
    locked = exclusive_lock(workspace, "rho tokenize", f"tokens/{maker.name}", workers=maker.folder, engine=engine)
    with locked:
        keep_tokenizer(workspace, spec)
        due = units_due(
            units_of(asked, engine), lambda shard: maker.made(shard) is not None, overwrite=config.overwrite
        )
        make_shards(maker, due, engine, f"tokens {maker.name}")
        ids = whole_splits(corpus, maker.made)
        if not engine.is_shared or set(config.splits) <= set(ids):
            kept = {tokens_part("", shard.name).rpartition("/")[2] for shard in corpus.shards}
            remove_own(workspace, {maker.folder: kept})
        made = Tokens(
            name=maker.name,
            spec=spec.to_dict(),
            fingerprint=corpus.fingerprint,
            splits=tuple(ids),
            rows=corpus.split(*ids).samples,
            ids=sum(map(sum, ids.values())),
        )
        if made.splits:
            workspace.write_json(tokens_file(maker.name), asdict(made))
    return TokensSummary(
        workspace=workspace.location,
        name=made.name,
        splits=made.splits,
        rows=made.rows,
        ids=made.ids,
        shards=len(corpus.split(*ids)),
        shards_made=len(due),
        seconds=time.monotonic() - begin,
    )
