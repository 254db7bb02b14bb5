"""What a registry does by itself: sessions end, bytes that nothing needs go."""

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from moorage import Policy, Registry, open_registry
from moorage.errors import BlobUploadUnknown, ServiceUnavailable, StorageFull
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.storage.memory import MemoryBlobStore
from tests.support import LAYER, digest_of, pieces

DIGEST = digest_of(LAYER)


async def stored(store: MemoryBlobStore) -> int:
    return len([key async for key in store.list()])


async def until(store: MemoryBlobStore, count: int) -> None:
    """Return once the store has that many objects."""
    async with asyncio.timeout(10):
        while await stored(store) != count:
            await asyncio.sleep(0.01)


class Time:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_spare_bytes_go_at_once() -> None:
    """Bytes of a second push, of a session's segments, and of a cancelled session go without waiting."""
    store = MemoryBlobStore()
    async with Registry(store, SQLiteMetadata(), Policy(housekeeping_interval=3600)) as registry:
        await registry.uploads.push("a", DIGEST, pieces(LAYER))
        await registry.uploads.push("b", DIGEST, pieces(LAYER))
        await until(store, 1)
        session = await registry.uploads.start("a")
        await registry.uploads.append("a", session.id, pieces(b"x"))
        await registry.uploads.append("a", session.id, pieces(b"y"))
        await registry.uploads.finish("a", session.id, digest_of(b"xyz"), pieces(b"z"))
        await until(store, 2)
        session = await registry.uploads.start("a")
        await registry.uploads.append("a", session.id, pieces(b"x"))
        await registry.uploads.cancel("a", session.id)
        await until(store, 2)
        blob = await registry.blobs.get("a", DIGEST)
        assert b"".join([bytes(piece) async for piece in registry.blobs.read(blob)]) == LAYER


async def test_adopted_segment_stays() -> None:
    """A session of one segment becomes the blob as it is; closing it dooms nothing."""
    store = MemoryBlobStore()
    async with Registry(store, SQLiteMetadata()) as registry:
        session = await registry.uploads.start("a")
        await registry.uploads.append("a", session.id, pieces(LAYER))
        before = [key async for key in store.list()]
        await registry.uploads.finish("a", session.id, DIGEST)
        await registry.clean()
        assert [key async for key in store.list()] == before


async def test_many_expired_sessions() -> None:
    """However many sessions are over, one cleaning ends them all and takes their bytes."""
    clock, store = Time(), MemoryBlobStore()
    async with Registry(store, SQLiteMetadata(), Policy(upload_expiry=10), clock=clock) as registry:
        sessions = [await registry.uploads.start("a") for _ in range(1100)]
        for session in sessions[:600]:
            await registry.uploads.append("a", session.id, pieces(b"x"))
        assert await stored(store) == 600
        clock.now += 11
        kept = await registry.uploads.start("a")
        await registry.clean()
        assert await stored(store) == 0
        await registry.uploads.get("a", kept.id)
        clock.now -= 11
        with pytest.raises(BlobUploadUnknown):
            await registry.uploads.get("a", sessions[0].id)


async def test_repeated_cleaning_does_no_harm(tmp_path: Path) -> None:
    """Several registries that clean one root at once lose nothing."""
    async with open_registry(tmp_path) as one, open_registry(tmp_path) as two:
        for n in range(20):
            content = b"%d" % n
            for registry in (one, two):
                await registry.uploads.push("a", digest_of(content), pieces(content))
        await asyncio.gather(*(registry.clean() for registry in (one, two) * 3))
        for n in range(20):
            blob = await two.blobs.get("a", digest_of(b"%d" % n))
            assert b"".join([bytes(piece) async for piece in two.blobs.read(blob)]) == b"%d" % n
        assert len([file for file in (tmp_path / "blobs").rglob("*") if file.is_file()]) == 20


class Stubborn(MemoryBlobStore):
    """A store that deletes nothing until it is told to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error

    async def delete(self, keys: Sequence[str]) -> None:
        if self.error:
            raise self.error
        await super().delete(keys)


@pytest.mark.parametrize("error", [OSError("not now"), StorageFull("not now")], ids=["unforeseen", "full"])
async def test_failed_deletion_is_tried_again(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    """Bytes that cannot be deleted are logged and tried again; the registry goes on meanwhile."""
    store = Stubborn(error)
    policy = Policy(housekeeping_interval=0.02)
    with caplog.at_level(logging.ERROR, "moorage.housekeeping"):
        async with Registry(store, SQLiteMetadata(), policy) as registry:
            for repository in ("a", "b"):
                await registry.uploads.push(repository, DIGEST, pieces(LAYER))
            async with asyncio.timeout(10):
                while "not now" not in caplog.text:
                    await asyncio.sleep(0.01)
            assert await stored(store) == 2
            store.error = None
            await until(store, 1)


async def test_closed_registry() -> None:
    """A registry that was closed changes nothing any more."""
    async with open_registry() as registry:
        await registry.uploads.start("a")
    with pytest.raises(ServiceUnavailable):
        await registry.uploads.start("a")


async def test_newer_facts_are_left_alone(tmp_path: Path) -> None:
    """A root that a newer Moorage wrote is refused with the reason, and is as it was."""
    async with open_registry(tmp_path) as registry:
        await registry.uploads.push("a", DIGEST, pieces(LAYER))
    database = sqlite3.connect(tmp_path / "moorage.db")
    database.execute("PRAGMA user_version = 9999")
    database.close()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="newer Moorage"):
            async with open_registry(tmp_path):
                pass


async def test_closing_while_something_is_doomed(tmp_path: Path) -> None:
    """A registry closes, whatever its housekeeping is about to do at that moment."""

    async def open_and_close(turns: int) -> None:
        async with open_registry(tmp_path) as registry:
            for _ in range(turns):
                await asyncio.sleep(0)
            session = await registry.uploads.start("a")
            await registry.uploads.cancel("a", session.id)

    for turns in range(24):
        closing = asyncio.create_task(open_and_close(turns))
        done, _ = await asyncio.wait([closing], timeout=10)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert done, "the registry does not close"


async def test_bytes_that_cannot_be_deleted_keep_no_others(tmp_path: Path) -> None:
    """However few are deleted at once and however long ago they were doomed; they themselves are tried again."""
    policy = Policy(delete_rate=8)
    async with Registry(
        FilesystemBlobStore(tmp_path / "blobs"), SQLiteMetadata(), policy, housekeeping=False
    ) as registry:
        for n in range(9):
            session = await registry.uploads.start("a")
            await registry.uploads.append("a", session.id, pieces(b"%d" % n))
            await registry.uploads.cancel("a", session.id)
        (stuck,) = [each for each in (tmp_path / "blobs").glob("*/*") if each.read_bytes() == b"0"]
        stuck.unlink()
        (stuck / "folder").mkdir(parents=True)
        with pytest.raises(OSError, match="folder"):
            await registry.clean()
        assert list((tmp_path / "blobs").glob("*/*")) == [stuck]
        (stuck / "folder").rmdir()
        await registry.clean()
        assert not stuck.exists()
