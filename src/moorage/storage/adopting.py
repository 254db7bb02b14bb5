"""A place for bytes that also reads those in a storage tree of distribution, which it never writes to.

    <place>/blobs/sha256/ab/ab12cd…/data      in the tree, is read under the key ab/sha256-ab12cd…

A backup that was restored has the bytes under such a key itself: so what the tree lacks is looked for there.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Self

from moorage.spec.errors import StorageUnavailable
from moorage.storage.base import BlobStore, Key, Piece, Stretch, Writer, in_tree
from moorage.storage.trees import Tree, data_path, storage_place


class AdoptingBlobStore:
    """``own``, and the bytes in ``tree``, which it opens and closes both; ``called`` is how errors name the tree."""

    def __init__(self, own: BlobStore, tree: Tree, called: str) -> None:
        self._own = own
        self._tree = tree
        self._called = called
        self._place: str
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._own)
            await stack.enter_async_context(self._tree)
            place = await storage_place(self._tree)
            if place is None:
                raise RuntimeError(f"{self._called}: no storage tree of distribution (docker/registry/v2) is there")
            self._place = place
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    def write(self, key: Key) -> AbstractAsyncContextManager[Writer]:
        return self._own.write(key)

    def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        return self._from_tree(key, start, stop) if in_tree(key) else self._own.read(key, start, stop)

    async def _from_tree(self, key: Key, start: int, stop: int | None) -> AsyncGenerator[Piece]:
        try:
            async with aclosing(self._tree.read(self._path(key), start, stop)) as pieces:
                async for piece in pieces:
                    start += len(piece)
                    yield piece
        except FileNotFoundError:
            await self._lacking(key)
        else:
            return
        async with aclosing(self._own.read(key, start, stop)) as others:
            async for each in others:
                yield each

    def stretch(self, key: Key, start: int, stop: int) -> Stretch | None:
        return None if in_tree(key) else self._own.stretch(key, start, stop)

    async def size(self, key: Key) -> int:
        if not in_tree(key):
            return await self._own.size(key)
        found = await self._tree.size(self._path(key))
        return await self._lacking(key) if found is None else found

    async def _lacking(self, key: Key) -> int:
        """The size of what the tree lacks and ``own`` has; raises ``StorageUnavailable`` where the tree is away."""
        try:
            return await self._own.size(key)
        except FileNotFoundError:
            if await storage_place(self._tree) != self._place:  # a mount that is gone, say: nothing is lost
                raise StorageUnavailable(detail={"reason": f"{self._called}: the tree is not there"}) from None
            raise

    async def compose(self, keys: Sequence[Key]) -> Key:
        return await self._own.compose(keys)

    async def delete(self, keys: Sequence[Key]) -> None:
        await self._own.delete(keys)

    def list(self, prefix: str = "") -> AsyncIterator[Key]:
        return self._own.list(prefix)

    async def url(self, key: Key, expires: float) -> str | None:
        return None if in_tree(key) else await self._own.url(key, expires)

    def _path(self, key: Key) -> str:
        algorithm, _, encoded = key.rpartition("/")[2].partition("-")
        return data_path(self._place, algorithm, encoded)
