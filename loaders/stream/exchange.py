"""What the processes of a job tell one another: a few bytes each, in turns that all of them take."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist

from rhostream.errors import ConfigError, OtherRankError
from rhostream.loaders.stream.ranks import Ranks

T = TypeVar("T")

#: While one process works for all, an IL model is cross-fitted, say, the others wait. One that ends is noticed at once.
_PATIENCE: Final = timedelta(days=1)


class Exchange:
    """Messages between the processes of a job, over gloo, in a process group of its own; trivial for one process.

    Args:
        alone: this process tells nobody, whatever the job.
        members: the first processes of the job, so many, which alone tell one another; None for all.

    Its methods are called by all processes in the same order. What one of them fails at, all are told of: whoever is
    about to wait for the others would else wait for ever.
    """

    def __init__(self, *, alone: bool = False, members: int | None = None) -> None:
        self._alone, self._members = alone or members == 1, members
        self._of: tuple[Any, Any] | None = None  # the job's process group, and our own

    @property
    def size(self) -> int:
        """Processes of the job."""
        if self._alone or not (dist.is_available() and dist.is_initialized()):
            return 1
        return self._members or dist.get_world_size()

    @property
    def rank(self) -> int:
        """This one's number among them."""
        return dist.get_rank() if self.size > 1 else 0

    def join(self) -> None:
        """Make the process group: done by the first message, but for messages that another thread is to send."""
        self.group  # noqa: B018 - made when it is first asked for

    def of_device(self) -> Any:
        """A process group of the same processes for tensors on their devices."""
        if self._members is None:
            return dist.group.WORLD
        return dist.new_group(list(range(self._members)), use_local_synchronization=True)

    def together(self, ranks: Ranks, work: Callable[[], bytes], size: int) -> list[bytes]:
        """What `work` gives on each data-parallel rank; `size` bytes at most, padded by zeros.

        Args:
            ranks: this process's own, and how many there are; of its peers the first one counts.

        Raises:
            OtherRankError: it failed in another process. In that one its own error is raised.
            ConfigError: the processes are not the ranks that they are said to be.
        """
        if self.size == 1:
            if ranks.size > 1:
                raise ConfigError(
                    f"{ranks.size} ranks and no process group: call torch.distributed.init_process_group() before the "
                    "first batch is asked for"
                )
            return [work()]
        at = ranks.rank.to_bytes(4, "little")
        told: dict[int, bytes] = {}
        for message in self._told(lambda: at + work(), 4 + size):
            told.setdefault(int.from_bytes(message[:4], "little"), message[4:])
        if sorted(told) != list(range(ranks.size)):
            raise ConfigError(
                f"of {ranks.size} data-parallel ranks the processes say that they are {sorted(told)}: give every "
                "process its own dp_rank, and all the same dp_world_size"
            )
        return [told[rank] for rank in range(ranks.size)]

    def same(self, work: Callable[[], bytes], size: int, what: str) -> None:
        """Compare what `work` gives in all processes, peers included; `size` bytes.

        Args:
            what: differs, for the message.

        Raises:
            ConfigError: it is not the same everywhere.
            OtherRankError: as of `together`.
        """
        if self.size == 1:
            work()
            return
        told = self._told(work, size)
        if differing := [rank for rank, message in enumerate(told) if message != told[0]]:
            raise ConfigError(
                f"{what} differ between rank 0 and rank {differing[0]}: start all processes with the same workspace, "
                "settings and state"
            )

    def gathered(self, message: bytes) -> list[bytes]:
        """The messages of all processes, of one length, in the order of their ranks."""
        if self.size == 1:
            return [message]
        own = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own, group=self.group)
        return [each.numpy().tobytes() for each in found]

    def objects(self, value: object) -> list[Any]:
        """The value of each process, in the order of their ranks; whatever pickles, for what is asked seldom."""
        return self._objects(value) if self.size > 1 else [value]

    def in_step(self, work: Callable[[], T]) -> T:
        """What `work` gives here, once it has been done in all processes; no other message is sent meanwhile.

        Raises:
            OtherRankError: it failed in another process. In that one its own error is raised.
        """
        if self.size == 1:
            return work()
        done: list[T] = []

        def told() -> bytes:
            done.append(work())
            return b""

        self._told(told, 0)
        return done[0]

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of these numbers over the processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self.group)
        return [float(each) for each in total]

    def wait(self) -> None:
        """Until all processes have come here."""
        self.gathered(b"\0")

    def _told(self, work: Callable[[], bytes], size: int) -> list[bytes]:
        """What `work` gives in each process."""
        try:
            told = work()
        except Exception as error:
            self.gathered(bytes([True]) + bytes(size))
            self._objects(f"{type(error).__name__}: {error}")
            raise
        found = self.gathered(bytes([False]) + told + bytes(size - len(told)))
        if any(each[0] for each in found):
            rank, reason = next(told for told in enumerate(self._objects(None)) if told[1] is not None)
            raise OtherRankError(f"rank {rank} has failed ({reason})")
        return [each[1:] for each in found]

    def _objects(self, value: object) -> list[Any]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    @property
    def group(self) -> Any:
        """The process group; None for one process."""
        if self.size == 1:
            return None
        world = dist.group.WORLD
        if self._of is None or self._of[0] is not world:
            if self._members is None:
                self._of = world, dist.new_group(backend="gloo", timeout=_PATIENCE)
            else:
                members = list(range(self._members))
                self._of = world, dist.new_group(members, _PATIENCE, backend="gloo", use_local_synchronization=True)
        return self._of[1]
