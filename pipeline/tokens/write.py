"""`rho tokenize`: beside every shard, the token ids of each text, which the stream reads in place of the texts."""

import time
from dataclasses import asdict, dataclass

from rhostream.errors import ConfigError, WorkspaceError
from rhostream.loaders.decode import TextSpec, keep_tokenizer
from rhostream.loaders.index import CorpusMetadata, Shard, Tokens, tokens_file, tokens_part
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import TokenizeConfig
from rhostream.pipeline.jobs import chosen_engine, exclusive_lock, make_units, progress
from rhostream.pipeline.shards import remove_own
from rhostream.pipeline.tokens.maker import ShardToTokenize, TokenMaker


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
    spec = corpus.input_spec(tokenizer=config.tokenizer, text_length=config.text_length)
    if not isinstance(spec, TextSpec):
        raise ConfigError(f"workspace {workspace.location!r} has {spec.field}s, not texts: make thumbnails of them")
    asked = _asked_for(workspace, corpus, config)
    maker = TokenMaker(workspace=workspace, spec=spec)
    with exclusive_lock(workspace, "rho tokenize", f"tokens/{maker.name}", workers=maker.folder):
        keep_tokenizer(workspace, spec)
        due = [shard for shard in asked if config.overwrite or maker.made(shard) is None]
        engine = chosen_engine("local", config.workers)
        units = [ShardToTokenize(number=number, shard=shard) for number, shard in enumerate(due)]
        with progress(f"tokens {maker.name}", sum(shard.rows for shard in due), "samples") as bar:
            for _ in make_units(maker, units, engine=engine, advance=bar.advance):
                pass
        remove_own(
            workspace, {maker.folder: {tokens_part("", shard.name).rpartition("/")[2] for shard in corpus.shards}}
        )
        found = _whole_splits(maker, corpus)
        made = Tokens(
            name=maker.name,
            spec=spec.to_dict(),
            fingerprint=corpus.fingerprint,
            splits=tuple(found),
            rows=sum(shard.rows for shard in corpus.split(*found)),
            ids=sum(found.values()),
        )
        workspace.write_json(tokens_file(maker.name), asdict(made))
    return TokensSummary(
        workspace=workspace.location,
        name=made.name,
        splits=made.splits,
        rows=made.rows,
        ids=made.ids,
        shards=len(corpus.split(*found)),
        shards_made=len(due),
        seconds=time.monotonic() - begin,
    )


def _asked_for(workspace: Workspace, corpus: CorpusMetadata, config: TokenizeConfig) -> tuple[Shard, ...]:
    known = {shard.split for shard in corpus.shards}
    for split in config.splits:
        if split not in known:
            raise WorkspaceError(
                f"workspace {workspace.location!r} has no split {split!r}; there is {', '.join(sorted(known))}: name "
                "one of those"
            )
    return corpus.split(*config.splits)


def _whole_splits(maker: TokenMaker, corpus: CorpusMetadata) -> dict[str, int]:
    """Number of the ids of every split of which no shard is missing."""
    counts: dict[str, list[int | None]] = {}
    for shard in corpus.shards:
        counts.setdefault(shard.split, []).append(maker.made(shard))
    known = {split: [count for count in found if count is not None] for split, found in counts.items()}
    return {split: sum(found) for split, found in sorted(known.items()) if len(found) == len(counts[split])}
