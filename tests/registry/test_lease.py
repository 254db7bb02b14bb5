"""What one process at a time does."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from moorage import Policy, Registry
from moorage.errors import BlobUploadUnknown
from moorage.metadata.base import Metadata
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.lease import Lease
from moorage.storage.memory import MemoryBlobStore

PAUSE = 0.2


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Metadata]:
    """Makes facts over one place."""
    if request.param == "sqlite":
        return lambda: SQLiteMetadata(tmp_path / "facts.db")
    url = request.getfixturevalue("database")
    return lambda: PostgresMetadata(PostgresOptions(url=url))


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not reached():
            await asyncio.sleep(PAUSE / 5)


async def test_it_moves_on(make: Callable[[], Metadata]) -> None:
    """From one that ends at once, from one that dies after a while; never two hold it."""
    async with make() as one, make() as other:
        first, second = Lease(one, "duty", PAUSE), Lease(other, "duty", PAUSE)
        async with first.kept():
            await until(lambda: first.held)
            async with second.kept():
                for _ in range(20):
                    await asyncio.sleep(PAUSE / 2)
                    assert (first.held, second.held) == (True, False)
                third = Lease(one, "duty", PAUSE)
                assert not third.held
        await second.beat()  # the first gave it up
        assert second.held
        heir = Lease(one, "duty", PAUSE)
        started = time.monotonic()
        async with heir.kept():
            await until(lambda: heir.held)
            assert not second.held
        assert time.monotonic() - started > 2 * PAUSE


async def test_one_that_loses_its_database_stops(make: Callable[[], Metadata]) -> None:
    async with make() as facts:
        lease = Lease(facts, "duty", PAUSE)
        await lease.beat()
        assert lease.held
        await until(lambda: not lease.held)


async def test_one_registry_of_many_keeps_house(
    make: Callable[[], Metadata], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when it goes, another does."""
    kept: list[object] = []

    async def clean(parts: object) -> None:
        kept.append(parts)

    monkeypatch.setattr("moorage.registry.housekeeping.clean", clean)
    policy = Policy(housekeeping_interval=PAUSE)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Registry(MemoryBlobStore(), make(), policy))
        await until(lambda: len(kept) > 2)
        async with Registry(MemoryBlobStore(), make(), policy):
            await asyncio.sleep(PAUSE * 10)
            assert {id(each) for each in kept} == {id(first._parts)}
            await stack.aclose()
            await until(lambda: len({id(each) for each in kept}) == 2)


async def test_clocks_that_differ(database: str) -> None:
    """Nodes whose clocks are an hour apart agree on when a session is over: a minute after it was used last."""
    async with AsyncExitStack() as stack:
        nodes = []
        for ahead in (-3600.0, 0.0, 3600.0):
            facts = PostgresMetadata(PostgresOptions(url=database))
            facts.ahead = Behind(facts, ahead)  # type: ignore[method-assign]
            node = Registry(
                MemoryBlobStore(),
                facts,
                Policy(upload_expiry=60.0),
                clock=lambda ahead=ahead: time.time() + ahead,  # type: ignore[misc]
                housekeeping=False,
            )
            nodes.append(await stack.enter_async_context(node))
        for opener in nodes:
            opened = await opener.uploads.start("a")
            for each in nodes:
                await each.clean()
                assert (await each.uploads.get("a", opened.id)).received == 0
                assert abs(each.clock() - time.time()) < 30
            nodes[0]._parts.ahead += 61  # a minute later, as one of them sees it
            with pytest.raises(BlobUploadUnknown):
                await nodes[0].uploads.get("a", opened.id)
            nodes[0]._parts.ahead -= 61


class Behind:
    """How far the database's clock is ahead of one that is itself ``ahead``."""

    def __init__(self, facts: PostgresMetadata, ahead: float) -> None:
        self._ask = facts.ahead
        self._ahead = ahead

    async def __call__(self) -> float:
        return await self._ask() - self._ahead


async def test_the_databases_clock(database: str) -> None:
    async with PostgresMetadata(PostgresOptions(url=database)) as facts:
        assert abs(await facts.ahead()) < 1.0  # it runs on this machine


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    """Its lease is taken over by one that is still there."""
    script = """
import asyncio, sys
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.lease import Lease

async def main():
    async with SQLiteMetadata(sys.argv[1]) as facts:
        async with Lease(facts, "duty", 0.05).kept():
            await asyncio.sleep(0.2)
            print("held", flush=True)
            await asyncio.sleep(60)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "f.db")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"

        async def take() -> None:
            async with SQLiteMetadata(tmp_path / "f.db") as facts:
                lease = Lease(facts, "duty", PAUSE)
                await lease.beat()
                assert not lease.held
                holder.kill()
                async with lease.kept():
                    await until(lambda: lease.held)

        try:
            asyncio.run(take())
        finally:
            holder.kill()
