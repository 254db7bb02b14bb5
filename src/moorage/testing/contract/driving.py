"""Runs a contract's tests: each opens the backend, and what a test leaves behind fails it."""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from moorage.metadata.base import Metadata
from moorage.storage.base import BlobStore, Key, new_key

TIMEOUT: Final = 120.0  # seconds for one test; whatever hangs is broken


def with_store(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that pytest calls with the fixture ``store``: opened, empty before and empty after."""

    @functools.wraps(test)
    def driven(self: Any, store: BlobStore, **parameters: Any) -> None:
        async def drive() -> None:
            async with asyncio.timeout(TIMEOUT), store:
                assert await keys(store) == set(), "the fixture must give an empty store"
                try:
                    await test(self, store, **parameters)
                except BaseException:
                    await store.delete(list(await keys(store)))  # the next test starts empty
                    raise
                left = await keys(store)
                await store.delete(list(left))
                assert left == set(), "left behind"

        asyncio.run(drive())

    return driven


def with_metadata(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test that pytest calls with the fixture ``metadata``, opened; the fixture gives an empty one each time."""

    @functools.wraps(test)
    def driven(self: Any, metadata: Metadata, **parameters: Any) -> None:
        async def drive() -> None:
            async with asyncio.timeout(TIMEOUT), metadata:
                await test(self, metadata, **parameters)

        asyncio.run(drive())

    return driven


async def keys(store: BlobStore, prefix: str = "") -> set[Key]:
    """The keys that a store lists, each of them once."""
    listed = [key async for key in store.list(prefix)]
    assert len(listed) == len(set(listed)), "a key is listed twice"
    return set(listed)


async def put(store: BlobStore, content: bytes | Sequence[bytes], key: Key | None = None) -> Key:
    """Write ``content``, in pieces where it comes so, and return its key."""
    key = key or new_key()
    async with store.write(key) as writer:
        for piece in [content] if isinstance(content, bytes) else content:
            await writer.write([piece])
    return key


async def get(store: BlobStore, key: Key, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes from ``start`` up to ``stop``, gathered before they are joined: no piece changes once handed out."""
    async with aclosing(store.read(key, start, stop)) as reading:
        return b"".join([piece async for piece in reading])


def same(found: object, expected: object) -> bool:
    """Whether both are equal. Compared here, since pytest would explain the difference of megabytes for hours."""
    return found == expected


async def is_absent(store: BlobStore, key: Key) -> bool:
    """Whether nothing is under ``key``, as ``size``, ``read`` and ``list`` say in agreement."""
    found = [await _found(store.size(key)), await _found(get(store, key)), key in await keys(store)]
    assert len(set(found)) == 1, f"size, read, list find it: {found}"
    return not found[0]


async def is_absent_now(store: BlobStore, key: Key) -> bool:
    """Whether ``size`` finds nothing under ``key``."""
    return not await _found(store.size(key))


async def _found(asking: Awaitable[object]) -> bool:
    try:
        await asking
    except FileNotFoundError:
        return False
    return True


def noise(size: int) -> bytes:
    """``size`` bytes that are not twice the same."""
    return secrets.token_bytes(size)
