"""The order of candidates: a function of (seed, epoch) and the index alone (design invariant 7)."""

import numpy as np
from hypothesis import given, settings, strategies as st

from rhostream.loaders.stream.order import EpochOrder, Rounds, shuffled
from rhostream.loaders.stream.ranks import Chunks


def sequence(order: EpochOrder, start: int = 0) -> list[tuple[int, int]]:
    """(block, row of the block) at every position from `start` on."""
    found = []
    for position in range(start, len(order)):
        block, first = order.block_at(position)
        found.append((block, int(order.rows_of(block)[position - first])))
    return found


def test_a_shuffle_is_a_permutation_set_by_its_streams_numbers():
    base = shuffled(1000, 3, 5)
    assert sorted(base) == list(range(1000))
    assert np.array_equal(base, shuffled(1000, 3, 5))
    for other in (shuffled(1000, 3, 6), shuffled(1000, 4, 5), shuffled(1000, 5, 3), shuffled(1000, 3)):
        assert not np.array_equal(base, other)


def test_a_shuffle_leaves_no_trace_of_the_old_order():
    moved = shuffled(20_000, 0, 1)
    assert abs(np.corrcoef(np.arange(20_000), moved)[0, 1]) < 0.03
    assert (np.diff(moved) == 1).mean() < 0.001


def test_the_order_is_pinned_against_upgrades_of_numpy():
    assert shuffled(8, 0, 0).tolist() == [4, 0, 1, 7, 6, 2, 5, 3]


@settings(deadline=None)
@given(rows=st.lists(st.integers(1, 30), min_size=1, max_size=12), block=st.integers(1, 5), epoch=st.integers(0, 3))
def test_every_sample_comes_once_an_epoch(rows, block, epoch):
    order = EpochOrder(rows, seed=7, epoch=epoch, block_shards=block)
    found = sequence(order)
    assert len(found) == len(set(found)) == sum(rows) == len(order)
    shards = [shard for number in range(-(-len(rows) // block)) for shard in order.shards_of(number)]
    assert sorted(shards) == list(range(len(rows)))


@settings(deadline=None)
@given(
    total=st.integers(1, 400),
    size=st.integers(1, 40),
    start=st.integers(0, 399),
    last=st.sampled_from(["keep", "drop"]),
)
def test_super_batches_take_the_sequence_without_repeats(total, size, start, last):
    start = min(start, total)
    rounds = Rounds(start=start, total=total, size=size, last=last)
    spans = [rounds.bounds(turn) for turn in range(len(rounds))]
    assert all(begin < end <= begin + size + 2 for begin, end in spans)
    given_out = [position for begin, end in spans for position in range(begin, end)]
    assert given_out == list(range(start, total - rounds.dropped))
    assert rounds.dropped == (0 if last == "keep" else (total - start) % size)


@settings(deadline=None)
@given(candidates=st.integers(0, 200), chunk_size=st.none() | st.integers(2, 80), ranks=st.integers(1, 6))
def test_chunks_share_out_every_candidate_and_do_not_follow_ranks(candidates, chunk_size, ranks):
    chunks = Chunks.of(candidates, chunk_size, ranks)
    positions = [chunks.positions(rank).tolist() for rank in range(ranks)]
    assert sorted({position for each in positions for position in each}) == list(range(candidates))
    assert {len(chunks.scored_by(rank)) for rank in range(ranks)} == {chunks.passes}
    for rank, read in enumerate(positions):
        held = np.flatnonzero(chunks.holders(np.arange(candidates)) == rank).tolist()
        assert set(held) <= set(read)
    sizes = [len(range(chunk, candidates, chunks.count)) for chunk in range(chunks.count)]
    if candidates >= 2:
        assert min(sizes) >= 2
    if chunk_size is not None:
        assert chunks.count == Chunks.of(candidates, chunk_size, 1).count
        assert max(sizes) <= max(chunk_size, 3)  # of an odd number three go together, sooner than one alone
