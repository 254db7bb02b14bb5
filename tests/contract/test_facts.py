"""The contract of places for facts, on each of them."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from moorage import Registry
from moorage.metadata import repositories
from moorage.metadata.base import Metadata
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec import digest as digests
from moorage.spec.errors import BlobUnknown, ServiceUnavailable
from moorage.spec.manifest import OCI_INDEX
from moorage.storage.memory import MemoryBlobStore
from moorage.testing.contract import MetadataContract, SharedMetadataContract


class TestSQLiteInMemory(MetadataContract):
    @pytest.fixture
    def metadata(self) -> Metadata:
        return SQLiteMetadata()


class TestSQLite(MetadataContract):
    @pytest.fixture
    def metadata(self, tmp_path: Path) -> Metadata:
        return SQLiteMetadata(tmp_path / "made" / "facts.db")


class TestSharedSQLite(SharedMetadataContract):
    @pytest.fixture
    def make_metadata(self, tmp_path: Path) -> Callable[[], Metadata]:
        return lambda: SQLiteMetadata(tmp_path / "made" / "facts.db")


class TestPostgres(MetadataContract):
    @pytest.fixture
    def metadata(self, database: str) -> Metadata:
        return PostgresMetadata(PostgresOptions(url=database))


class TestSharedPostgres(SharedMetadataContract):
    @pytest.fixture
    def make_metadata(self, new_database: str) -> Callable[[], Metadata]:
        return lambda: PostgresMetadata(PostgresOptions(url=new_database))


MAKE_REPOSITORY = """
import asyncio, sys
from moorage.metadata import repositories
from moorage.metadata.sqlite import SQLiteMetadata

async def main():
    async with SQLiteMetadata(sys.argv[1]) as metadata:
        await metadata.transact(repositories.make, sys.argv[2])
        print(*await repositories.page(metadata, "", 10))

asyncio.run(main())
"""


async def make_elsewhere(path: Path, name: str) -> list[str]:
    """The repositories that a process of its own sees, which opens the file, makes one more, and closes it."""
    command = [sys.executable, "-c", MAKE_REPOSITORY, str(path), name]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    return str(done.stdout).split()


async def test_another_process_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with SQLiteMetadata(path) as metadata:
        assert await make_elsewhere(path, "b") == ["b"]
        await metadata.transact(repositories.make, "c")
        assert await make_elsewhere(path, "d") == ["b", "c", "d"]


async def test_another_process_closes_the_file_that_was_opened_twice_here(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with SQLiteMetadata(path) as metadata:
        async with SQLiteMetadata(path) as again:
            await again.transact(repositories.make, "a")
        assert await make_elsewhere(path, "b") == ["a", "b"]
        await metadata.transact(repositories.make, "c")
        assert await make_elsewhere(path, "d") == ["a", "b", "c", "d"]


async def test_closed_it_takes_no_more(tmp_path: Path) -> None:
    for metadata in (SQLiteMetadata(), SQLiteMetadata(tmp_path / "facts.db")):
        async with metadata:
            await metadata.transact(repositories.make, "a")
        with pytest.raises(ServiceUnavailable):
            await metadata.transact(repositories.make, "b")


async def test_closing_finishes_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    async with SQLiteMetadata(path) as metadata:
        tasks = [asyncio.create_task(metadata.transact(repositories.make, f"r{n:03}")) for n in range(300)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    async with SQLiteMetadata(path) as metadata:
        assert len(await repositories.page(metadata, "", 1000)) == 300


async def test_events_are_rows_in_the_order_of_the_changes(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()

    async def body() -> AsyncIterator[bytes]:
        yield b"content"

    async with Registry(MemoryBlobStore(), SQLiteMetadata(path), clock=lambda: 12.5) as registry:
        blob = await registry.uploads.push("a", digests.compute(b"content"), body(), actor="pusher")
        pushed = await registry.manifests.put("a", "v1", content, OCI_INDEX, actor="pusher")
        with pytest.raises(BlobUnknown):
            await registry.blobs.delete("a", pushed.digest)
        await registry.manifests.delete("a", "v1", actor="cleaner")
        await registry.blobs.delete("a", blob)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
    assert rows == [
        (1, 12.5, "pusher", "blob.push", "a", blob, None, None, None, None),
        (2, 12.5, "pusher", "manifest.push", "a", pushed.digest, None, None, None, None),
        (3, 12.5, "pusher", "tag.push", "a", pushed.digest, "v1", None, pushed.digest, None),
        (4, 12.5, "cleaner", "tag.delete", "a", None, "v1", pushed.digest, None, None),
        (5, 12.5, "anonymous", "blob.delete", "a", blob, None, None, None, None),
    ]
