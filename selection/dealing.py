"""Which rank trains on which of the chosen candidates."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rhostream.errors import ConfigError


def dealt(
    holders: npt.NDArray[np.int64], ranks: int, *, waiting: Sequence[int] = (), batch_size: int | None = None
) -> npt.NDArray[np.int64]:
    """int64 (m,): the rank that each of the chosen goes to, each batch in even shares.

    A rank gets what it has read, as far as that is even: else it would be read once more.

    Args:
        holders: int64 (m,), the rank that has read each.
        waiting: the ranks of what waits in the queue before these.
        batch_size: n_b, by which the queue is cut into batches; None where these make one batch, whatever their number.
    """
    owners = np.zeros(len(holders), np.int64)
    if ranks == 1:
        return owners
    size = batch_size or len(holders)
    start, place = 0, len(waiting)
    while start < len(holders):
        begun = place % size
        stop = min(len(holders), start + size - begun)
        share, longer = divmod(size, ranks)
        room = [share + (rank < longer) for rank in range(ranks)]
        for owner in waiting[len(waiting) - begun :] if start == 0 and begun else ():
            room[owner] -= 1
        left = []
        for at in range(start, stop):
            holder = int(holders[at])
            if room[holder] > 0:
                owners[at], room[holder] = holder, room[holder] - 1
            else:
                left.append(at)
        for at in left:
            emptiest = max(range(ranks), key=lambda rank: room[rank])
            owners[at], room[emptiest] = emptiest, room[emptiest] - 1
        start, place = stop, place + stop - start
    return owners


def require_shares(batch_size: int, ranks: int) -> None:
    """Raises ConfigError where a batch cannot be dealt out evenly."""
    if batch_size % ranks:
        raise ConfigError(
            f"batch_size {batch_size} is not a multiple of the {ranks} ranks that share it out: give "
            f"{batch_size - batch_size % ranks or ranks}, or another multiple"
        )
