"""Tasks end, whatever becomes of their cancellation."""

import asyncio
import contextlib

import pytest

from moorage.registry import tasks


async def test_a_cancellation_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As psycopg loses it under Python 3.11, where it comes together with the answer."""
    monkeypatch.setattr(tasks, "_AGAIN", 0.01)
    lost = asyncio.Event()

    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        lost.set()
        await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await tasks.end(working)
    assert lost.is_set()
    assert working.cancelled()


async def test_what_it_raises() -> None:
    async def work() -> None:
        raise KeyError("work")

    working = asyncio.create_task(work())
    await asyncio.wait([working])
    with pytest.raises(KeyError, match="work"):
        await tasks.end(working)
