"""Files that other programs laid out in a bucket, for reading."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final, Self

from moorage.storage.objects import ObjectBlobStore


class BucketTree:
    """The objects below the prefix of ``objects``, which it opens and closes, as files; nothing is written."""

    def __init__(self, objects: ObjectBlobStore, name: str) -> None:
        self._objects = objects
        self.name: Final = name

    async def __aenter__(self) -> Self:
        await self._objects.__aenter__()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._objects.__aexit__(*exception)

    async def entries(self, folder: str) -> Sequence[str]:
        return await self._objects.entries(folder)

    async def size(self, path: str) -> int | None:
        try:
            return await self._objects.size(path)
        except FileNotFoundError:
            return None

    async def read(self, path: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        async with aclosing(self._objects.read(path, start, stop)) as pieces:
            async for piece in pieces:
                yield bytes(piece)
