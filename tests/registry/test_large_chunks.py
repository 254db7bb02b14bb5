"""The life on a disk of a blob that came in large chunks: they are not copied, so it is a folder of them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from moorage import Policy, Registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.blobs import ContentLost
from moorage.registry.check import check, orphans
from moorage.registry.transfer import Place, Transfer
from moorage.spec.errors import BlobUnknown, BlobUploadRangeInvalid, BlobUploadUnknown, RegistryError
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.testing.contract.driving import keys, noise, put
from tests.support import digest_of, pieces

MIB = 1024 * 1024
CHUNKS = [noise(2 * MIB + n) for n in range(3)]
CONTENT = b"".join(CHUNKS)
DIGEST = digest_of(CONTENT)
GRACE = 1000.0


class Disk:
    """A registry in a folder, its clock, and what of blobs is there."""

    def __init__(self, root: Path) -> None:
        self.now = 1_000_000.0
        self.blobs = root / "blobs"
        self.place = Place(FilesystemBlobStore(self.blobs), SQLiteMetadata(root / "facts.db"))
        policy = Policy(collect_grace=GRACE, unnamed_grace=GRACE, history_days=0, housekeeping_interval=3600)
        self.registry = Registry(
            self.place.store, self.place.metadata, policy, clock=lambda: self.now, housekeeping=False
        )

    async def begin(self, *chunks: bytes) -> str:
        """A session that received them."""
        session = (await self.registry.uploads.start("a")).id
        for chunk in chunks:
            await self.registry.uploads.append("a", session, pieces(chunk))
        return session

    async def push(self, *chunks: bytes) -> str:
        session = await self.begin(*chunks)
        digest = await self.registry.uploads.finish("a", session, digest_of(b"".join(chunks)))
        await self.registry.clean()
        return digest

    async def pull(self, start: int = 0, stop: int | None = None) -> bytes:
        blob = await self.registry.blobs.get("a", DIGEST)
        return b"".join([bytes(each) async for each in self.registry.blobs.read(blob, start, stop)])

    async def problems(self) -> list[str]:
        return [each.what async for each in check(self.place.store, self.place.metadata, full=True)]

    def files(self) -> list[Path]:
        """Those that hold bytes, in the order of an object's."""
        return sorted(each for each in self.blobs.rglob("*") if each.is_file())

    def nothing_left(self) -> bool:
        return list(self.blobs.glob("*/*")) == []


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[Disk]:
    made = Disk(tmp_path / "source")
    async with made.registry:
        yield made


async def test_it_is_pulled_and_checked_as_any_other(disk: Disk) -> None:
    """In whole and in parts of it; nothing of the chunks is left beside it."""
    await disk.push(*CHUNKS)
    assert [each.stat().st_size for each in disk.files()] == [len(each) for each in CHUNKS]
    assert await disk.pull() == CONTENT
    assert await disk.pull(2 * MIB - 5, 4 * MIB + 9) == CONTENT[2 * MIB - 5 : 4 * MIB + 9]
    assert await disk.problems() == []
    assert [key async for key in orphans(disk.place.store, disk.place.metadata)] == []
    assert (await disk.registry.scrub()).quarantined == 0


async def test_the_last_chunk_may_come_with_the_closing(disk: Disk) -> None:
    session = await disk.begin(*CHUNKS[:2])
    await disk.registry.uploads.finish("a", session, DIGEST, pieces(CHUNKS[2]))
    await disk.registry.clean()
    assert len(disk.files()) == 3
    assert await disk.pull() == CONTENT


async def test_a_wrong_digest_leaves_the_session_as_it_was(disk: Disk) -> None:
    session = await disk.begin(*CHUNKS)
    for _ in range(2):
        with pytest.raises(RegistryError, match="digest"):
            await disk.registry.uploads.finish("a", session, digest_of(b"other"))
    assert len(disk.files()) == 3
    assert await disk.registry.uploads.finish("a", session, DIGEST) == DIGEST
    assert await disk.pull() == CONTENT


async def test_closings_chunks_and_cancels_that_race(disk: Disk) -> None:
    """One of them wins; the others are told, and what they made goes. What was won is whole."""
    uploads, won = disk.registry.uploads, 0
    for turn in range(12):
        session = await disk.begin(*CHUNKS)
        racing = [
            *(uploads.finish("a", session, DIGEST) for _ in range(3)),
            uploads.append("a", session, pieces(b"more"), first=len(CONTENT)),
            *([uploads.cancel("a", session)] if turn % 3 == 0 else []),
        ]
        told = await asyncio.gather(*(racing if turn % 2 else reversed(racing)), return_exceptions=True)
        for each in told:
            if isinstance(each, BaseException):
                assert isinstance(each, BlobUploadUnknown | BlobUploadRangeInvalid), each
        if not any(each == DIGEST for each in told) and turn % 3:  # the chunk won, and finds all that came before it
            await uploads.finish("a", session, digest_of(CONTENT + b"more"))
            won += 1
    assert won
    await disk.registry.clean()
    assert len(await keys(disk.place.store)) == 2
    assert await disk.pull() == CONTENT
    assert await disk.problems() == []


async def test_it_goes_in_whole(disk: Disk) -> None:
    """Deleted, collected, cancelled or expired: neither files nor folders are left."""
    await disk.push(*CHUNKS)
    await disk.registry.blobs.delete("a", DIGEST)
    await disk.registry.clean()
    assert disk.nothing_left()
    await disk.push(*CHUNKS)
    disk.now += GRACE + 1
    await disk.registry.clean()
    assert disk.nothing_left()
    await disk.registry.uploads.cancel("a", await disk.begin(*CHUNKS))
    await disk.begin(*CHUNKS)
    disk.now += disk.registry.policy.upload_expiry + 1
    await disk.registry.clean()
    assert disk.nothing_left()


async def test_what_a_kill_left_of_a_closing_is_swept(disk: Disk) -> None:
    """The folder is there, in whole or in part or empty, and no fact names it."""
    for count in range(4):
        parts = [await put(disk.place.store, noise(2 * MIB)) for _ in range(3)]
        whole = await disk.place.store.compose(parts)
        for file in sorted((disk.blobs / whole).iterdir())[count:]:
            file.unlink()
        await disk.place.store.delete(parts)
    assert len([key async for key in orphans(disk.place.store, disk.place.metadata)]) == 4
    await disk.registry.collect()
    disk.now += GRACE + 1
    await disk.registry.collect()
    await disk.registry.clean()
    assert disk.nothing_left()


@pytest.mark.parametrize(
    "damage",
    [pytest.param(Path.unlink, id="gone"), pytest.param(lambda file: os.truncate(file, MIB), id="cut short")],
)
async def test_damage_is_found_and_repaired(disk: Disk, damage: Callable[[Path], None]) -> None:
    """A part that lacks is never an answer that looks whole; the next push makes the blob whole again."""
    await disk.push(*CHUNKS)
    damage(disk.files()[1])
    assert len(await disk.problems()) == 1
    with pytest.raises(ContentLost):
        await disk.pull()
    with pytest.raises(BlobUnknown):
        await disk.pull()
    await disk.push(*CHUNKS)
    assert await disk.pull() == CONTENT
    assert await disk.problems() == []
    assert len(disk.files()) == 3


async def test_it_is_taken_elsewhere(disk: Disk, tmp_path: Path) -> None:
    """With open sessions, whatever of it an earlier transfer that broke off left there."""
    await disk.push(*CHUNKS)
    session = await disk.begin(*CHUNKS[:2])
    target = Disk(tmp_path / "target")
    async with target.registry:
        (whole,) = [key for key in await keys(disk.place.store) if (disk.blobs / key).is_dir()]
        (target.blobs / whole).mkdir(parents=True)
        (target.blobs / whole / f"{0:016x}").write_bytes(CHUNKS[0])
        async with SQLiteMetadata() as staging:
            await Transfer(disk.place, target.place, staging).run()
        target.now = disk.now
        assert await target.pull() == CONTENT
        assert await target.problems() == []
        await target.registry.uploads.append("a", session, pieces(CHUNKS[2]), first=len(CHUNKS[0] + CHUNKS[1]))
        assert await target.registry.uploads.finish("a", session, DIGEST) == DIGEST
