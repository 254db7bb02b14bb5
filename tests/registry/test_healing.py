"""Healing: damaged bytes are never served again, and the next push repairs them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from moorage.errors import BlobUnknown, ManifestBlobUnknown
from moorage.registry.blobs import ContentLost
from moorage.registry.check import check
from moorage.registry.scrub import Scrubbed, _pass
from moorage.registry.scrub import scrub as scrub_blobs
from tests.registry.test_collection import GRACE, Place
from tests.support import CONFIG, LAYER, digest_of, door_to, image, pieces

DAMAGES: dict[str, bytes | None] = {
    "flipped": b"the bytes of a lbyer",
    "truncated": LAYER[:5],
    "zero length": b"",
    "longer": LAYER + b"x",
    "missing": None,
}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    async with made.registry:
        for repository in ("a", "b"):
            for content in (CONFIG, LAYER):
                await made.blob(content, repository)
            await made.put(image(), "v1", repository)
        await made.registry.clean()
        yield made


async def damage(place: Place, content: bytes | None) -> None:
    """Let the storage hold something else for the layer."""
    blob = await place.registry.blobs.get("a", digest_of(LAYER))
    if content is None:
        del place.store._objects[blob.key]
    else:
        place.store._objects[blob.key] = content


async def pulled(place: Place, repository: str = "a") -> bytes:
    blob = await place.registry.blobs.get(repository, digest_of(LAYER))
    return b"".join([bytes(each) async for each in place.registry.blobs.read(blob)])


@pytest.mark.parametrize("name", DAMAGES)
async def test_scrub_quarantines_and_a_push_repairs(place: Place, name: str) -> None:
    """Found damaged, it is there for nobody, also in ranges; pushed again, it is there for everybody who had it."""
    await damage(place, DAMAGES[name])
    scrubbed = await place.registry.scrub()
    assert (scrubbed.blobs, scrubbed.quarantined) == (2, 1)
    async with door_to(place.registry) as client:
        path = f"/v2/a/blobs/{digest_of(LAYER)}"
        for headers in ({}, {"range": "bytes=0-3"}, {"if-none-match": f'"{digest_of(LAYER)}"'}):
            for method in ("GET", "HEAD"):
                assert (await client.request(method, path, headers=headers)).status_code == 404
        (error,) = (await client.get(path)).json()["errors"]
        assert error["code"] == "BLOB_UNKNOWN"
        assert error["detail"]["damage"]
        response = await client.post(f"/v2/c/blobs/uploads/?mount={digest_of(LAYER)}&from=a")
        assert response.status_code == 202
    with pytest.raises(ManifestBlobUnknown):
        await place.put(image(annotations={"n": "2"}), "v2")
    assert [each.digest for each in await place.registry.quarantined()] == [digest_of(LAYER)]
    found = [each.what async for each in check(place.store, place.metadata)]
    assert len(found) == 2
    assert all("push it again" in each for each in found)
    await place.blob(LAYER)
    await place.registry.clean()
    assert [await pulled(place, each) for each in ("a", "b")] == [LAYER, LAYER]
    assert await place.registry.quarantined() == []
    assert [each async for each in check(place.store, place.metadata, full=True)] == []
    assert await place.objects() == 2


@pytest.mark.parametrize("name", ["truncated", "zero length", "missing"])
async def test_a_pull_that_meets_it_quarantines(place: Place, name: str) -> None:
    """What cannot be read whole is an error, never an answer that ends early, and not there from then on."""
    await damage(place, DAMAGES[name])
    with pytest.raises(ContentLost):
        await pulled(place)
    with pytest.raises(BlobUnknown):
        await pulled(place)
    await place.blob(LAYER, "b")
    assert await pulled(place) == LAYER


async def test_storage_that_was_away(place: Place) -> None:
    """What was quarantined since the storage was away is there again by itself once that is back."""
    objects, place.store._objects = place.store._objects, {}
    with pytest.raises(ContentLost):
        await pulled(place)
    assert (await place.registry.scrub()).quarantined == 1
    place.store._objects = objects
    await place.registry.scrub()
    assert await pulled(place) == LAYER
    assert await place.registry.quarantined() == []


async def test_deleted_while_it_is_pulled(place: Place) -> None:
    """A blob that was collected between the question and the read is unknown, not lost."""
    await place.blob(b"loose", "c")
    blob = await place.registry.blobs.get("c", digest_of(b"loose"))
    await place.later(GRACE)
    with pytest.raises(BlobUnknown):
        [each async for each in place.registry.blobs.read(blob)]
    assert await place.registry.quarantined() == []


async def test_quarantined_and_not_needed(place: Place) -> None:
    """Damaged content that nothing references goes as any other does, with its bytes and its note."""
    await damage(place, b"wrong")
    await place.registry.scrub()
    for repository in ("a", "b"):
        digest = (await place.registry.manifests.get(repository, "v1")).digest
        await place.registry.manifests.delete(repository, digest)
    await place.later(GRACE)
    assert await place.registry.quarantined() == []
    assert await place.objects() == 0


async def test_a_push_meanwhile_is_not_quarantined(place: Place) -> None:
    """Bytes that came while the damaged ones were read are good."""
    await damage(place, b"wrong")
    blob = await place.registry.blobs.get("a", digest_of(LAYER))
    await place.registry.scrub()
    await place.blob(LAYER)
    with pytest.raises(BlobUnknown):
        await place.registry.blobs._lost(blob, "seen long ago")
    assert await pulled(place) == LAYER


async def test_one_bad_read_is_no_damage(place: Place) -> None:
    """What reads wrongly once and rightly the next time is left alone."""
    real, wrong = place.store.read, 1

    async def read(key: str, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        nonlocal wrong
        async for piece in real(key, start, stop):
            yield b"?" * len(piece) if wrong else bytes(piece)
        wrong = 0

    place.store.read = read  # type: ignore[method-assign, assignment]
    assert (await place.registry.scrub()).quarantined == 0


async def test_progress_is_kept(place: Place) -> None:
    """A pass goes on where the last one was, and does not read again what was verified lately."""
    for n in range(10):
        await place.blob(b"%d" % n)
    parts = place.registry._parts
    read: list[str] = []
    real = place.store.read

    def noted(key: str, *bounds: Any) -> Any:
        read.append(key)
        place.now += 100  # more than a turn between two tellings
        return real(key, *bounds)

    place.store.read = noted  # type: ignore[method-assign, assignment]
    place.now += 31 * 86400
    rows = await place.metadata.fetch("page_to_verify", "", place.now, 100)
    middle = rows[6][0]
    await _pass(parts, middle)
    assert len(read) == 5
    await _pass(parts, "")
    assert len(read) == 12
    await _pass(parts, "")
    assert len(read) == 12
    assert (await scrub_blobs(parts, Scrubbed())).blobs == 12


async def test_pushing_what_is_whole_keeps_the_first_bytes(place: Place) -> None:
    """Without damage the second push of a digest is dropped, as ever."""
    before = [key async for key in place.store.list()]
    await place.registry.uploads.push("c", digest_of(LAYER), pieces(LAYER))
    await place.registry.clean()
    assert sorted([key async for key in place.store.list()]) == sorted(before)
