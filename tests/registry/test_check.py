"""``moorage check``'s search for broken invariants, on registries that were broken on purpose."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage import Policy, open_registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.check import Problem, check, count, orphans
from moorage.storage.filesystem import FilesystemBlobStore
from tests.support import (
    CONFIG,
    EMPTY,
    LAYER,
    OCI_INDEX,
    OCI_MANIFEST,
    artifact,
    descriptor,
    digest_of,
    encode,
    image,
    index,
    pieces,
)

IMAGE = encode(image())
DIGEST = digest_of(IMAGE)


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """A root with one of everything, an unfinished upload among it."""
    async with open_registry(tmp_path) as registry:
        for content in (CONFIG, LAYER, EMPTY):
            await registry.uploads.push("a", digest_of(content), pieces(content))
        await registry.uploads.push("a", digest_of(LAYER, "blake3"), pieces(LAYER))
        await registry.blobs.mount("b", digest_of(LAYER), "a")
        await registry.manifests.put("a", "latest", IMAGE)
        await registry.manifests.put("a", "top", encode(index([descriptor(IMAGE, OCI_MANIFEST)])), OCI_INDEX)
        await registry.manifests.put("a", "sbom", encode(artifact(subject=descriptor(IMAGE, OCI_MANIFEST))))
        session = await registry.uploads.start("a")
        for content in (b"first", b"second"):
            await registry.uploads.append("a", session.id, pieces(content))
        await registry.uploads.start("b")
        await registry.clean()
    return tmp_path


def unseen(_what: str, _n: int) -> None:
    pass


async def problems(root: Path, *, full: bool = False, seen: Callable[[str, int], None] = unseen) -> list[Problem]:
    """What is wrong with a root."""
    async with (
        SQLiteMetadata(root / "moorage.db", read_only=True) as metadata,
        FilesystemBlobStore(root / "blobs", read_only=True) as store,
    ):
        return [each async for each in check(store, metadata, full=full, progress=seen)]


def change(root: Path, statement: str, *parameters: object) -> None:
    """Break the facts."""
    database = sqlite3.connect(root / "moorage.db")
    with database:
        assert database.execute(statement, parameters).rowcount > 0
    database.close()


def file_of(root: Path, digest: str) -> Path:
    """Where the bytes of a blob are."""
    database = sqlite3.connect(root / "moorage.db")
    ((key,),) = database.execute("SELECT key FROM blobs WHERE digest = ?", (digest,)).fetchall()
    database.close()
    return root / "blobs" / str(key)


def segment(root: Path, start: int) -> Path:
    """Where the bytes of a segment are."""
    database = sqlite3.connect(root / "moorage.db")
    ((key,),) = database.execute("SELECT key FROM segments WHERE start = ?", (start,)).fetchall()
    database.close()
    return root / "blobs" / str(key)


@pytest.mark.parametrize("full", [False, True])
async def test_nothing_is_wrong(root: Path, full: bool) -> None:
    """A sound root has no problem, and everything in it was looked at."""
    looked = {"manifests": 0, "blobs": 0}

    def seen(what: str, n: int) -> None:
        looked[what] += n

    assert await problems(root, full=full, seen=seen) == []
    assert looked == {"manifests": 3, "blobs": 4}


async def test_count(root: Path) -> None:
    """The counts are those of the facts."""
    async with SQLiteMetadata(root / "moorage.db", read_only=True) as metadata:
        found = await count(metadata)
    assert (found.manifests, found.blobs, found.tags) == (3, 4, 3)
    assert (found.repositories, found.uploads, found.doomed) == (2, 2, 0)


@pytest.mark.parametrize(
    ("statement", "rule", "what"),
    [
        ("UPDATE tags SET digest = 'sha256:x' WHERE name = 'latest'", "a tag names a manifest", "a:latest names"),
        ("UPDATE manifests SET size = 3 WHERE subject IS NOT NULL", "a manifest is what was pushed", "bytes, not 3"),
        ("UPDATE manifests SET content = x'7b7d' WHERE id = 1", "a manifest is what was pushed", "have the digest"),
        ("UPDATE manifests SET subject = NULL WHERE subject IS NOT NULL", "a manifest is", "its subject is"),
        ("UPDATE manifests SET subject = 'sha256:y' WHERE id = 1", "a manifest is", "not sha256:y"),
        (
            f"UPDATE manifests SET media_type = '{OCI_INDEX}' WHERE id = 1",
            "a manifest is",
            "contradicts the Content-Type",
        ),
        ("DELETE FROM manifest_references WHERE kind = 'config'", "a manifest is", "references are known wrongly"),
        (f"DELETE FROM repository_blobs WHERE digest = '{digest_of(CONFIG)}'", "what a manifest", "needs the config"),
        (f"DELETE FROM blobs WHERE digest = '{digest_of(LAYER)}'", "a linked blob is stored", digest_of(LAYER)),
        ("UPDATE blobs SET size = size + 1 WHERE size = 2", "a stored blob has its bytes", "2 bytes, not 3"),
        ("UPDATE uploads SET received = 10 WHERE received = 11", "a session keeps", "11 of 10 bytes"),
        ("UPDATE segments SET start = 6 WHERE start = 5", "a session keeps", "segment at 6 does not fit"),
        ("DELETE FROM segments WHERE start = 5", "a session keeps", "5 of 11 bytes"),
    ],
)
async def test_broken_facts(root: Path, statement: str, rule: str, what: str) -> None:
    """Facts that contradict each other are found and named."""
    change(root, statement)
    found = await problems(root)
    assert any(each.rule.startswith(rule) and what in each.what for each in found), found


async def test_lost_bytes(root: Path) -> None:
    """A blob without its bytes is found, and one that is cut short."""
    file_of(root, digest_of(LAYER)).unlink()
    os.truncate(file_of(root, digest_of(CONFIG)), 3)
    found = {each.what.partition(" ")[0]: each.what for each in await problems(root)}
    assert "gone" in found[digest_of(LAYER)]
    assert "3 bytes" in found[digest_of(CONFIG)]
    assert len(found) == 2


async def test_lost_segments(root: Path) -> None:
    """A segment without its bytes, or of another size, is found."""
    segment(root, 0).unlink()
    os.truncate(segment(root, 5), 1)
    found = [each.what for each in await problems(root)]
    assert len(found) == 2
    assert "segment at 0 is gone" in found[0]
    assert "segment at 5 does not fit" in found[1]


async def test_flipped_byte(root: Path) -> None:
    """A byte that turned is found by reading everything, and only so."""
    file = file_of(root, digest_of(LAYER, "blake3"))
    file.chmod(0o600)
    file.write_bytes(LAYER[::-1])
    assert await problems(root) == []
    (found,) = await problems(root, full=True)
    assert digest_of(LAYER[::-1], "blake3") in found.what


async def test_what_need_not_be_there(root: Path) -> None:
    """What the registry's policy lets be absent is nothing wrong."""
    change(root, "DELETE FROM repository_blobs WHERE digest = ?", digest_of(CONFIG))
    async with (
        SQLiteMetadata(root / "moorage.db", read_only=True) as metadata,
        FilesystemBlobStore(root / "blobs", read_only=True) as store,
    ):
        sparse = Policy(sparse="all").not_needed()
        assert [each async for each in check(store, metadata, not_needed=sparse)] == []
        sparse = Policy(sparse="indexes").not_needed()
        assert len([each async for each in check(store, metadata, not_needed=sparse)]) == 1


async def test_orphans(root: Path) -> None:
    """A file that no fact names is told, and is no problem."""
    (root / "blobs" / "zz").mkdir()
    (root / "blobs" / "zz" / "zz00").write_bytes(b"left by a crash")
    assert await problems(root) == []
    async with (
        SQLiteMetadata(root / "moorage.db", read_only=True) as metadata,
        FilesystemBlobStore(root / "blobs", read_only=True) as store,
    ):
        assert [key async for key in orphans(store, metadata)] == ["zz/zz00"]


async def test_absent_root(tmp_path: Path) -> None:
    """A root that is not there is FileNotFoundError; nothing is made."""
    with pytest.raises(FileNotFoundError):
        await problems(tmp_path / "none")
    assert not (tmp_path / "none").exists()
