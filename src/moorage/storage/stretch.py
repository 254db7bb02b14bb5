"""Bytes of an open file for the kernel to send, without the event loop waiting for a disk."""

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

NOWAIT: Final = getattr(os, "RWF_NOWAIT", None)  # Linux: fail rather than wait for the disk
# Whole pages that fit into one segment of the loopback, 65,483 bytes: else a rest would go as a segment of its own.
_PIECE: Final = 15 * 4096
_FETCHED: Final = 1024 * 1024  # bytes brought into memory at once


class FileStretch:
    """The bytes from ``position`` up to ``stop`` (exclusive) of the file that ``descriptor`` has open, and closes."""

    def __init__(self, descriptor: int, start: int, stop: int, threads: ThreadPoolExecutor) -> None:
        self._descriptor = descriptor
        self._socket: int | None = None
        self.position = start
        self.stop = stop
        self._threads = threads
        self._fetched = start  # what is before it was just read
        self._byte = bytearray(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)
        if self._socket is not None:
            os.close(self._socket)

    def into(self, socket: int) -> int:
        """Send into ``socket`` from now on, under another descriptor: the answer, closed when the context is left."""
        self._socket = os.dup(socket)
        return self._socket

    def at_hand(self) -> bool:
        """Whether the next byte is in the page cache, so that the kernel can send on without waiting."""
        if self.position < self._fetched:
            return True
        if NOWAIT is None:
            return False
        try:
            os.preadv(self._descriptor, [self._byte], self.position, NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return False
            raise
        return True

    async def fetch(self) -> None:
        """Bring what comes next into the page cache."""
        size = min(_FETCHED, self.stop - self.position)
        await asyncio.get_running_loop().run_in_executor(
            self._threads, os.pread, self._descriptor, size, self.position
        )
        self._fetched = self.position + size

    def send(self) -> int:
        """Send a piece, as many bytes of it as there is room for: how many."""
        assert self._socket is not None  # noqa: S101  asked for before
        end = min(self.stop, self.position - self.position % _PIECE + _PIECE)
        count = os.sendfile(self._socket, self._descriptor, self.position, end - self.position)
        self.position += count
        return count
