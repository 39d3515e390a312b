"""Messages between this process and one it has started, over a pair of sockets, with open files as attachments."""

import pickle
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

_HEAD: Final = struct.Struct("<Q?")  # bytes that follow, and whether a file comes along
_SECONDS_BETWEEN_LOOKS: Final = 1.0


class Channel:
    """One end. The other one's end or death is an `EOFError`, never a wait without end.

    Args:
        connection: a stream socket; closed with the channel.
        is_alive: does the process at the other end still run? Asked every second while there is nothing to read, as
            some third process, forked meanwhile, may hold the other end open.
    """

    def __init__(self, connection: socket.socket, is_alive: Callable[[], bool]) -> None:
        connection.settimeout(_SECONDS_BETWEEN_LOOKS)
        self._socket, self._is_alive = connection, is_alive
        self._read = bytearray()
        self._files: deque[int] = deque()

    def send(self, message: Any, file: int | None = None) -> None:
        """Send what `pickle` can, and an open file descriptor."""
        content = pickle.dumps(message, protocol=5)
        data = memoryview(_HEAD.pack(len(content), file is not None) + content)
        while data:
            if file is None:
                sent = self._try(self._socket.send, data)
            else:  # it travels with the first bytes
                sent = self._try(socket.send_fds, self._socket, [data], [file])
            if sent is not None:
                data, file = data[sent:], None

    def receive(self) -> tuple[Any, int | None]:
        """The next message, and the file descriptor that came with it, which is now the receiver's to close."""
        self._read_up_to(_HEAD.size)
        size, with_file = _HEAD.unpack_from(self._read)
        end = _HEAD.size + size
        self._read_up_to(end)
        message = pickle.loads(self._read[_HEAD.size : end])
        del self._read[:end]
        return message, self._files.popleft() if with_file else None

    def has_message(self) -> bool:
        """Is there something to read, or has the other end gone?"""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(self._read or poll.poll(0))

    def close(self) -> None:
        self._socket.close()

    def _read_up_to(self, count: int) -> None:
        while len(self._read) < count:
            got = self._try(socket.recv_fds, self._socket, 1 << 16, 1)
            if got is not None:
                data, files, _, _ = got
                if not data:
                    raise EOFError
                self._read += data
                self._files.extend(files)

    def _try(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Its result; None where there was nothing to do for a second."""
        try:
            return operation(*arguments)
        except TimeoutError:
            if not self._is_alive():
                raise EOFError from None
            return None
        except OSError as error:
            raise EOFError from error
