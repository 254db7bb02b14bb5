"""Bytes in this process's memory: for tests and for registries that end with their process."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from moorage.storage.base import Key, Piece, new_key


class _MemoryWriter:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, pieces: Sequence[bytes]) -> None:
        self.pieces.extend(pieces)


class MemoryBlobStore:
    """A ``BlobStore`` in a dictionary; the bytes are gone when it is."""

    def __init__(self) -> None:
        self._objects: dict[Key, bytes] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncIterator[_MemoryWriter]:
        writer = _MemoryWriter()
        yield writer
        self._objects[key] = b"".join(writer.pieces)

    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        if piece := self._get(key)[start:stop]:
            yield piece

    def stretch(self, key: Key, start: int, stop: int) -> None:  # noqa: ARG002  there is no file
        return None

    async def size(self, key: Key) -> int:
        return len(self._get(key))

    async def compose(self, keys: Sequence[Key]) -> Key:
        if len(keys) == 1:
            return keys[0]
        into = new_key()
        self._objects[into] = b"".join(self._get(key) for key in keys)
        return into

    async def delete(self, keys: Sequence[Key]) -> None:
        for key in keys:
            self._objects.pop(key, None)

    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        for key in tuple(self._objects):
            if key.startswith(prefix):
                yield key

    async def url(self, key: Key, expires: float) -> str | None:  # noqa: ARG002  only this process has the bytes
        return None

    def _get(self, key: Key) -> bytes:
        try:
            return self._objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None
