"""Blobs and uploads through the library."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from moorage import Digest, Policy, Registry, open_registry
from moorage.errors import (
    BlobTooLarge,
    BlobUnknown,
    BlobUploadRangeInvalid,
    BlobUploadUnknown,
    ClientDisconnected,
    DigestInvalid,
    InUse,
    MethodNotAllowed,
    NameInvalid,
    SizeInvalid,
)
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.blobs import ContentLost
from moorage.storage.memory import MemoryBlobStore
from tests.support import CONFIG, LAYER, digest_of, encode, image, pieces

DIGEST = digest_of(LAYER)
NOWHERE = digest_of(b"nowhere")


async def content_of(registry: Registry, repository: str, digest: str, *span: int) -> bytes:
    blob = await registry.blobs.get(repository, digest)
    return b"".join([bytes(piece) async for piece in registry.blobs.read(blob, *span)])


async def interrupted(*contents: bytes) -> AsyncIterator[bytes]:
    """A body whose sender goes away."""
    for content in contents:
        yield content
    raise ClientDisconnected


async def test_push_and_read(registry: Registry) -> None:
    """A blob that was pushed is got with its size, and read whole or in part."""
    assert await registry.uploads.push("a", DIGEST, pieces(LAYER[:5], LAYER[5:]), length=len(LAYER)) == DIGEST
    blob = await registry.blobs.get("a", Digest(DIGEST))
    assert (blob.digest, blob.size) == (DIGEST, len(LAYER))
    assert await content_of(registry, "a", DIGEST) == LAYER
    assert await content_of(registry, "a", DIGEST, 4) == LAYER[4:]
    assert await content_of(registry, "a", DIGEST, 4, 9) == LAYER[4:9]
    assert await content_of(registry, "a", DIGEST, 4, 10_000) == LAYER[4:]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
async def test_session(registry: Registry, algorithm: str) -> None:
    """A session tells how far it is and what it has; closed, it is the blob."""
    session = await registry.uploads.start("a", algorithm)
    assert (session.repository, session.algorithm, session.received, session.digest) == ("a", algorithm, 0, None)
    moved = await registry.uploads.append("a", session.id, pieces(LAYER[:5]), first=0, length=5)
    assert (moved.received, moved.digest) == (5, digest_of(LAYER[:5], algorithm))
    assert await registry.uploads.get("a", session.id) == moved
    moved = await registry.uploads.append("a", session.id, pieces(LAYER[5:10]))
    assert (moved.received, moved.digest) == (10, digest_of(LAYER[:10], algorithm))
    digest = digest_of(LAYER, algorithm)
    assert await registry.uploads.finish("a", session.id, digest, pieces(LAYER[10:]), first=10) == digest
    assert await content_of(registry, "a", digest) == LAYER
    with pytest.raises(BlobUploadUnknown):
        await registry.uploads.get("a", session.id)


async def test_errors_of_a_session(registry: Registry) -> None:
    """Each wrong step raises its error and leaves the session as it was."""
    uploads = registry.uploads
    session = await uploads.start("a")
    await uploads.append("a", session.id, pieces(LAYER[:5]))
    with pytest.raises(BlobUploadRangeInvalid) as caught:
        await uploads.append("a", session.id, pieces(b"x"), first=4)
    assert caught.value.details == ({"received": 5, "first": 4},)
    with pytest.raises(BlobUploadRangeInvalid):
        await uploads.finish("a", session.id, DIGEST, pieces(b"x"), first=6)
    with pytest.raises(SizeInvalid):
        await uploads.append("a", session.id, pieces(b"xyz"), length=2)
    with pytest.raises(SizeInvalid):
        await uploads.finish("a", session.id, DIGEST, pieces(LAYER[5:]), length=2)
    with pytest.raises(DigestInvalid):
        await uploads.finish("a", session.id, DIGEST)
    with pytest.raises(DigestInvalid):
        await uploads.finish("a", session.id, "latest")
    with pytest.raises(DigestInvalid):
        await uploads.finish("a", session.id, digest_of(b"", "blake3"), pieces(LAYER[5:]))
    with pytest.raises(ClientDisconnected):
        await uploads.finish("a", session.id, DIGEST, interrupted(LAYER[5:9]))
    assert (await uploads.get("a", session.id)).received == 5
    assert await uploads.finish("a", session.id, DIGEST, pieces(LAYER[5:])) == DIGEST


async def test_empty_pieces(registry: Registry) -> None:
    """Pieces without bytes in a body make no difference, and a body of nothing else is empty."""
    await registry.uploads.push("a", DIGEST, pieces(b"", b"", LAYER[:5], b"", LAYER[5:], b""))
    assert await content_of(registry, "a", DIGEST) == LAYER
    session = await registry.uploads.start("a")
    assert (await registry.uploads.append("a", session.id, pieces(b"", b""))).received == 0
    with pytest.raises(SizeInvalid):
        await registry.uploads.append("a", session.id, pieces(b""), length=1)
    empty = digest_of(b"")
    assert await registry.uploads.finish("a", session.id, empty, pieces(b"")) == empty


async def test_unknown_session(registry: Registry) -> None:
    """A session that is not there, or another repository's, raises BlobUploadUnknown for every verb."""
    session = await registry.uploads.start("a")
    for repository, identifier in (("a", "none"), ("b", session.id)):
        with pytest.raises(BlobUploadUnknown):
            await registry.uploads.get(repository, identifier)
        with pytest.raises(BlobUploadUnknown):
            await registry.uploads.append(repository, identifier, pieces(LAYER))
        with pytest.raises(BlobUploadUnknown):
            await registry.uploads.finish(repository, identifier, DIGEST, pieces(LAYER))
        with pytest.raises(BlobUploadUnknown):
            await registry.uploads.cancel(repository, identifier)
    await registry.uploads.cancel("a", session.id)
    with pytest.raises(BlobUploadUnknown):
        await registry.uploads.cancel("a", session.id)


async def test_interrupted_chunk_is_kept(registry: Registry) -> None:
    """What came before a client went away is kept, and the caller is told that it went."""
    session = await registry.uploads.start("a")
    with pytest.raises(ClientDisconnected):
        await registry.uploads.append("a", session.id, interrupted(LAYER[:3], LAYER[3:6]), length=len(LAYER))
    assert (await registry.uploads.get("a", session.id)).received == 6
    with pytest.raises(ClientDisconnected):
        await registry.uploads.append("a", session.id, interrupted())
    assert (await registry.uploads.get("a", session.id)).received == 6
    assert await registry.uploads.finish("a", session.id, DIGEST, pieces(LAYER[6:])) == DIGEST


@pytest.mark.parametrize("closing", [False, True], ids=["append", "finish"])
async def test_session_that_ends_amid_a_chunk(registry: Registry, closing: bool) -> None:
    """A session that is cancelled while a chunk comes in is unknown to it, and the chunk makes no blob."""
    session = await registry.uploads.start("a")
    await registry.uploads.append("a", session.id, pieces(LAYER[:3]))
    started, go = asyncio.Event(), asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield LAYER[3:5]
        started.set()
        await go.wait()
        yield LAYER[5:]

    async def send() -> None:
        if closing:
            await registry.uploads.finish("a", session.id, DIGEST, waiting())
        else:
            await registry.uploads.append("a", session.id, waiting())

    task = asyncio.create_task(send())
    await started.wait()
    await registry.uploads.cancel("a", session.id)
    await registry.clean()
    go.set()
    with pytest.raises(BlobUploadUnknown):
        await task
    with pytest.raises(BlobUnknown):
        await registry.blobs.get("a", DIGEST)


async def test_names_and_digests_are_checked(registry: Registry) -> None:
    """A malformed name or digest is refused before anything happens."""
    with pytest.raises(NameInvalid):
        await registry.uploads.start("A")
    with pytest.raises(NameInvalid):
        await registry.uploads.push("a//b", DIGEST, pieces(LAYER))
    with pytest.raises(NameInvalid):
        await registry.blobs.mount("A", DIGEST)
    with pytest.raises(DigestInvalid):
        await registry.uploads.start("a", "md5")
    with pytest.raises(DigestInvalid):
        await registry.uploads.push("a", "md5:x", pieces(LAYER))
    with pytest.raises(DigestInvalid):
        await registry.blobs.get("a", "latest")
    with pytest.raises(DigestInvalid):
        await registry.blobs.mount("a", "x")
    with pytest.raises(DigestInvalid):
        await registry.blobs.delete("a", "x")
    assert (await registry.repositories.list()).items == []


async def test_push_errors(registry: Registry) -> None:
    """A push of other content, of another length, or one that breaks off, stores nothing."""
    with pytest.raises(DigestInvalid) as caught:
        await registry.uploads.push("a", NOWHERE, pieces(LAYER))
    assert caught.value.details == ({"digest": NOWHERE, "computed": DIGEST},)
    with pytest.raises(SizeInvalid):
        await registry.uploads.push("a", DIGEST, pieces(LAYER), length=3)
    with pytest.raises(ClientDisconnected):
        await registry.uploads.push("a", DIGEST, interrupted(LAYER))
    with pytest.raises(BlobUnknown):
        await registry.blobs.get("a", DIGEST)


async def test_blob_limit() -> None:
    """The limit counts the whole session."""
    async with open_registry(policy=Policy(blob_limit=10)) as registry:
        await registry.uploads.push("a", digest_of(b"0123456789"), pieces(b"0123456789"))
        with pytest.raises(BlobTooLarge):
            await registry.uploads.push("a", digest_of(b"01234567890"), pieces(b"01234567890"))
        session = await registry.uploads.start("a")
        await registry.uploads.append("a", session.id, pieces(b"01234567"))
        with pytest.raises(BlobTooLarge):
            await registry.uploads.append("a", session.id, pieces(b"890"))
        with pytest.raises(BlobTooLarge):
            await registry.uploads.finish("a", session.id, DIGEST, pieces(b"890"))
        assert (await registry.uploads.get("a", session.id)).received == 8


async def test_mount_and_delete(registry: Registry) -> None:
    """A mount says whether it could; a deletion says whether it may."""
    await registry.uploads.push("a", DIGEST, pieces(LAYER))
    assert not await registry.blobs.mount("c", DIGEST, "b")
    assert await registry.blobs.mount("b", DIGEST, "a")
    assert await registry.blobs.mount("c", DIGEST)
    await registry.blobs.delete("a", DIGEST)
    with pytest.raises(BlobUnknown):
        await registry.blobs.delete("a", DIGEST)
    with pytest.raises(BlobUnknown):
        await registry.blobs.delete("never", DIGEST)
    await registry.uploads.push("b", digest_of(CONFIG), pieces(CONFIG))
    await registry.manifests.put("b", "latest", encode(image()))
    with pytest.raises(InUse) as caught:
        await registry.blobs.delete("b", DIGEST)
    assert caught.value.details[0]["referenced_by"] == [digest_of(encode(image()))]
    assert await content_of(registry, "c", DIGEST) == LAYER


async def test_deletion_turned_off() -> None:
    """Where deletion is off, it raises MethodNotAllowed."""
    async with open_registry(policy=Policy(deletion=False)) as registry:
        await registry.uploads.push("a", DIGEST, pieces(LAYER))
        with pytest.raises(MethodNotAllowed):
            await registry.blobs.delete("a", DIGEST)
        with pytest.raises(MethodNotAllowed):
            await registry.manifests.delete("a", "latest")


async def test_lost_bytes_are_told() -> None:
    """Bytes that storage lost are ContentLost, at their start and amid a read: never a body that looks whole."""
    store = MemoryBlobStore()
    async with Registry(store, SQLiteMetadata()) as registry:
        await registry.uploads.push("a", DIGEST, pieces(LAYER))
        blob = await registry.blobs.get("a", DIGEST)
        await store.delete([blob.key])
        with pytest.raises(ContentLost):
            await content_of(registry, "a", DIGEST)
        await registry.uploads.push("a", DIGEST, pieces(LAYER))
        blob = await registry.blobs.get("a", DIGEST)
        await store.delete([blob.key])
        async with store.write(blob.key) as writer:
            await writer.write([LAYER[:5]])
        with pytest.raises(ContentLost) as caught:
            await content_of(registry, "a", DIGEST)
        assert caught.value.details == ({"digest": DIGEST, "at": 5},)


async def test_small_blobs_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once any of it was read, a small blob needs no storage any more; a large one is not kept."""
    monkeypatch.setattr("moorage.registry.blobs._KEPT", 20_000)
    store = MemoryBlobStore()
    async with Registry(store, SQLiteMetadata()) as registry:
        small, other, large = bytes(9000), b"\1" * 9000, bytes(17_000)
        digests = [await registry.uploads.push("a", digest_of(each), pieces(each)) for each in (small, other, large)]
        blobs = [await registry.blobs.get("a", digest) for digest in digests]
        assert await content_of(registry, "a", digests[0], 1) == small[1:]
        assert registry.blobs.at_hand(blobs[0]) == small
        for digest, content in zip(digests, (small, other, large), strict=True):
            assert await content_of(registry, "a", digest) == content
        assert [registry.blobs.at_hand(blob) for blob in blobs] == [small, other, None]
        third = b"\2" * 9000
        digest = await registry.uploads.push("a", digest_of(third), pieces(third))
        assert await content_of(registry, "a", digest) == third
        assert [registry.blobs.at_hand(blob) for blob in blobs] == [None, other, None]


async def test_at_hand_is_no_way_around_the_link(registry: Registry) -> None:
    """A small blob that is in memory is found only in a repository that holds it."""
    digest = await registry.uploads.push("a", DIGEST, pieces(LAYER))
    assert await content_of(registry, "a", digest) == LAYER
    with pytest.raises(BlobUnknown):
        await registry.blobs.get("b", digest)
    await registry.blobs.delete("a", digest)
    with pytest.raises(BlobUnknown):
        await registry.blobs.get("a", digest)
