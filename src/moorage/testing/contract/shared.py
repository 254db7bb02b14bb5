"""The contracts of backends that several processes share and that outlive them all.

A backend in memory cannot keep these; any other must.
"""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from moorage.metadata import leases, repositories, tags, uploads
from moorage.metadata.base import Metadata
from moorage.metadata.events import Change
from moorage.spec.errors import BlobUploadRangeInvalid
from moorage.spec.preconditions import ALWAYS
from moorage.storage.base import BlobStore
from moorage.testing.contract.driving import TIMEOUT, get, is_absent, keys, put
from moorage.testing.contract.units import add_bytes, received, refused, session

_ROUNDS: Final = 25


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, TIMEOUT))


class SharedBlobStoreContract:
    """Needs a fixture ``make_store``: a function whose calls give a ``BlobStore`` each, not opened, over one place.

    The place is empty when a test starts.
    """

    def test_what_one_wrote_another_reads(self, make_store: Callable[[], BlobStore]) -> None:
        async def test() -> None:
            async with make_store() as one, make_store() as other:
                key = await put(one, b"bytes of one")
                assert await get(other, key, 9) == b"one"
                assert await keys(other) == {key}
                whole = await other.compose([key, await put(other, b", and more")])
                assert await get(one, whole) == b"bytes of one, and more"
                await other.delete(list(await keys(other)))
                assert await is_absent(one, key)
                assert await keys(one) == set()

        _run(test())

    def test_what_was_written_is_there_when_it_is_opened_again(self, make_store: Callable[[], BlobStore]) -> None:
        async def test() -> None:
            async with make_store() as store:
                key = await put(store, b"kept")
            async with make_store() as store:
                assert await get(store, key) == b"kept"
                await store.delete([key])
            async with make_store() as store:
                assert await keys(store) == set()

        _run(test())


class SharedMetadataContract:
    """Needs a fixture ``make_metadata``: a function whose calls give a ``Metadata`` each, not opened, over one place.

    The place is empty when a test starts.
    """

    def test_one_sees_at_once_what_another_committed(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with make_metadata() as one, make_metadata() as other:
                for turn in range(_ROUNDS):
                    name = f"library/{turn}"
                    await one.transact(repositories.make, name)
                    assert await repositories.exists(other, name)
                    one, other = other, one
                assert len(await repositories.page(one, "", 1000)) == _ROUNDS

        _run(test())

    def test_one_sees_nothing_of_what_another_takes_back(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with make_metadata() as one, make_metadata() as other:
                with pytest.raises(ValueError, match="taken back"):
                    await one.transact(refused, lambda: repositories.make("a"), ValueError("taken back"))
                assert not await repositories.exists(other, "a")
                assert await other.transact(repositories.make, "a") == await one.transact(repositories.find, "a")

        _run(test())

    def test_everything_is_there_when_it_is_opened_again(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with make_metadata() as metadata:
                await asyncio.gather(*(metadata.transact(repositories.make, f"r{n}") for n in range(100)))
                opened = await session(metadata)
                await metadata.transact(add_bytes, opened, 7)
            for _ in range(2):
                async with make_metadata() as metadata:
                    assert len(await repositories.page(metadata, "", 1000)) == 100
                    assert (await received(metadata, opened)) == 7
                    assert [size for _, size in await uploads.segments(metadata, opened.id)] == [7]

        _run(test())

    def test_one_goes_on_when_another_closes(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with make_metadata() as one:
                for turn in range(4):
                    async with make_metadata() as other:
                        await other.transact(repositories.make, f"other{turn}")
                    await one.transact(repositories.make, f"one{turn}")
            async with make_metadata() as again:
                assert len(await repositories.page(again, "", 1000)) == 8

        _run(test())

    def test_the_same_swap_from_all_sides_has_one_winner(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with AsyncExitStack() as stack:
                sides = [await stack.enter_async_context(make_metadata()) for _ in range(3)]
                opened = await session(sides[0])
                for _ in range(10):
                    now = await uploads.find(sides[1], opened.repository, opened.id, 0.0)
                    outcomes = await asyncio.gather(
                        *(side.transact(add_bytes, now, 1) for side in sides * 5), return_exceptions=True
                    )
                    assert outcomes.count(None) == 1
                    assert sum(isinstance(each, BlobUploadRangeInvalid) for each in outcomes) == len(outcomes) - 1
                assert await received(sides[2], opened) == 10

        _run(test())

    def test_no_increment_is_lost(self, make_metadata: Callable[[], Metadata]) -> None:
        """From threads of their own, as processes would."""

        async def prepare() -> uploads.UploadSession:
            async with make_metadata() as metadata:
                return await session(metadata)

        async def increment(opened: uploads.UploadSession) -> None:
            async with make_metadata() as metadata:
                for _ in range(_ROUNDS):
                    while True:
                        now = await uploads.find(metadata, opened.repository, opened.id, 0.0)
                        try:
                            await metadata.transact(add_bytes, now, 1)
                            break
                        except BlobUploadRangeInvalid:
                            continue

        async def test() -> None:
            opened = await prepare()
            threads = [asyncio.to_thread(_run, increment(opened)) for _ in range(4)]
            await asyncio.gather(*threads)
            async with make_metadata() as metadata:
                assert await received(metadata, opened) == 4 * _ROUNDS
                assert len(await uploads.segments(metadata, opened.id)) == 4 * _ROUNDS

        _run(test())

    def test_a_lease_has_one_holder_and_moves_when_it_dies(self, make_metadata: Callable[[], Metadata]) -> None:
        async def test() -> None:
            async with AsyncExitStack() as stack:
                sides = [await stack.enter_async_context(make_metadata()) for _ in range(3)]
                taken = await asyncio.gather(
                    *(side.transact(leases.take, "duty", f"node {n}", None) for n, side in enumerate(sides))
                )
                (held,) = set(taken)
                assert held.beat == 1
                one, other = sides[0], sides[1]
                renewed = await one.transact(leases.take, "duty", held.holder, None)
                assert renewed == leases.Lease(held.holder, 2)
                assert await other.transact(leases.take, "duty", "heir", held) == renewed
                heirs = (side.transact(leases.take, "duty", f"heir {n}", renewed) for n, side in enumerate(sides))
                (heir,) = set(await asyncio.gather(*heirs))
                assert heir.holder.startswith("heir")
                assert await one.transact(leases.take, "duty", held.holder, None) == heir
                await one.transact(leases.release, "duty", held.holder)
                assert await one.transact(leases.take, "duty", "next", None) == heir
                await one.transact(leases.release, "duty", heir.holder)
                assert await other.transact(leases.take, "duty", "next", None) == leases.Lease("next", 1)

        _run(test())

    def test_several_open_a_new_place_at_once(self, make_metadata: Callable[[], Metadata]) -> None:
        async def use(name: str) -> None:
            async with make_metadata() as metadata:
                await metadata.transact(repositories.make, name)
                with pytest.raises(Exception, match="unknown"):
                    await metadata.transact(tags.delete, name, "absent", ALWAYS, Change(0.0))

        async def test() -> None:
            await asyncio.gather(*(asyncio.to_thread(_run, use(f"r{n}")) for n in range(6)))
            async with make_metadata() as metadata:
                assert await repositories.page(metadata, "", 10) == [f"r{n}" for n in range(6)]

        _run(test())
