"""Pairs that share an image or a caption with one on the other side of the split: found when all are there, refused.

Which side a pair is on is decided before the other images are read. Where equal images, or equal captions of few pairs,
have come to stand on both sides, those on one side stay and the others are refused; which these are follows from what
was read and from the seed alone. Of what a run has appended, those on the side of the earlier ones stay.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rhostream.loaders.decode import normalized_hash
from rhostream.loaders.index import read_index
from rhostream.loaders.storage import Workspace
from rhostream.pipeline.config import Manifest
from rhostream.pipeline.jobs import read_ahead
from rhostream.pipeline.shards.captions import MOST_SHARED
from rhostream.pipeline.shards.hash_buckets import HASH, bring_together
from rhostream.pipeline.shards.index_rows import IndexRows, SampleFacts
from rhostream.pipeline.shards.scratch import Scratch
from rhostream.pipeline.shards.unit import PairFacts, UnitRecord, rejects_name, split_of, write_unit
from rhostream.schema import PAIR, REJECTS, samples_of

REASON: Final = "straddling"
_FIELDS: Final = ("image", "text")
_SPLITS: Final = ("train", "holdout")  # what is neither is official
_IMAGE, _CAPTION = 0, 1
_WHAT: Final = ("its image is in the {} split, too, under another caption", "its caption is in the {} split, too")
_AT_ONCE: Final = 8  # units being read
_NONE: Final = normalized_hash("")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A corpus of pairs of which no two that are equal in image or caption stand on both sides of the split.

    Attributes:
        records: of all units.
        common_captions: pairs whose caption more than `MOST_SHARED` have.
    """

    records: list[UnitRecord]
    common_captions: int


def refuse_straddling(
    workspace: Workspace,
    records: Sequence[UnitRecord],
    manifest: Manifest,
    scratch: Scratch,
    *,
    extra_columns: Mapping[str, pa.DataType],
    part_of: Callable[[int], int] = lambda unit: 0,
) -> Settled:
    """Refuse what would straddle, in the indexes and rejects of its units; tars stay as they are.

    Done again, it finds the same pairs, and writes nothing.

    Args:
        records: of all units, by number.
        extra_columns: of the corpus.
        part_of: of a unit the number of the run that made it: of all runs, the first is 0.
    """

    def of_unit(number: int) -> pa.Table:
        rows = _pairs_of(workspace, number, records[number])
        return _grouped(rows, number, part_of(number))

    settled, common = list(records), _Common()
    facts = read_ahead(of_unit, range(len(records)), _AT_ONCE)
    losers = (_losers(rows, manifest, common) for rows in bring_together(facts, scratch))
    for found in bring_together((_by_unit(some) for some in losers if some), scratch):
        for number, of_one in groupby(found.sort_by("unit").to_pylist(), itemgetter("unit")):
            lost = {(each["relation"], each["hash_of"], each["split"]) for each in of_one}
            settled[number] = _without(workspace, number, records[number], lost, extra_columns)
    return Settled(records=settled, common_captions=common.pairs)


class _Common:
    pairs = 0


@dataclass(frozen=True)
class _Loser:
    """Pairs of one unit and side that share an image or a caption, and must go."""

    unit: int
    relation: int
    hash_of: str
    split: str


def _pairs_of(workspace: Workspace, number: int, record: UnitRecord) -> pa.Table:
    """Those that the hash has placed, refused ones too: `key`, `split`, `content_hash`, `text_hash`."""
    columns, facts = ["key", "split", "content_hash", "text_hash"], PairFacts.read(workspace, number)
    shards = [shard for shard, _, _ in record.shards if shard.split in _SPLITS]
    tables = [read_index(workspace, shard, columns).select(columns) for shard in shards]
    gone = [dict(zip(columns, each, strict=True)) for each in facts.straddling]
    schema = pa.schema([pa.field(name, pa.string()) for name in columns])
    rows = pa.concat_tables([*(table.cast(schema) for table in tables), pa.Table.from_pylist(gone, schema)])
    return rows.filter(pc.invert(pc.is_in(rows["key"], pa.array(facts.official, pa.string()))))


def _grouped(rows: pa.Table, number: int, part: int) -> pa.Table:
    """A row for each image, and each caption with a word in it, of each side."""
    captioned = rows.filter(pc.not_equal(rows["text_hash"], _NONE))
    words = np.concatenate([_words(rows["content_hash"]), _words(captioned["text_hash"])])
    holdout = pa.chunked_array([pc.equal(table["split"], "holdout").combine_chunks() for table in (rows, captioned)])
    every = pa.table(
        {
            HASH: words[:, 0],
            "rest": words[:, 1],
            "relation": np.repeat(np.array([_IMAGE, _CAPTION], np.int8), [len(rows), len(captioned)]),
            "holdout": holdout.cast(pa.int8()),
        }
    )
    made = every.group_by([HASH, "rest", "relation", "holdout"]).aggregate([([], "count_all")])
    made = made.rename_columns({"count_all": "pairs"})
    for name, value in (("unit", number), ("part", part)):
        made = made.append_column(name, pa.array(np.full(len(made), value, np.int32)))
    return made


def _words(hashes: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """uint64 (n, 2) of hashes in hexadecimal."""
    found = np.frombuffer(bytes.fromhex("".join(hashes.to_pylist())), ">u8").reshape(-1, 2)
    return found.astype(np.uint64)


def _losers(rows: pa.Table, manifest: Manifest, common: _Common) -> list[_Loser]:
    """What must go of the groups in these rows, each of which they hold as a whole."""
    keys = [HASH, "rest", "relation"]
    groups = rows.group_by(keys).aggregate([("holdout", "min"), ("holdout", "max"), ("pairs", "sum"), ("part", "max")])
    is_common = pc.and_(pc.equal(groups["relation"], _CAPTION), pc.greater(groups["pairs_sum"], MOST_SHARED))
    common.pairs += pc.sum(groups["pairs_sum"].filter(is_common)).as_py() or 0
    both = pc.not_equal(groups["holdout_min"], groups["holdout_max"])
    # A caption may have become common only by what was appended.
    suspects = groups.filter(pc.and_(both, pc.or_(pc.invert(is_common), pc.greater(groups["part_max"], 0))))
    if not len(suspects):
        return []
    wanted = {tuple(row[name] for name in keys) for row in suspects.select(keys).to_pylist()}
    some = rows.filter(pc.is_in(rows[HASH], suspects[HASH].combine_chunks()))
    members = some.sort_by([(name, "ascending") for name in (*keys, "part")]).to_pylist()
    lost: list[_Loser] = []
    for (first, rest, relation), group in groupby(members, itemgetter(*keys)):
        if (first, rest, relation) in wanted:
            lost += _lost(first, rest, relation, group, manifest)
    return lost


def _lost(first: int, rest: int, relation: int, members: Iterable[dict[str, Any]], manifest: Manifest) -> list[_Loser]:
    """Of one image or caption, by part."""
    identity = first.to_bytes(8, "big") + rest.to_bytes(8, "big")
    kept, pairs, lost = "", 0, []
    for _, of_part in groupby(members, itemgetter("part")):
        rows = list(of_part)
        pairs += sum(row["pairs"] for row in rows)
        if relation == _CAPTION and pairs > MOST_SHARED:
            break
        sides = {_SPLITS[row["holdout"]] for row in rows}
        kept = kept or (sides.pop() if len(sides) == 1 else split_of(None, identity, manifest)[0])
        lost += [
            _Loser(row["unit"], relation, identity.hex(), _SPLITS[row["holdout"]])
            for row in rows
            if _SPLITS[row["holdout"]] != kept
        ]
    return lost


def _by_unit(losers: Sequence[_Loser]) -> pa.Table:
    table = pa.Table.from_pylist([vars(each) for each in losers])
    return table.append_column(HASH, pa.array(table["unit"].to_numpy().astype(np.uint64) << np.uint64(32)))


def _without(
    workspace: Workspace,
    number: int,
    record: UnitRecord,
    lost: set[tuple[int, str, str]],
    extra_columns: Mapping[str, pa.DataType],
) -> UnitRecord:
    """The record of a unit without these, written where it was not."""
    rejects = workspace.read_table(rejects_name(number), schema=REJECTS).to_pylist()
    facts = PairFacts.read(workspace, number)
    shards, straddling, official = [], list(facts.straddling), {*facts.official}
    for shard, tar_size, _ in record.shards:
        table = read_index(workspace, shard, [*samples_of(_FIELDS, "pairs").names, *extra_columns])
        rows = IndexRows(
            name=shard.name,
            split=shard.split,
            fold=shard.fold,
            task="pairs",
            fields=_FIELDS,
            extra=extra_columns,
            source=shard.source,
        )
        for row in table.to_pylist():
            said = (row["key"], row["split"], row["content_hash"], row["text_hash"])
            relations = zip((_IMAGE, _CAPTION), said[2:], strict=True)
            found = [relation for relation, hash_of in relations if (relation, hash_of, shard.split) in lost]
            if found and row["key"] not in official:
                straddling.append(said)
                other = _SPLITS[1 - _SPLITS.index(shard.split)]
                detail = _WHAT[found[0]].format(other)
                rejects.append({"source": row["source"], "key": row["key"], "reason": REASON, "detail": detail})
            else:
                _add(rows, row)
        if len(rows):
            shards.append((rows, tar_size))
    if len(straddling) == len(facts.straddling):
        return record
    return write_unit(
        workspace,
        number,
        shards,
        rejects,
        settings=record.settings,
        listing=record.listing,
        tar_sha256={rows.name: record.tar_sha256[rows.name] for rows, _ in shards if rows.name in record.tar_sha256},
        pairs=replace(facts, straddling=tuple(straddling)),
    )


def _add(rows: IndexRows, row: dict[str, Any]) -> None:
    """A row of the index as it was, at its new place."""
    measures = ("width", "height", *(field.name for field in PAIR))
    facts = SampleFacts(
        key=row["key"],
        source=row["source"],
        label=(),
        class_name=(),
        ext=row["ext"],
        measures={name: row[name] for name in measures},
        extra={name: row[name] for name in rows.extra_columns},
        text=row["text"],
    )
    rows.add(facts, offset=row["offset"], size=row["size"], content_hash=row["content_hash"])
