"""A decoding process: reads, decodes and fills buffers shared with the process that has started it.

`python -m rhostream.loaders.decode.process_main SOCKET PARENT` serves an inherited socket until its other end is gone.
"""

import contextlib
import mmap
import os
import pickle
import signal
import socket
import sys
import traceback

import numpy as np

from rhostream.errors import RhostreamError
from rhostream.loaders.decode.channel import Channel
from rhostream.loaders.decode.chunk import Failures, decode_chunk
from rhostream.loaders.decode.process import DecodeRequest
from rhostream.loaders.storage import ShardReader


def serve(channel: Channel) -> None:
    """Do the tasks as they come; `EOFError` where there will be none any more."""
    shards: ShardReader = channel.receive()[0]
    channel.send("ready")
    buffers: dict[int, mmap.mmap] = {}
    while True:
        task, file = channel.receive()
        if file is not None:
            buffers[task.buffer] = mmap.mmap(file, os.fstat(file).st_size)
            os.close(file)
        for number in task.gone:
            del buffers[number]
        channel.send(_do(task, shards, buffers[task.buffer]))


def _do(task: DecodeRequest, shards: ShardReader, memory: mmap.mmap) -> Failures | BaseException:
    count = int(np.prod(task.shape))
    pixels = np.frombuffer(memory, np.uint8, count, task.start).reshape(task.shape)
    try:
        return decode_chunk(shards, task.refs(), task.augmentation, pixels, whole=task.whole)
    except Exception as error:  # noqa: BLE001 - it is raised in the parent
        if not isinstance(error, RhostreamError):
            error.add_note("in a decoding process:\n" + traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - errors may be anything
            return RuntimeError("in a decoding process:\n" + traceback.format_exc())
        return error


def main() -> None:
    # Whoever signals a whole job means its trainer, which may want to take one more step: this process ends with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = int(sys.argv[2])
    with contextlib.suppress(EOFError):
        serve(Channel(socket.socket(fileno=int(sys.argv[1])), lambda: os.getppid() == parent))
    os._exit(0)  # at once: nothing of this process is needed any more


if __name__ == "__main__":
    main()
