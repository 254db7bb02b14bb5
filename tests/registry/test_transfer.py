"""A registry is taken elsewhere as it is at one moment, whatever engines there are, and whatever breaks off."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage import Policy, Registry
from moorage.metadata.base import Unit, later
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.check import check
from moorage.registry.transfer import Place, Transfer, Transferred, TransferRefused
from moorage.spec.manifest import OCI_MANIFEST
from moorage.storage.base import Key
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.storage.memory import MemoryBlobStore
from tests.support import CONFIG, LAYER, digest_of, encode, image, pieces


class Side:
    """A registry over parts that are looked at from outside, too."""

    def __init__(self, store: Any, metadata: Any) -> None:
        self.place = Place(store, metadata)
        self.registry = Registry(store, metadata, Policy(history_days=0), housekeeping=False)

    async def push(self, tag: str, layer: bytes = LAYER) -> None:
        for content in (CONFIG, layer):
            await self.registry.uploads.push("app", digest_of(content), pieces(content))
        await self.registry.manifests.put("app", tag, encode(image(CONFIG, [layer])), OCI_MANIFEST)

    async def pull(self, tag: str) -> list[bytes]:
        """The manifest and its blobs, through the registry."""
        manifest = await self.registry.manifests.get("app", tag)
        blobs = []
        for digest in (digest_of(CONFIG), json.loads(manifest.content or b"")["layers"][0]["digest"]):
            blob = await self.registry.blobs.get("app", digest)
            blobs.append(b"".join([bytes(piece) async for piece in self.registry.blobs.read(blob)]))
        return [manifest.content or b"", *blobs]

    async def problems(self) -> list[str]:
        return [each.what async for each in check(self.place.store, self.place.metadata, full=True)]

    async def keys(self) -> set[Key]:
        return {key async for key in self.place.store.list()}


def on_disk(root: Path) -> Side:
    return Side(FilesystemBlobStore(root / "blobs"), SQLiteMetadata(root / "facts.db"))


@asynccontextmanager
async def opened(*sides: Side) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for each in sides:
            await stack.enter_async_context(each.registry)
        yield


async def transfer(source: Side, target: Side) -> Transferred:
    async with SQLiteMetadata() as staging:
        return await Transfer(source.place, target.place, staging).run()


@pytest.fixture(params=["disk", "memory", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Side:
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        return Side(FilesystemBlobStore(tmp_path / "b" / "blobs"), PostgresMetadata(PostgresOptions(url=url)))
    return on_disk(tmp_path / "b") if request.param == "disk" else Side(MemoryBlobStore(), SQLiteMetadata())


async def test_each_transfer_brings_what_came_since(tmp_path: Path, target: Side) -> None:
    """And takes away what went: the target is what the source was, sessions and all, and goes on from there."""
    source = on_disk(tmp_path / "a")
    async with opened(source, target):
        await source.push("v1")
        session = await source.registry.uploads.start("app")
        await source.registry.uploads.append("app", session.id, pieces(b"half "))
        first = await transfer(source, target)
        assert (first.copied, first.kept, first.damaged) == (3, 0, [])
        assert await target.pull("v1") == await source.pull("v1")

        await source.push("v2", b"another layer")
        await source.registry.uploads.cancel("app", session.id)
        session = await source.registry.uploads.start("app")
        await source.registry.uploads.append("app", session.id, pieces(b"half "))
        second = await transfer(source, target)
        assert (second.copied, second.kept) == (2, 2)
        assert await target.pull("v2") == await source.pull("v2")
        assert await target.problems() == []
        assert len(await target.keys()) == 4

        await target.registry.uploads.finish("app", session.id, digest_of(b"half done"), pieces(b"done"))
        await target.push("v3", b"of its own")
        assert await target.problems() == []


async def test_and_back(tmp_path: Path, target: Side) -> None:
    source, back = on_disk(tmp_path / "a"), on_disk(tmp_path / "c")
    async with opened(source, target, back):
        await source.push("v1")
        await transfer(source, target)
        await transfer(target, back)
        assert await back.pull("v1") == await source.pull("v1")
        assert await back.problems() == []


async def test_a_registry_of_its_own_is_not_overwritten(tmp_path: Path, target: Side) -> None:
    source = on_disk(tmp_path / "a")
    async with opened(source, target):
        await source.push("v1")
        await target.push("own")
        with pytest.raises(TransferRefused, match="of its own"):
            await transfer(source, target)
        assert (await target.registry.tags.list("app")).items == ["own"]


async def test_changes_at_the_target_are_not_overwritten(tmp_path: Path, target: Side) -> None:
    source = on_disk(tmp_path / "a")
    async with opened(source, target):
        await source.push("v1")
        await transfer(source, target)
        await target.push("own", b"new")
        with pytest.raises(TransferRefused, match="was changed"):
            await transfer(source, target)
        assert (await target.registry.tags.list("app")).items == ["own", "v1"]


async def test_what_a_killed_transfer_left_is_not_trusted(tmp_path: Path) -> None:
    """A file of the right length may hold anything after a power cut, a shorter one is what a kill leaves."""
    source, target = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")
    async with opened(source, target):
        await source.push("v1")
        wrong, short = sorted(await source.keys())
        for key, size in ((wrong, await source.place.store.size(wrong)), (short, 1)):
            file = tmp_path / "b" / "blobs" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(bytes(size))
        done = await transfer(source, target)
        assert (done.copied, done.kept) == (2, 0)
        assert await target.problems() == []
        assert await target.pull("v1") == await source.pull("v1")


async def test_what_was_copied_before_it_broke_off_is_kept(tmp_path: Path) -> None:
    source, target = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")

    class Breaks(SQLiteMetadata):
        async def load(self, pages: Any) -> None:
            raise ConnectionError

    async with opened(source, target):
        await source.push("v1")
        async with Breaks(tmp_path / "b" / "facts.db") as broken, SQLiteMetadata() as staging:
            with pytest.raises(ConnectionError):
                await Transfer(source.place, Place(target.place.store, broken), staging).run()
        assert (await target.registry.repositories.list()).items == []
        done = await transfer(source, target)
        assert (done.copied, done.kept) == (0, 2)
        assert await target.pull("v1") == await source.pull("v1")


async def test_damage_is_told_and_stops_nothing(tmp_path: Path) -> None:
    source, target = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")
    async with opened(source, target):
        await source.push("v1")
        await source.push("v2", b"whole")
        damaged, lost = [await source.registry.blobs.get("app", digest_of(each)) for each in (CONFIG, LAYER)]
        (tmp_path / "a" / "blobs" / damaged.key).write_bytes(bytes(damaged.size))
        (tmp_path / "a" / "blobs" / lost.key).unlink()
        done = await transfer(source, target)
        assert sorted(done.damaged) == sorted(
            [
                f"{damaged.digest}: its bytes have the digest {digest_of(bytes(damaged.size))}",
                f"{lost.digest}: its bytes are gone",
            ]
        )
        whole = await target.registry.blobs.get("app", digest_of(b"whole"))
        assert [bytes(piece) async for piece in target.registry.blobs.read(whole)] == [b"whole"]


async def test_what_the_source_loses_meanwhile_is_asked_for_anew(tmp_path: Path) -> None:
    """The facts that were taken name bytes that collection deletes before they are copied: it begins again."""
    source, target = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")

    class Meanwhile(FilesystemBlobStore):
        async def list(self, prefix: str = "") -> AsyncIterator[Key]:
            if waiting:
                waiting.pop()
                await source.registry.manifests.delete("app", str(digest_of(encode(image()))))
                await source.registry.blobs.delete("app", digest_of(LAYER))
                await source.registry.clean()
                await source.push("v2", b"new")
            async for key in super().list(prefix):
                yield key

    waiting = [True]
    async with opened(source, target), Meanwhile(tmp_path / "b" / "blobs") as store, SQLiteMetadata() as staging:
        await source.push("v1")
        done = await Transfer(source.place, Place(store, target.place.metadata), staging).run()
        assert done.damaged == []
        assert (await target.registry.tags.list("app")).items == ["v2"]
        assert await target.pull("v2") == await source.pull("v2")
        assert await target.problems() == []
        await source.registry.clean()
        assert await target.keys() == await source.keys()


async def test_long_tables(tmp_path: Path) -> None:
    """Facts of many pages come in whichever threads each page is read and written."""
    source, target = on_disk(tmp_path / "a"), on_disk(tmp_path / "b")
    async with opened(source, target):
        await source.push("v1")

        def happens() -> Unit[None]:
            for n in range(20_000):
                yield from later("add_event", float(n), "someone", "tag.push", "app", None, "v1", None, None, None)

        await source.place.metadata.transact(happens)
        await transfer(source, target)
        counts = [(await side.place.metadata.fetch("last_event"))[0][0] for side in (source, target)]
        assert counts[0] == counts[1] > 20_000
