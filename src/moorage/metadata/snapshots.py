"""Whether SQLite would still read what it read before, for a fifth of a microsecond; and the answers kept by that.

SQLite in write-ahead mode decides what a reader sees by the header of the wal-index, the 48 bytes at the start of the
mapped ``-shm`` file: the length of the log, its salts and a running checksum of it (https://sqlite.org/walformat.html).
Each commit of any process changes them, after it was synced and before COMMIT returns. While they are the same, each
read starts from the same snapshot and gives the same rows, so a kept answer is as right as a new one, across workers
too. Nothing is kept while there is no log (its salts are zero): the header would not tell one state from another.

Closing any descriptor of that file drops the locks that this process has on it, SQLite's among them. So one serves
all who look at the same file, and it is closed only after the connections of the last of them.
"""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from moorage.metadata.base import Row

_HEADER: Final = 48
_SALTS: Final = slice(32, 40)
_NO_SALTS: Final = bytes(8)
_MOST_BYTES: Final = 8 * 1024 * 1024
_MOST_ENTRIES: Final = 8192
_LARGEST: Final = 1024 * 1024  # bytes of an answer
_ENTRY: Final = 600  # bytes that one takes beside its content, about

Key = tuple[Any, ...]


class WalIndex:
    """The header of one database's wal-index."""

    _shared: Final[dict[tuple[int, int], "WalIndex"]] = {}

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._users = 0
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE, access=mmap.ACCESS_READ)

    @classmethod
    def of(cls, database: Path) -> "WalIndex | None":
        """That of ``database``, which this process reads already; None where there is none."""
        path = database.with_name(f"{database.name}-shm")
        try:
            found = path.stat()
            identity = found.st_dev, found.st_ino
            index = cls._shared.get(identity)
            if index is None:
                index = cls._shared[identity] = cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except (OSError, ValueError):
            return None
        index._users += 1
        return index

    def header(self) -> bytes:
        """What it is now."""
        return self._map[:_HEADER]

    def has_log(self) -> bool:
        """Whether there is a log, which the header then tells from every other."""
        return self.header()[_SALTS] != _NO_SALTS

    def close(self) -> None:
        """Only to be called after the connections of the caller are closed."""
        self._users -= 1
        if not self._users:
            identity = next(each for each, index in self._shared.items() if index is self)
            del self._shared[identity]
            self._map.close()
            os.close(self._descriptor)


class Answers:
    """What was read from one snapshot, up to a number of bytes and entries; the oldest goes first."""

    def __init__(self, index: WalIndex) -> None:
        self._index = index
        self._header = b""
        self._rows: dict[Key, tuple[Sequence[Row], int]] = {}
        self._size = 0

    def get(self, key: Key) -> Sequence[Row] | None:
        """What SQLite would answer now, if that is known."""
        header = self._index.header()
        if header != self._header:
            self._header, self._rows, self._size = header, {}, 0
            return None
        found = self._rows.get(key)
        return None if found is None else found[0]

    def keep(self, key: Key, rows: Sequence[Row]) -> None:
        """Remember what SQLite answered since ``get`` of the same ``key``."""
        if self._index.header() != self._header or not self._index.has_log():
            return
        size = _ENTRY + sum(len(value) for row in rows for value in row if isinstance(value, str | bytes))
        if size > _LARGEST:
            return
        self._rows[key] = rows, size
        self._size += size
        while self._size > _MOST_BYTES or len(self._rows) > _MOST_ENTRIES:
            self._size -= self._rows.pop(next(iter(self._rows)))[1]
