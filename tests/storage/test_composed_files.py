"""Composed objects in files: large parts are linked, not copied; damaged ones are never read as whole."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from moorage.storage.base import BlobStore, Key
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.testing.contract.driving import get, keys, noise, put, same
from tests.server import CI
from tests.torture.ground import disk, why_no_disk

MIB = 1024 * 1024


def in_folder(root: Path, test: Callable[[BlobStore], Awaitable[None]]) -> None:
    async def drive() -> None:
        async with FilesystemBlobStore(root) as store:
            await test(store)

    asyncio.run(drive())


async def composed(store: BlobStore, contents: list[bytes]) -> Key:
    """An object of several parts, which are gone by themselves."""
    parts = [await put(store, each) for each in contents]
    whole = await store.compose(parts)
    await store.delete(parts)
    return whole


def inodes(path: Path) -> set[int]:
    return {each.stat().st_ino for each in path.rglob("*") if each.is_file()}


def test_large_parts_are_not_copied(tmp_path: Path) -> None:
    """The files that were written are those that are read, one link each, under names that say where they start."""

    async def test(store: BlobStore) -> None:
        parts = [await put(store, noise(size)) for size in (3 * MIB, 2 * MIB, 0, 17)]
        written = {(tmp_path / key).stat().st_ino for key in parts if (tmp_path / key).stat().st_size}
        whole = await store.compose(parts)
        await store.delete(parts)
        assert inodes(tmp_path) == written
        files = sorted((tmp_path / whole).iterdir())
        assert [int(each.name, 16) for each in files] == [0, 3 * MIB, 5 * MIB]
        assert [each.stat().st_nlink for each in files] == [1, 1, 1]

    in_folder(tmp_path, test)


def test_small_parts_become_one_file(tmp_path: Path) -> None:
    """Many of them would cost each reader more than the copy."""

    async def test(store: BlobStore) -> None:
        whole = await composed(store, [noise(300_000) for _ in range(20)])
        assert (tmp_path / whole).stat().st_size == 6_000_000
        assert (tmp_path / whole).is_file()

    in_folder(tmp_path, test)


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_where_there_are_no_links_the_parts_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """FAT has none, others have few; the second part may be the first that is refused."""
    link = os.link
    linked: list[Path] = []

    def refuse(source: Path, target: Path) -> None:
        if linked:
            raise OSError(reason, os.strerror(reason))
        linked.append(target)
        link(source, target)

    monkeypatch.setattr(os, "link", refuse)

    async def test(store: BlobStore) -> None:
        contents = [noise(2 * MIB) for _ in range(3)]
        whole = await composed(store, contents)
        assert linked
        assert (tmp_path / whole).is_file()
        assert await keys(store) == {whole}
        assert same(await get(store, whole), b"".join(contents))

    in_folder(tmp_path, test)


def test_a_link_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or one that fails: the parts stay as they are."""

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def test(store: BlobStore) -> None:
        parts = [await put(store, noise(2 * MIB)) for _ in range(2)]
        monkeypatch.setattr(os, "link", fail)
        with pytest.raises(OSError, match="Input/output"):
            await store.compose(parts)
        assert await keys(store) == set(parts)

    in_folder(tmp_path, test)


@pytest.mark.parametrize("sizes", [(5 * MIB,), (300_000,) * 7, (2 * MIB,) * 3], ids=["written", "copied", "linked"])
def test_a_power_cut_takes_nothing(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """What was composed is durable by itself, also where the facts are on another disk."""
    if why := why_no_disk():
        pytest.fail(why) if CI else pytest.skip(why)
    contents, made = [noise(size) for size in sizes], list[Key]()

    async def write(store: BlobStore) -> None:
        made.append(await store.compose([await put(store, each) for each in contents]))

    async def read(store: BlobStore) -> None:
        assert same(await get(store, made[0]), b"".join(contents))

    with disk(tmp_path) as ground:
        in_folder(ground.folder / "blobs", write)
        ground.cut_unused()
        in_folder(ground.folder / "blobs", read)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda file: file.unlink(), id="gone"),
        pytest.param(lambda file: os.truncate(file, MIB), id="cut short"),
        pytest.param(lambda file: os.truncate(file, 0), id="empty"),
    ],
)
def test_a_damaged_part_ends_the_object(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """What is read is right up to there; the size tells. Never do later bytes take the place of those that lack."""

    async def test(store: BlobStore) -> None:
        contents = [noise(2 * MIB) for _ in range(3)]
        whole, content = await composed(store, contents), b"".join(contents)
        damage(sorted((tmp_path / whole).iterdir())[1])
        assert await store.size(whole) < 6 * MIB
        for start in (0, MIB, 2 * MIB - 1, 2 * MIB, 3 * MIB, 4 * MIB - 1):
            found = await get(store, whole, start)
            assert len(found) < 6 * MIB - start
            assert content[start:].startswith(found)
        assert same(await get(store, whole, 4 * MIB), contents[2])

    in_folder(tmp_path, test)


def test_what_was_appended_to_a_part_is_not_read(tmp_path: Path) -> None:
    """By whatever writes into the folder; the parts that follow stay where they are."""

    async def test(store: BlobStore) -> None:
        contents = [noise(2 * MIB) for _ in range(3)]
        whole = await composed(store, contents)
        with (tmp_path / whole / f"{2 * MIB:016x}").open("ab") as file:
            file.write(b"more")
        assert same(await get(store, whole), b"".join(contents))
        assert await store.size(whole) == 6 * MIB + 4

    in_folder(tmp_path, test)
