"""The contract of ``moorage.storage.base.BlobStore``."""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
import hashlib
import socket
import urllib.request
from contextlib import aclosing
from typing import ClassVar

import pytest

from moorage.storage.base import BlobStore, Key, new_key
from moorage.testing.contract.driving import get, is_absent, is_absent_now, keys, noise, put, same, with_store

KIB = 1024
MIB = 1024 * KIB
SIZES = [0, 1, 4095, 128 * KIB, 128 * KIB + 1, 256 * KIB, 3 * MIB + 17]


class BlobStoreContract:
    """The eight verbs of a store. Needs a fixture ``store``: a ``BlobStore``, empty and not opened.

    ``large`` is the size in bytes of the largest object that the suite writes; choose it above the limit where the
    backend starts to work in several parts.
    """

    large: ClassVar[int] = 40 * MIB

    @pytest.mark.parametrize("size", SIZES)
    @with_store
    async def test_what_is_written_is_read(self, store: BlobStore, size: int) -> None:
        content = noise(size)
        key = await put(store, content)
        assert await store.size(key) == size
        assert same(await get(store, key), content)
        assert await keys(store) == {key}
        await store.delete([key])

    @with_store
    async def test_an_object_without_a_write_is_empty(self, store: BlobStore) -> None:
        key = new_key()
        async with store.write(key):
            pass
        assert await store.size(key) == 0
        assert same(await get(store, key), b"")
        await store.delete([key])

    @with_store
    async def test_pieces_keep_their_order(self, store: BlobStore) -> None:
        """Many of them, at once and one by one, large, small and empty; the caller's list is the caller's."""
        pieces = [noise(size % 97) for size in range(3000)] + [noise(700 * KIB), b"", noise(1)]
        key, given = new_key(), list(pieces)
        async with store.write(key) as writer:
            await writer.write(given)
            given.clear()
            await writer.write([])
            for piece in reversed(pieces):
                await writer.write([piece])
        assert same(await get(store, key), b"".join(pieces) + b"".join(reversed(pieces)))
        await store.delete([key])

    @with_store
    async def test_a_large_object(self, store: BlobStore) -> None:
        piece, total, key = noise(MIB), hashlib.sha256(), new_key()
        async with store.write(key) as writer:
            for _ in range(self.large // MIB):
                await writer.write([piece])
                total.update(piece)
        assert await store.size(key) == self.large // MIB * MIB
        seen = hashlib.sha256()
        async with aclosing(store.read(key)) as reading:
            async for each in reading:
                assert each, "an empty piece"
                seen.update(each)
        assert seen.digest() == total.digest()
        await store.delete([key])

    @with_store
    async def test_ranges(self, store: BlobStore) -> None:
        """``start`` and ``stop`` as Python's slices; beyond the end there is nothing, and no error."""
        content = noise(MIB + 3)
        key = await put(store, content)
        marks = [0, 1, 4096, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, MIB, MIB + 2, MIB + 3, MIB + 4, 10 * MIB]
        for start in marks:
            assert same(await get(store, key, start), content[start:])
            for stop in marks:
                if start <= stop:
                    assert same(await get(store, key, start, stop), content[start:stop]), (start, stop)
        await store.delete([key])

    @with_store
    async def test_stretches(self, store: BlobStore) -> None:
        """A backend that gives a stretch of a file gives the bytes that it reads, closed when left; else None."""
        content = noise(5 * MIB)
        key = await put(store, content)
        for start, stop in [(0, 5 * MIB), (1, 4 * MIB + 1), (2 * MIB, 5 * MIB), (3, 4)]:
            for _ in range(400):  # more than a process may have files open, would it not close them
                if (stretch := store.stretch(key, start, stop)) is None:
                    break
                ours, theirs = socket.socketpair()
                with ours, theirs, stretch:
                    assert stretch.into(ours.fileno()) != ours.fileno()
                    if not stretch.at_hand():
                        await stretch.fetch()
                    count = stretch.send()
                    assert (stretch.position, stretch.stop) == (start + count, stop)
                    assert same(theirs.recv(count, socket.MSG_WAITALL), content[start : start + count])
        assert store.stretch(key, 0, 5 * MIB + 1) is None
        await store.delete([key])

    @with_store
    async def test_readers_do_not_disturb_each_other(self, store: BlobStore) -> None:
        content = noise(2 * MIB)
        key = await put(store, content)
        starts = range(0, 2 * MIB, 100_000)
        found = await asyncio.gather(*(get(store, key, start) for start in starts))
        assert same(found, [content[start:] for start in starts])
        await store.delete([key])

    @with_store
    async def test_a_read_may_end_early(self, store: BlobStore) -> None:
        """More often than a process may have files or connections open."""
        key = await put(store, noise(MIB))
        for _ in range(1500):
            async with aclosing(store.read(key)) as reading:
                assert await anext(reading)
        await store.delete([key])

    @with_store
    async def test_writers_side_by_side(self, store: BlobStore) -> None:
        contents = {new_key(): [noise(50_000 + n) for n in range(6)] for _ in range(24)}
        await asyncio.gather(*(put(store, pieces, key) for key, pieces in contents.items()))
        assert await keys(store) == set(contents)
        for key, pieces in contents.items():
            assert same(await get(store, key), b"".join(pieces))
        await store.delete(list(contents))

    @pytest.mark.parametrize("written", [0, 1, 100 * KIB, 6 * MIB])
    @with_store
    async def test_nothing_remains_of_a_write_that_fails(self, store: BlobStore, written: int) -> None:
        class Failed(Exception):
            pass

        key = new_key()

        async def fail() -> None:
            async with store.write(key) as writer:
                for start in range(0, written, MIB):
                    await writer.write([noise(min(MIB, written - start))])
                raise Failed

        with pytest.raises(Failed):
            await fail()
        assert await is_absent(store, key)

    @with_store
    async def test_nothing_remains_of_a_write_that_is_cancelled(self, store: BlobStore) -> None:
        """Whenever that happens: either the writer was left normally and all is there, or nothing is."""
        content = noise(2 * MIB)

        async def write(key: Key, begun: asyncio.Event) -> None:
            async with store.write(key) as writer:
                begun.set()
                for start in range(0, len(content), 128 * KIB):
                    await writer.write([content[start : start + 128 * KIB]])
                    await asyncio.sleep(0)  # as a caller does that waits for the next bytes

        cancelled = 0
        for turn in range(24):
            key, begun = new_key(), asyncio.Event()
            task = asyncio.create_task(write(key, begun))
            await begun.wait()
            if turn:
                await asyncio.sleep((turn - 1) * 0.0005)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                cancelled += 1
                assert await is_absent(store, key)
            else:
                task.result()
                assert same(await get(store, key), content)
                await store.delete([key])
        assert cancelled, "a write cannot be cancelled"

    @with_store
    async def test_nothing_remains_when_it_is_cancelled_twice(self, store: BlobStore) -> None:
        async def write(key: Key, begun: asyncio.Event) -> None:
            async with store.write(key) as writer:
                await writer.write([noise(3 * MIB)])
                begun.set()
                await asyncio.sleep(60)

        for turns in range(6):
            key, begun = new_key(), asyncio.Event()
            task = asyncio.create_task(write(key, begun))
            await begun.wait()
            task.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await _stays_absent(store, key)  # what was under way may take its time to be undone

    @with_store
    async def test_nothing_remains_of_a_write_that_is_cancelled_as_it_ends(self, store: BlobStore) -> None:
        """Nor does what is then undone get into the objects that are written beside it."""

        async def write(key: Key, content: bytes, ending: asyncio.Event) -> None:
            async with store.write(key) as writer:
                await writer.write([content])
                ending.set()

        async def cancelled(turns: int) -> None:
            key, ending = new_key(), asyncio.Event()
            task = asyncio.create_task(write(key, b"cancelled" * 11_000, ending))
            await ending.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                assert await _stays_absent(store, key)
            else:
                task.result()
                await store.delete([key])

        async def kept() -> None:
            key, content = new_key(), noise(99_000)
            await write(key, content, asyncio.Event())
            assert same(await get(store, key), content)
            await store.delete([key])

        for _ in range(30):
            await asyncio.gather(*(cancelled(n % 5) for n in range(24)), *(kept() for _ in range(24)))

    @with_store
    async def test_composing_one_copies_nothing(self, store: BlobStore) -> None:
        content = noise(MIB)
        key = await put(store, content)
        assert await store.compose([key]) == key
        assert await keys(store) == {key}
        assert same(await get(store, key), content)
        await store.delete([key])

    @pytest.mark.parametrize("sizes", [[1, 1], [300 * KIB, 0, 7], [6 * MIB, 5 * MIB, 1], list(range(200))])
    @with_store
    async def test_composing_joins_in_order_and_leaves_the_parts(self, store: BlobStore, sizes: list[int]) -> None:
        contents = [noise(size) for size in sizes]
        parts = [await put(store, content) for content in contents]
        whole = await store.compose(parts)
        assert whole not in parts
        assert await keys(store) == {*parts, whole}
        assert await store.size(whole) == sum(sizes)
        assert same(await get(store, whole), b"".join(contents))
        for part, content in zip(parts, contents, strict=True):
            assert same(await get(store, part), content)
        await store.delete(parts)
        assert same(await get(store, whole, 1), b"".join(contents)[1:])
        await store.delete([whole])

    @with_store
    async def test_ranges_of_what_was_composed(self, store: BlobStore) -> None:
        """Wherever they start and stop: the parts cannot be seen."""
        contents = [noise(2 * MIB), noise(MIB + 3), b"", noise(3 * MIB - 1)]
        parts = [await put(store, each) for each in contents]
        key, content = await store.compose(parts), b"".join(contents)
        await store.delete(parts)
        marks = [0, 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 3 * MIB + 2, 3 * MIB + 3, 3 * MIB + 4, 6 * MIB + 2, 7 * MIB]
        for start in marks:
            assert same(await get(store, key, start), content[start:]), start
            for stop in marks:
                if start <= stop:
                    assert same(await get(store, key, start, stop), content[start:stop]), (start, stop)
        await store.delete([key])

    @with_store
    async def test_composing_what_was_composed(self, store: BlobStore) -> None:
        """It is a part as any other, and none of them is needed any more."""
        contents = [noise(2 * MIB), noise(3 * MIB), noise(MIB), b"end"]
        one, two, three, four = [await put(store, each) for each in contents]
        inner = await store.compose([one, two])
        middle = await store.compose([three, inner])
        outer = await store.compose([middle, four])
        await store.delete([one, two, three, four, inner, middle])
        assert await keys(store) == {outer}
        expected = contents[2] + contents[0] + contents[1] + contents[3]
        assert await store.size(outer) == len(expected)
        assert same(await get(store, outer), expected)
        await store.delete([outer])

    @with_store
    async def test_composing_what_is_absent(self, store: BlobStore) -> None:
        key = await put(store, noise(5 * MIB))
        for wanted in ([key, new_key()], [new_key(), key]):
            with pytest.raises(FileNotFoundError):
                await store.compose(wanted)
        assert await keys(store) == {key}
        await store.delete([key])

    @with_store
    async def test_deleting(self, store: BlobStore) -> None:
        """Gone on return; what is not there is no error; the rest stays."""
        one, other, kept = [await put(store, content) for content in (b"1", b"2", b"3")]
        await store.delete([])
        await store.delete([one, new_key(), other])
        assert await is_absent(store, one)
        assert await is_absent(store, other)
        await store.delete([one, other])
        assert same(await get(store, kept), b"3")
        many = [await put(store, b"x") for _ in range(300)]
        await store.delete(many)
        assert await keys(store) == {kept}
        await asyncio.gather(*(store.delete([kept]) for _ in range(8)))
        parts = [await put(store, noise(MIB)) for _ in range(8)]
        whole = await store.compose(parts)
        await asyncio.gather(*(store.delete([whole, *parts]) for _ in range(8)))
        assert await is_absent(store, whole)

    @with_store
    async def test_a_delete_overtakes_a_read(self, store: BlobStore) -> None:
        """The reader gets the right bytes, as many as there were, or ``FileNotFoundError``; never others."""
        contents = [noise(3 * MIB), noise(3 * MIB), noise(3 * MIB)]
        parts = [await put(store, each) for each in contents]
        whole = await store.compose(parts)
        await self._overtaken(store, parts[1], contents[1])
        await store.delete(parts)
        await self._overtaken(store, whole, b"".join(contents))

    async def _overtaken(self, store: BlobStore, key: Key, content: bytes) -> None:
        async with aclosing(store.read(key)) as reading:
            read = bytes(await anext(reading))
            await store.delete([key])
            try:
                async for piece in reading:
                    read += piece
            except FileNotFoundError:
                pass
        assert content.startswith(read)
        assert await is_absent(store, key)

    @with_store
    async def test_listing_by_prefix(self, store: BlobStore) -> None:
        names = ["aa/aa11", "aa/aa12", "ab/ab11", "ab/ab1122", "ba/ba11", "0f/0f00"]
        for name in names:
            await put(store, name.encode(), name)
        for prefix in ["", "a", "aa", "aa/", "aa/aa", "aa/aa1", "aa/aa11", "ab/ab11", "b", "0", "f", "aa1", "zz/zz"]:
            assert await keys(store, prefix) == {name for name in names if name.startswith(prefix)}, prefix
        await store.delete(names)

    @with_store
    async def test_listing_many(self, store: BlobStore) -> None:
        """More than fit into one page of any store."""
        made = await asyncio.gather(*(put(store, b"") for _ in range(1200)))
        assert await keys(store) == set(made)
        await store.delete(made)

    @with_store
    async def test_what_is_absent(self, store: BlobStore) -> None:
        key = new_key()
        assert await is_absent(store, key)
        await store.delete([await put(store, b"", key[:-1] + "x")])  # its folder, if there are any, is there now
        assert await is_absent(store, key)
        with pytest.raises(FileNotFoundError):
            await get(store, key, 5, 5)

    @with_store
    async def test_where_a_client_can_fetch_it(self, store: BlobStore) -> None:
        """A backend that gives an address serves there what is stored; one that cannot gives None."""
        content = noise(MIB)
        key = await put(store, content)
        address = await store.url(key, 60.0)
        if address is not None:
            assert address.startswith(("http://", "https://"))
            assert await asyncio.to_thread(_fetch, address) == content
        await store.delete([key])


async def _stays_absent(store: BlobStore, key: Key) -> bool:
    """Whether nothing is under ``key`` in the end, and no more for a while."""
    found = 0
    for _ in range(100):
        found = found + 1 if await is_absent_now(store, key) else 0
        if found == 8:
            return True
        await asyncio.sleep(0.01)
    return False


def _fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  checked to be HTTP
        return bytes(answer.read())
