"""Where a stream is, in this process and in the workers of a DataLoader."""

from dataclasses import dataclass, replace

import torch
from torch.utils.data import get_worker_info

from rhostream.errors import ConfigError

MAX_WORKERS = 1024  # of a DataLoader


@dataclass(frozen=True)
class EpochPass:
    """One pass over the rest of an epoch.

    Attributes:
        epoch, position: where it began.
        turn: of its next super-batch, counted from there; None for the first of this process.
        written: how often the main process had set the position when it began.
        resumed: it was loaded, and has not begun.
    """

    epoch: int
    position: int
    turn: int | None
    written: int
    resumed: bool = False


class StreamPosition:
    """Epoch and position of the next super-batch.

    The main process alone sets it; the memory is shared with the processes of a DataLoader, so that `set_epoch` reaches
    workers that persist. Each of these is somewhere else, which its own `EpochPass` tells.
    """

    def __init__(self) -> None:
        # Epoch, position, and how often they were set.
        self._at = torch.zeros(3, dtype=torch.int64, device="cpu").share_memory_()
        # Of each worker: how often the position had been set when its last pass began.
        self._begun = torch.full((MAX_WORKERS,), -1, dtype=torch.int64, device="cpu").share_memory_()
        self._pass: EpochPass | None = None  # of a worker
        self._loaded: int | None = None  # the epoch of a state from which nothing has been read on

    @property
    def now(self) -> tuple[int, int]:
        """Epoch and position that the main process has set or reached."""
        epoch, position, _ = self._at.tolist()
        return epoch, position

    @property
    def known(self) -> tuple[int, int]:
        """The same, for a main process that is asked where to resume.

        Raises:
            ConfigError: workers have read on from there, and it cannot know how far.
        """
        if bool((self._begun == self._at[2]).any()):
            raise ConfigError(
                "this stream is read by the workers of a DataLoader, and cannot tell here how far they are: save the "
                "`state` of the last SuperBatch, or use StatefulDataLoader"
            )
        return self.now

    @property
    def of_worker(self) -> tuple[int, int, int | None]:
        """Epoch and position where this worker's pass began, and the turn after its last super-batch."""
        if self._pass is None or self._pass.written != int(self._at[2]):
            return (*self.now, None)
        return self._pass.epoch, self._pass.position, self._pass.turn

    def go_to(self, epoch: int, position: int) -> None:
        self._at.copy_(torch.tensor([epoch, position, int(self._at[2]) + 1], device="cpu"))

    def set_epoch(self, epoch: int) -> None:
        """To the beginning of this epoch, unless a state in its middle was loaded and not read on from."""
        begun = bool((self._begun == self._at[2]).any())
        if epoch != self._loaded or begun:
            self._loaded = None
            self.go_to(epoch, 0)

    def load(self, epoch: int, position: int, turn: int | None) -> None:
        """To where a state points; `turn` is that of a worker."""
        if get_worker_info() is not None:
            # StatefulDataLoader restores its workers one by one; where the others are is none of this one's business.
            self._pass = EpochPass(epoch, position, turn, written=int(self._at[2]), resumed=True)
        elif turn is not None:
            raise ConfigError(
                "this state is that of one worker of a DataLoader: load the state of a SuperBatch, which serves any "
                "number of workers, or let StatefulDataLoader load it"
            )
        else:
            self.go_to(epoch, position)
            self._loaded = epoch

    def begin(self) -> tuple[int, int, int, int]:
        """Begin a pass: its epoch and position, the first turn of this process, and the step to its next ones.

        Raises:
            ConfigError: this worker has begun a pass from here before.
        """
        epoch, position, written = self._at.tolist()
        worker = get_worker_info()
        if worker is None:
            self._loaded = None
            return epoch, position, 0, 1
        first = worker.id
        if self._pass is not None and self._pass.resumed and self._pass.written == written:
            epoch, position = self._pass.epoch, self._pass.position
            first = first if self._pass.turn is None else self._pass.turn
        elif self._begun[worker.id] == written:
            raise ConfigError(
                f"epoch {epoch} has been streamed already, or a part of it: call stream.set_epoch(epoch) before each "
                "pass over a DataLoader with workers, or it would repeat the same order"
            )
        if (epoch, position) == self.now:  # else a loaded pass, which StatefulDataLoader ends before it begins its own
            self._begun[worker.id] = written
        self._pass = EpochPass(epoch, position, first, written)
        return epoch, position, first, worker.num_workers

    def give_out(self, turn: int, then: tuple[int, int], stride: int) -> None:
        """The super-batch of this turn is given out; `then` is the epoch and position after it."""
        if self._pass is not None:
            self._pass = replace(self._pass, turn=turn + stride)
        else:
            self.go_to(*then)
