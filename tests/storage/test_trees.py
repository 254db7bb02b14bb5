"""The files of a folder, a tar and a bucket look the same."""

import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from moorage.build import store_of, tree_of
from moorage.config import load
from moorage.storage.trees import PIECE, Tree, storage_place
from tests.distribution_tree import DistributionTree
from tests.support import digest_of

if TYPE_CHECKING:
    from tests.buckets import Engine

LARGE = bytes(range(256)) * (2 * PIECE // 256) + b"end"
BUCKETS = [pytest.param(name, marks=pytest.mark.stores) for name in ("seaweedfs", "moto", "azurite", "google")]


@pytest.fixture(params=["folder", "tar", *BUCKETS])
def place(request: pytest.FixtureRequest) -> dict[str, Any] | str:
    """The settings of a place in a bucket, or what it is instead."""
    engine: Engine | None = None if request.param in ("folder", "tar") else request.getfixturevalue(request.param)
    return request.param if engine is None else engine.place()


@pytest.fixture
async def tree(place: dict[str, Any] | str, tmp_path: Path) -> AsyncIterator[Tree]:
    """One with two images in a repository, and another repository below it."""
    made = DistributionTree(tmp_path / "old")
    made.push_image("a", 1, "v1", "v1.1")
    made.push_image("a", 2)
    made.push_image("a/b", 3, "v1")
    made.blob(LARGE)
    source, settings = str(made.root), load()
    if place == "tar":
        source = f"{tmp_path / 'old.tar'}"
        with tarfile.open(source, "w") as archive:
            archive.add(made.root, "")
    elif isinstance(place, dict):
        settings = load(arguments={**place, "storage": f"{place['storage']}/old"})
        source = settings.storage
        async with store_of(settings) as store:
            for path in made.root.rglob("*"):
                if path.is_file():
                    async with store.write(str(path.relative_to(made.root))) as writer:
                        await writer.write([path.read_bytes()])
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(tree_of(settings, source))


async def read(tree: Tree, path: str, start: int = 0, stop: int | None = None) -> bytes:
    async with aclosing(tree.read(path, start, stop)) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_entries(tree: Tree) -> None:
    """What is directly in a folder, sorted, folders with a slash; nothing where there is none."""
    assert tree.name == "old"
    assert await storage_place(tree) == "docker/registry/v2/"
    assert list(await tree.entries("")) == ["docker/"]
    assert list(await tree.entries("docker/registry/v2/repositories/a/")) == ["_manifests/", "b/"]
    assert list(await tree.entries("docker/registry/v2/repositories/a/_manifests/tags/")) == ["v1.1/", "v1/"]
    assert list(await tree.entries("docker/registry/v2/repositories/a/_manifests/tags/v1/current/")) == ["link"]
    assert list(await tree.entries("docker/registry/v2/repositories/none/")) == []


async def test_files(tree: Tree) -> None:
    """Sizes and bytes, in whole and in part; a part beyond the end has none, and what is absent says so."""
    encoded = digest_of(LARGE).partition(":")[2]
    path = f"docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}/data"
    assert await tree.size(path) == len(LARGE)
    for start, stop in ((0, None), (0, 1), (5, PIECE + 7), (PIECE, None), (len(LARGE) - 1, len(LARGE) + 9)):
        assert await read(tree, path, start, stop) == LARGE[start:stop]
    assert await read(tree, path, len(LARGE), None) == b""
    assert await tree.size(f"{path}/none") is None
    with pytest.raises(FileNotFoundError):
        await read(tree, "docker/none")
