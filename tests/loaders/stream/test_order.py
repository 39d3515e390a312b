"""The order of candidates: a function of (seed, epoch) and the index alone (design invariant 7)."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from rhostream.loaders.stream.order import EpochOrder, Rounds, shuffled


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
    ranks=st.integers(1, 5),
    start=st.integers(0, 399),
    last=st.sampled_from(["keep", "drop"]),
)
def test_every_rank_gets_as_many_super_batches_without_repeats(total, size, ranks, start, last):
    start = min(start, total)
    if 0 < total - start < ranks:
        start = 0
    if total < ranks:
        return
    rounds = Rounds(start=start, total=total, size=size, ranks=ranks, last=last)
    spans = [rounds.bounds(turn, rank) for turn in range(len(rounds)) for rank in range(ranks)]
    assert all(begin < end <= begin + size + 2 for begin, end in spans)
    given_out = [position for begin, end in spans for position in range(begin, end)]
    assert given_out == list(range(start, total - rounds.dropped))
    assert rounds.dropped == (0 if last == "keep" else (total - start) % (size * ranks))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_the_sequence_is_the_same_for_any_number_of_ranks(ranks):
    rounds = Rounds(start=0, total=997, size=32, ranks=ranks, last="keep")
    positions = [
        position
        for turn in range(len(rounds))
        for rank in range(ranks)
        for position in range(*rounds.bounds(turn, rank))
    ]
    assert positions == list(range(997))
