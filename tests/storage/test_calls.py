"""What each operation asks of a bucket, counted on the wire. Nothing is ever copied inside it."""

import pytest

from moorage.spec.digest import Digest
from moorage.storage.adopting import AdoptingBlobStore
from moorage.storage.base import key_in_tree
from moorage.storage.bucket_tree import BucketTree
from moorage.storage.memory import MemoryBlobStore
from moorage.storage.objects import ObjectBlobStore
from moorage.storage.trees import data_path
from tests.storage.conftest import Opener
from tests.support import digest_of

pytestmark = pytest.mark.stores

MIB = 1024 * 1024
SMALL, LARGE = b"small" * 1000, bytes(20 * MIB)


async def test_a_small_push_is_one_put(behind: Opener) -> None:
    """However it is pushed: by one request, by POST and PUT, by POST, PATCH and PUT."""
    place = await behind()
    repository = place.repository
    await repository.push_blob(b"1" + SMALL)
    assert place.proxy.verbs() == ["put"]

    location = await repository.start()
    content = b"2" + SMALL
    answer = await repository.client.put(location, params={"digest": digest_of(content)}, content=content)
    assert answer.status_code == 201
    assert place.proxy.verbs() == ["put"] * 2

    location = await repository.start()
    content = b"3" + SMALL
    answer = await repository.client.patch(location, content=content)
    answer = await repository.client.put(answer.headers["location"], params={"digest": digest_of(content)})
    assert answer.status_code == 201
    assert place.proxy.verbs() == ["put"] * 3
    assert await place.wrong() == []


async def test_a_large_push_is_one_multipart_upload(behind: Opener) -> None:
    """20 MiB in parts of 8 MiB: three parts, and one request more at each end."""
    place = await behind()
    await place.repository.push_blob(LARGE)
    assert sorted(place.proxy.verbs()) == ["begin", "complete", "part", "part", "part"]
    sizes = sorted(len(each.body) for each in place.proxy.requests if each.verb == "part")
    assert sizes == [4 * MIB, 8 * MIB, 8 * MIB]


async def test_several_chunks_are_read_and_written_once(behind: Opener) -> None:
    """A chunk is a PUT; closing gets each once, puts the whole, and deletes the chunks together."""
    place = await behind()
    contents = [b"a" * 1000, b"b" * 2000, b"c" * 3000]
    location = await place.repository.start()
    for content in contents:
        location = (await place.repository.client.patch(location, content=content)).headers["location"]
    assert place.proxy.verbs() == ["put"] * 3
    place.proxy.requests.clear()
    whole = b"".join(contents)
    answer = await place.repository.client.put(location, params={"digest": digest_of(whole)})
    assert answer.status_code == 201
    assert place.proxy.verbs() == ["get", "get", "get", "put"]
    place.proxy.requests.clear()
    await place.registry.clean()
    assert place.proxy.verbs() == ["delete many"]
    await place.keys()
    assert (await place.repository.get(f"blobs/{digest_of(whole)}")).content == whole


async def test_a_pull_is_one_get_and_a_look_is_nothing(behind: Opener) -> None:
    """HEAD, 304 and manifests need nothing of the bucket; with redirects, GET does not either."""
    place = await behind()
    digest = await place.repository.push_blob(SMALL)
    await place.repository.push_image("latest")
    place.proxy.requests.clear()
    assert (await place.repository.get(f"blobs/{digest}")).content == SMALL
    assert place.proxy.verbs() == ["get"]
    other = await place.repository.push_blob(b"other" + SMALL)  # small ones that were pulled may be remembered
    place.proxy.requests.pop()
    assert (await place.repository.get(f"blobs/{other}", headers={"Range": "bytes=5-9"})).content == b"small"
    assert place.proxy.verbs() == ["get"] * 2
    assert (await place.repository.head(f"blobs/{digest}")).status_code == 200
    answer = await place.repository.get(f"blobs/{digest}", headers={"If-None-Match": f'"{digest}"'})
    assert answer.status_code == 304
    assert (await place.repository.get("manifests/latest")).status_code == 200
    assert place.proxy.verbs() == ["get"] * 2


async def test_a_redirect_asks_nothing(behind: Opener) -> None:
    place = await behind(redirect="always")
    digest = await place.repository.push_blob(SMALL)
    place.proxy.requests.clear()
    assert (await place.repository.get(f"blobs/{digest}")).status_code == 307
    assert place.proxy.verbs() == []


async def test_a_pull_from_an_adopted_tree_is_one_get(behind: Opener) -> None:
    place = await behind()
    digest = digest_of(SMALL)
    folder = "docker/registry/v2"
    for path in (data_path(f"{folder}/", "sha256", digest.partition(":")[2]), f"{folder}/repositories/a/link"):
        async with place.store.write(path) as writer:
            await writer.write([SMALL])
    assert isinstance(place.store, ObjectBlobStore)
    async with AdoptingBlobStore(MemoryBlobStore(), BucketTree(place.store, "old"), "adopt") as store:
        place.proxy.requests.clear()
        key = key_in_tree(Digest(digest))
        assert b"".join([bytes(piece) async for piece in store.read(key)]) == SMALL
        assert b"".join([bytes(piece) async for piece in store.read(key, 5, 10)]) == b"small"
        assert place.proxy.verbs() == ["get"] * 2
