"""Pushing a blob monolithically; spec "Pushing a blob monolithically", end-4a, end-4b, end-6."""

import asyncio
import re
import uuid
from pathlib import Path

import httpx
import pytest

from moorage import Registry, create_app, open_registry
from tests.support import LAYER, Exchange, Repository, detail, digest_of, door_to, errors, pieces
from tests.web.conftest import Opener

ALGORITHMS = ["sha256", "sha512", "blake3"]
DIGEST = digest_of(LAYER)


async def finish(
    repository: Repository, location: str, digest: str, content: bytes = b"", **headers: str
) -> httpx.Response:
    """The closing PUT of a session."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await repository.client.put(f"{location}?digest={digest}", content=content, headers=named)


async def test_start(repository: Repository) -> None:
    """A POST opens a session: 202 with a Location that holds a UUID, different each time, and nothing received."""
    response = await repository.post()
    assert (response.status_code, response.content) == (202, b"")
    location = response.headers["location"]
    assert re.fullmatch(r"/v2/library/thing/blobs/uploads/[0-9a-f-]{36}", location)
    assert uuid.UUID(location.rpartition("/")[2]).version == 4
    assert response.headers["range"] == "0-0"
    assert response.headers["content-length"] == "0"
    assert "oci-chunk-min-length" not in response.headers
    assert location != await repository.start()


async def test_start_without_the_last_slash(repository: Repository) -> None:
    """Some clients leave the last slash of the uploads out; they mean the same."""
    response = await repository.client.post(repository.at("blobs/uploads"))
    assert response.status_code == 202


@pytest.mark.parametrize("content", [LAYER, b"", b"x" * (2 * 1024 * 1024 + 3)], ids=["some", "empty", "2 MiB"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_post_then_put(repository: Repository, content: bytes, algorithm: str) -> None:
    """POST, then PUT of the whole: 201 with a Location that can be pulled, and the session is over."""
    location = await repository.start()
    digest = digest_of(content, algorithm)
    response = await finish(repository, location, digest, content, content_type="application/octet-stream")
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["location"] == f"/v2/library/thing/blobs/{digest}"
    assert response.headers["docker-content-digest"] == digest
    assert (await repository.client.get(response.headers["location"])).content == content
    errors(await repository.client.get(location), 404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("content", [LAYER, b""], ids=["some", "empty"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_single_post(repository: Repository, content: bytes, algorithm: str) -> None:
    """A POST with the digest and the content is 201 with a Location that can be pulled."""
    digest = digest_of(content, algorithm)
    response = await repository.post(f"?digest={digest}", content=content)
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["location"] == f"/v2/library/thing/blobs/{digest}"
    assert response.headers["docker-content-digest"] == digest
    assert (await repository.client.get(response.headers["location"])).content == content


async def test_bodies_without_length(repository: Repository) -> None:
    """A body in HTTP chunks, whose length nobody announced, is as good."""
    response = await repository.post(f"?digest={DIGEST}", content=pieces(LAYER[:5], b"", LAYER[5:]))
    assert response.status_code == 201
    other = digest_of(b"other")
    location = await repository.start()
    response = await repository.client.put(f"{location}?digest={other}", content=pieces(b"ot", b"her"))
    assert response.status_code == 201
    assert (await repository.get(f"blobs/{other}")).content == b"other"


async def test_encoded_digest(repository: Repository) -> None:
    """A digest whose colon is percent-encoded in the query or in the path is the same digest."""
    encoded = DIGEST.replace(":", "%3A")
    assert (await repository.post(f"?digest={encoded}", content=LAYER)).status_code == 201
    assert (await repository.get(f"blobs/{encoded}")).content == LAYER


@pytest.mark.parametrize("single", [True, False], ids=["single POST", "PUT"])
async def test_wrong_digest(repository: Repository, single: bool) -> None:
    """Content that does not match the digest is 400 DIGEST_INVALID telling both, and nothing is stored."""
    other = digest_of(b"other")
    if single:
        response = await repository.post(f"?digest={other}", content=LAYER)
    else:
        response = await finish(repository, await repository.start(), other, LAYER)
    assert detail(response, 400, "DIGEST_INVALID") == {"digest": other, "computed": DIGEST}
    assert (await repository.head(f"blobs/{other}")).status_code == 404
    assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404
    errors(await repository.get("tags/list"), 404, "NAME_UNKNOWN")


@pytest.mark.parametrize(
    "digest", ["", "sha256", "sha256:x", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha1:" + "a" * 40]
)
@pytest.mark.parametrize("single", [True, False], ids=["single POST", "PUT"])
async def test_invalid_or_unsupported_digest(repository: Repository, single: bool, digest: str) -> None:
    """A digest that is malformed or of an unsupported algorithm is 400 DIGEST_INVALID; the session stays."""
    if single:
        response = await repository.post(f"?digest={digest}", content=LAYER)
        errors(response, 400, "DIGEST_INVALID")
        return
    location = await repository.start()
    errors(await finish(repository, location, digest, LAYER), 400, "DIGEST_INVALID")
    assert (await finish(repository, location, DIGEST, LAYER)).status_code == 201


async def test_put_without_digest(repository: Repository) -> None:
    """A closing PUT without the digest is 400 DIGEST_INVALID naming the parameter; the session stays."""
    location = await repository.start()
    response = await repository.client.put(location, content=LAYER)
    assert detail(response, 400, "DIGEST_INVALID") == {"parameter": "digest"}
    assert (await finish(repository, location, DIGEST, LAYER)).status_code == 201


async def test_announced_length_is_binding(repository: Repository) -> None:
    """A body that is shorter or longer than its Content-Length is 400 SIZE_INVALID, and nothing is stored."""
    for length in (len(LAYER) - 1, len(LAYER) + 1):
        announced = {"content-length": str(length)}
        response = await repository.post(f"?digest={DIGEST}", content=pieces(LAYER), headers=announced)
        assert detail(response, 400, "SIZE_INVALID") == {"announced": length, "received": len(LAYER)}
        assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "md5", "", "sha256,sha512", "SHA256"])
async def test_digest_algorithm(repository: Repository, algorithm: str) -> None:
    """digest-algorithm takes the registered algorithms (empty: the default); any other is 400 DIGEST_INVALID."""
    response = await repository.post(f"?digest-algorithm={algorithm}")
    if algorithm not in (*ALGORITHMS, ""):
        assert detail(response, 400, "DIGEST_INVALID") == {"algorithm": algorithm, "allowed": ALGORITHMS}
        return
    assert response.status_code == 202
    digest = digest_of(LAYER, algorithm or "sha256")
    assert (await finish(repository, response.headers["location"], digest, LAYER)).status_code == 201


@pytest.mark.parametrize("announced", ALGORITHMS)
@pytest.mark.parametrize("closing", ALGORITHMS)
async def test_another_algorithm_at_the_end(repository: Repository, announced: str, closing: str) -> None:
    """The digest of the closing PUT decides, whatever algorithm the session was opened for."""
    location = await repository.start(f"?digest-algorithm={announced}")
    assert (await repository.client.patch(location, content=LAYER[:7])).status_code == 202
    digest = digest_of(LAYER, closing)
    assert (await finish(repository, location, digest, LAYER[7:])).status_code == 201
    assert (await repository.get(f"blobs/{digest}")).content == LAYER


async def test_again(repository: Repository) -> None:
    """A blob that is there already can be pushed again, with the same answer."""
    for _ in range(3):
        assert await repository.push_blob(LAYER) == DIGEST
    location = await repository.start()
    assert (await finish(repository, location, DIGEST, LAYER)).status_code == 201
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER


@pytest.mark.parametrize("way", ["POST", "PUT", "PATCH", "unannounced"])
async def test_blob_limit(opened: Opener, way: str) -> None:
    """A blob larger than blob_limit is 413 SIZE_INVALID; one of exactly that size is taken."""
    repository = await opened(blob_limit=len(LAYER))
    assert await repository.push_blob(LAYER) == DIGEST
    large = LAYER + b"!"
    location = await repository.start()
    if way == "POST":
        response = await repository.post(f"?digest={digest_of(large)}", content=large)
    elif way == "unannounced":
        response = await repository.post(f"?digest={digest_of(large)}", content=pieces(LAYER, b"!"))
    elif way == "PUT":
        await repository.client.patch(location, content=LAYER[:5])
        response = await finish(repository, location, digest_of(large), large[5:])
    else:
        await repository.client.patch(location, content=LAYER[:5])
        response = await repository.client.patch(location, content=large[5:])
    errors(response, 413, "SIZE_INVALID")
    assert (await repository.head(f"blobs/{digest_of(large)}")).status_code == 404


async def test_identical_blobs_are_stored_once(tmp_path: Path) -> None:
    """The same content pushed in many ways to many repositories is one file."""
    content = b"once" * 1000
    digest = digest_of(content)
    async with open_registry(tmp_path) as registry, door_to(registry) as client:
        for name in ("a", "b", "c/d"):
            repository = Repository(client, name)
            await asyncio.gather(*(repository.push_blob(content) for _ in range(3)))
            location = await repository.start()
            await client.patch(location, content=content[:1000])
            assert (await finish(repository, location, digest, content[1000:])).status_code == 201
        await registry.clean()
        files = [file for file in (tmp_path / "blobs").rglob("*") if file.is_file()]
        assert [file.read_bytes() == content for file in files] == [True]


async def test_failed_pushes_leave_nothing(tmp_path: Path) -> None:
    """What was refused leaves no file behind."""
    async with open_registry(tmp_path) as registry, door_to(registry) as client:
        repository = Repository(client)
        await repository.post(f"?digest={digest_of(b'x')}", content=LAYER)
        location = await repository.start()
        await finish(repository, location, digest_of(b"x"), LAYER)
        await finish(repository, location, DIGEST, LAYER, content_range="5-24")
        await client.patch(location, content=LAYER, headers={"content-range": "0-3"})
        assert [file for file in (tmp_path / "blobs").rglob("*") if file.is_file()] == []


@pytest.mark.parametrize("name", ["A", "a//b", "-a", "a/../b", "a" * 256])
async def test_malformed_repository(registry: Registry, name: str) -> None:
    """A push to a malformed name is 400 NAME_INVALID and opens nothing."""
    exchange = await Exchange(create_app(registry), "POST", f"/v2/{name}/blobs/uploads/").run()
    assert detail(exchange.response, 400, "NAME_INVALID")["name"] == name[:256]
    assert (await registry.repositories.list()).items == []
