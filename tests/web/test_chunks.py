"""Pushing a blob in chunks; spec "Pushing a blob in chunks", "Cancel a blob upload", end-5, end-6, end-13, end-14."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support import LAYER, Repository, detail, digest_of, errors, pieces
from tests.web.conftest import Opener

DIGEST = digest_of(LAYER)
SIZE = len(LAYER)


async def patch(repository: Repository, location: str, content: bytes, wanted: str | None = None) -> httpx.Response:
    """One chunk, with a Content-Range or without."""
    headers = {} if wanted is None else {"content-range": wanted}
    return await repository.client.patch(location, content=content, headers=headers)


async def put(
    repository: Repository, location: str, content: bytes = b"", wanted: str | None = None
) -> httpx.Response:
    """The closing PUT, with a last chunk or without."""
    headers = {} if wanted is None else {"content-range": wanted}
    return await repository.client.put(f"{location}?digest={DIGEST}", content=content, headers=headers)


async def assert_at(repository: Repository, location: str, received: int) -> None:
    """The session must have that many bytes: end-13 says so."""
    for method in ("GET", "HEAD"):
        response = await repository.client.request(method, location)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["location"] == location
        assert response.headers["range"] == f"0-{max(0, received - 1)}"
        assert "content-length" not in response.headers


async def test_chunks_in_order(repository: Repository) -> None:
    """Each chunk is 202 with where to go on and how far it got; the closing PUT without body is 201."""
    location = await repository.start()
    for start in range(0, SIZE, 7):
        chunk = LAYER[start : start + 7]
        last = start + len(chunk) - 1
        response = await patch(repository, location, chunk, f"{start}-{last}")
        assert (response.status_code, response.content) == (202, b"")
        assert response.headers["range"] == f"0-{last}"
        location = response.headers["location"]
        await assert_at(repository, location, last + 1)
    response = await put(repository, location)
    assert response.status_code == 201
    assert response.headers["location"] == repository.at(f"blobs/{DIGEST}")
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER


async def test_last_chunk_in_the_put(repository: Repository) -> None:
    """The last chunk may come with the closing PUT, with a Content-Range or without."""
    for wanted in (f"10-{SIZE - 1}", None):
        location = await repository.start()
        await patch(repository, location, LAYER[:10], "0-9")
        assert (await put(repository, location, LAYER[10:], wanted)).status_code == 201
        assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER


async def test_streamed(repository: Repository) -> None:
    """A PATCH without Content-Range and without length is taken as it streams in, then closed."""
    location = await repository.start()
    response = await repository.client.patch(location, content=pieces(LAYER[:3], LAYER[3:9], LAYER[9:]))
    assert (response.status_code, response.headers["range"]) == (202, f"0-{SIZE - 1}")
    assert (await put(repository, location)).status_code == 201


async def test_streamed_twice(repository: Repository) -> None:
    """Chunks without Content-Range follow each other as they come."""
    location = await repository.start()
    await patch(repository, location, LAYER[:4])
    response = await patch(repository, location, LAYER[4:])
    assert response.headers["range"] == f"0-{SIZE - 1}"
    assert (await put(repository, location)).status_code == 201


@pytest.mark.parametrize("start", [0, 4, 6, 100])
@pytest.mark.parametrize("closing", [False, True], ids=["PATCH", "PUT"])
async def test_out_of_order(repository: Repository, start: int, closing: bool) -> None:
    """A chunk that repeats or skips bytes is 416 telling where to go on; the session keeps its place and goes on."""
    location = await repository.start()
    await patch(repository, location, LAYER[:5], "0-4")
    send = put if closing else patch
    response = await send(repository, location, LAYER[:5], f"{start}-{start + 4}")
    assert detail(response, 416, "BLOB_UPLOAD_INVALID") == {"received": 5, "first": start}
    assert response.headers["range"] == "0-4"
    assert response.headers["location"] == location
    await assert_at(repository, location, 5)
    assert (await send(repository, location, LAYER[5:], f"5-{SIZE - 1}")).status_code in (201, 202)


async def test_first_chunk_begins_with_zero(repository: Repository) -> None:
    """A first chunk that does not begin with 0 is 416."""
    location = await repository.start()
    response = await patch(repository, location, LAYER[5:], f"5-{SIZE - 1}")
    assert detail(response, 416, "BLOB_UPLOAD_INVALID") == {"received": 0, "first": 5}
    assert response.headers["range"] == "0-0"


@pytest.mark.parametrize("wanted", ["0-3", "0-5", f"0-{SIZE}"])
@pytest.mark.parametrize("closing", [False, True], ids=["PATCH", "PUT"])
async def test_range_against_length(repository: Repository, wanted: str, closing: bool) -> None:
    """A Content-Range that contradicts the Content-Length is 400 SIZE_INVALID; nothing is kept."""
    location = await repository.start()
    send = put if closing else patch
    response = await send(repository, location, LAYER[:5], wanted)
    assert detail(response, 400, "SIZE_INVALID") == {"Content-Range": wanted, "Content-Length": 5}
    await assert_at(repository, location, 0)


@pytest.mark.parametrize("wanted", ["0-3", "0-5"])
async def test_range_against_what_came(repository: Repository, wanted: str) -> None:
    """Without a Content-Length, the Content-Range says how many bytes must come."""
    location = await repository.start()
    headers = {"content-range": wanted}
    response = await repository.client.patch(location, content=pieces(LAYER[:5]), headers=headers)
    announced = int(wanted[2:]) + 1
    assert detail(response, 400, "SIZE_INVALID") == {"announced": announced, "received": 5}
    await assert_at(repository, location, 0)


@pytest.mark.parametrize("wanted", ["", "bytes 0-4/5", "bytes=0-4", "4-0", "0-", "x-y", "-1-4", "0-4/5"])
@pytest.mark.parametrize("closing", [False, True], ids=["PATCH", "PUT"])
async def test_malformed_content_range(repository: Repository, wanted: str, closing: bool) -> None:
    """A Content-Range that is not ``<first>-<last>`` is 400 BLOB_UPLOAD_INVALID; nothing is kept."""
    location = await repository.start()
    send = put if closing else patch
    response = await send(repository, location, LAYER[:5], wanted)
    assert detail(response, 400, "BLOB_UPLOAD_INVALID")["Content-Range"] == wanted
    await assert_at(repository, location, 0)


async def test_empty_chunk(repository: Repository) -> None:
    """A chunk of nothing changes nothing."""
    location = await repository.start()
    await patch(repository, location, LAYER[:5])
    response = await patch(repository, location, b"")
    assert (response.status_code, response.headers["range"]) == (202, "0-4")
    await assert_at(repository, location, 5)
    assert (await put(repository, location, LAYER[5:])).status_code == 201


async def test_empty_blob(repository: Repository) -> None:
    """A session that received nothing can be closed as the empty blob, after an empty PATCH too."""
    empty = digest_of(b"")
    for patched in (False, True):
        location = await repository.start()
        if patched:
            await patch(repository, location, b"")
        response = await repository.client.put(f"{location}?digest={empty}")
        assert response.status_code == 201
    assert (await repository.get(f"blobs/{empty}")).content == b""


async def test_wrong_digest_keeps_the_session(repository: Repository) -> None:
    """A closing PUT with the wrong digest is 400 DIGEST_INVALID and leaves the session as it was."""
    location = await repository.start()
    await patch(repository, location, LAYER[:5])
    wrong = await repository.client.put(f"{location}?digest={digest_of(b'x')}", content=LAYER[5:])
    assert detail(wrong, 400, "DIGEST_INVALID")["computed"] == DIGEST
    await assert_at(repository, location, 5)
    wrong = await repository.client.put(f"{location}?digest={DIGEST}")
    assert detail(wrong, 400, "DIGEST_INVALID")["computed"] == digest_of(LAYER[:5])
    await assert_at(repository, location, 5)
    assert (await put(repository, location, LAYER[5:])).status_code == 201
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER


async def test_cancel(repository: Repository) -> None:
    """A DELETE ends the session with 204; every later request to it is 404 BLOB_UPLOAD_UNKNOWN."""
    location = await repository.start()
    await patch(repository, location, LAYER)
    response = await repository.client.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    for method in ("GET", "PATCH", "DELETE"):
        response = await repository.client.request(method, location)
        assert detail(response, 404, "BLOB_UPLOAD_UNKNOWN")["upload"] == location.rpartition("/")[2]
    errors(await put(repository, location), 404, "BLOB_UPLOAD_UNKNOWN")
    assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404


@pytest.mark.parametrize(
    "upload", ["00000000-0000-4000-8000-000000000000", "nonsense", "..%2F..", "x" * 1000, "%00", "'"]
)
async def test_unknown_session(repository: Repository, upload: str) -> None:
    """A session that never was is 404 BLOB_UPLOAD_UNKNOWN, whatever its name looks like."""
    location = repository.at(f"blobs/uploads/{upload}")
    for response in (
        await repository.client.get(location),
        await patch(repository, location, LAYER),
        await put(repository, location, LAYER),
        await repository.client.delete(location),
    ):
        if "%2F" in upload:
            assert response.status_code in (400, 404, 405)
        else:
            errors(response, 404, "BLOB_UPLOAD_UNKNOWN")


async def test_session_of_another_repository(repository: Repository) -> None:
    """A session is known only under the repository that it was opened for."""
    location = (await repository.start()).replace("library/thing", "other")
    errors(await repository.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
    errors(await patch(repository, location, LAYER), 404, "BLOB_UPLOAD_UNKNOWN")
    errors(await put(repository, location, LAYER), 404, "BLOB_UPLOAD_UNKNOWN")
    errors(await repository.client.delete(location), 404, "BLOB_UPLOAD_UNKNOWN")


async def test_unfinished_upload_is_no_blob(repository: Repository) -> None:
    """Until its session is closed, a blob is not there, nor is its repository."""
    location = await repository.start()
    await patch(repository, location, LAYER)
    assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404
    errors(await repository.get("tags/list"), 404, "NAME_UNKNOWN")
    assert (await repository.client.get("/v2/_catalog")).json() == {"repositories": []}


async def test_minimum_chunk(opened: Opener) -> None:
    """A configured minimum is told by OCI-Chunk-Min-Length; chunks below it are taken all the same."""
    repository = await opened(chunk_minimum=4096)
    response = await repository.post()
    assert response.headers["oci-chunk-min-length"] == "4096"
    location = response.headers["location"]
    assert (await patch(repository, location, LAYER[:5], "0-4")).status_code == 202
    assert (await put(repository, location, LAYER[5:], f"5-{SIZE - 1}")).status_code == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
async def test_chunks_of_each_algorithm(repository: Repository, algorithm: str) -> None:
    """Chunks of a session of any algorithm make a blob under the digest of the whole."""
    location = await repository.start(f"?digest-algorithm={algorithm}")
    await patch(repository, location, LAYER[:5], "0-4")
    await patch(repository, location, LAYER[5:], f"5-{SIZE - 1}")
    digest = digest_of(LAYER, algorithm)
    assert (await repository.client.put(f"{location}?digest={digest}")).status_code == 201
    assert (await repository.get(f"blobs/{digest}")).content == LAYER


async def test_many_chunks(repository: Repository) -> None:
    """A blob of two hundred chunks is the bytes in their order."""
    content = bytes(range(200)) * 50
    location = await repository.start()
    for start in range(0, len(content), 50):
        assert (await patch(repository, location, content[start : start + 50])).status_code == 202
    digest = digest_of(content)
    assert (await repository.client.put(f"{location}?digest={digest}")).status_code == 201
    assert (await repository.get(f"blobs/{digest}")).content == content


async def test_racing_chunks(repository: Repository) -> None:
    """Of chunks for one place that race, one is taken; the others are told 416 and where to go on."""
    location = await repository.start()

    async def slowly() -> httpx.Response:
        async def bytes_in_turns() -> AsyncIterator[bytes]:
            for byte in LAYER[:10]:
                await asyncio.sleep(0)
                yield bytes([byte])

        return await repository.client.patch(location, content=bytes_in_turns(), headers={"content-range": "0-9"})

    answers = await asyncio.gather(*(slowly() for _ in range(8)))
    assert sorted(each.status_code for each in answers) == [202] + [416] * 7
    assert {each.headers["range"] for each in answers} == {"0-9"}
    assert (await put(repository, location, LAYER[10:])).status_code == 201


async def test_racing_closings(repository: Repository) -> None:
    """Of closing PUTs that race, one is 201 and the others find the session gone; the blob is whole."""
    location = await repository.start()
    await patch(repository, location, LAYER)
    answers = await asyncio.gather(*(put(repository, location) for _ in range(8)))
    assert sorted(each.status_code for each in answers) == [201] + [404] * 7
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER
