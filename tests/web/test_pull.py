"""Pulling blobs and manifests, and asking whether they exist; spec "Pull", end-2, end-3."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from moorage import Registry, create_app, open_registry
from moorage.registry.blobs import ContentLost
from tests.support import (
    CONFIG,
    DISCONNECT,
    LAYER,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Exchange,
    Repository,
    body,
    descriptor,
    detail,
    digest_of,
    encode,
    errors,
    image,
    served,
)

ALGORITHMS = ["sha256", "sha512", "blake3"]
NOWHERE = digest_of(b"nowhere")


@dataclass
class Stored:
    """Something that is stored: its content, its address, its type."""

    repository: Repository
    path: str
    content: bytes
    digest: str
    media_type: str


@pytest.fixture(params=["blob", "manifest by tag", "manifest by digest"])
async def stored(repository: Repository, request: pytest.FixtureRequest) -> Stored:
    """A blob, and a manifest by tag and by digest."""
    found = await repository.push_image("latest")
    content = encode(image())
    paths = {
        "blob": (f"blobs/{digest_of(LAYER)}", LAYER, digest_of(LAYER), "application/octet-stream"),
        "manifest by tag": ("manifests/latest", content, found["digest"], OCI_MANIFEST),
        "manifest by digest": (f"manifests/{found['digest']}", content, found["digest"], OCI_MANIFEST),
    }
    return Stored(repository, *paths[request.param])


async def test_get(stored: Stored) -> None:
    """A GET is 200 with the bytes as pushed, their digest, length, type, and validators."""
    response = await stored.repository.get(stored.path)
    assert response.status_code == 200
    assert response.content == stored.content
    assert response.headers["docker-content-digest"] == stored.digest
    assert response.headers["content-length"] == str(len(stored.content))
    assert response.headers["content-type"] == stored.media_type
    assert response.headers["etag"] == f'"{stored.digest}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"


async def test_head(stored: Stored) -> None:
    """A HEAD has every header that the GET has, and no body."""
    got, head = await stored.repository.get(stored.path), await stored.repository.head(stored.path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers == got.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unknown_blob(repository: Repository, method: str) -> None:
    """A blob that is not in the repository is 404, in a repository that is there or not."""
    for _ in range(2):
        response = await repository.client.request(method, repository.at(f"blobs/{NOWHERE}"))
        assert response.status_code == 404
        if method == "GET":
            assert detail(response, 404, "BLOB_UNKNOWN") == {"name": repository.name, "digest": NOWHERE}
        await repository.push_image("latest")


@pytest.mark.parametrize("reference", [NOWHERE, "nowhere"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unknown_manifest(repository: Repository, method: str, reference: str) -> None:
    """A manifest that is not in the repository is 404, in a repository that is there or not."""
    for _ in range(2):
        response = await repository.client.request(method, repository.at(f"manifests/{reference}"))
        assert response.status_code == 404
        if method == "GET":
            expected = {"name": repository.name, "reference": reference}
            assert detail(response, 404, "MANIFEST_UNKNOWN") == expected
        await repository.push_image("latest")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_blob_of_each_algorithm(repository: Repository, algorithm: str) -> None:
    """A blob is pulled by the digest that it was pushed by, of each registered algorithm."""
    digest = await repository.push_blob(LAYER, algorithm)
    response = await repository.get(f"blobs/{digest}")
    assert (response.status_code, response.content) == (200, LAYER)
    assert response.headers["docker-content-digest"] == digest
    others = [digest_of(LAYER, each) for each in ALGORITHMS if each != algorithm]
    assert [(await repository.head(f"blobs/{each}")).status_code for each in others] == [404, 404]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_manifest_of_each_algorithm(repository: Repository, algorithm: str) -> None:
    """A manifest pushed by a digest of any algorithm is pulled by it, and its tag answers with it."""
    await repository.push_image()
    content = encode(image(annotations={"algorithm": algorithm}))
    digest = digest_of(content, algorithm)
    await repository.push(content, digest, params=[("tag", "tagged")])
    for reference in (digest, "tagged"):
        response = await repository.get(f"manifests/{reference}")
        assert (response.status_code, response.content) == (200, content)
        assert response.headers["docker-content-digest"] == digest


async def test_blob_is_pulled_only_through_its_repository(repository: Repository) -> None:
    """A blob of one repository is not there for another, nor is a manifest."""
    found = await repository.push_image("latest")
    other = Repository(repository.client, "other")
    await other.push_blob(b"something else")
    assert (await other.get(f"blobs/{digest_of(LAYER)}")).status_code == 404
    assert (await other.get(f"manifests/{found['digest']}")).status_code == 404
    assert (await other.get("manifests/latest")).status_code == 404


async def test_manifest_is_no_blob_and_blob_no_manifest(repository: Repository) -> None:
    """A manifest is not served as a blob, nor a blob as a manifest."""
    found = await repository.push_image("latest")
    errors(await repository.get(f"blobs/{found['digest']}"), 404, "BLOB_UNKNOWN")
    errors(await repository.get(f"manifests/{digest_of(LAYER)}"), 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", OCI_MANIFEST, f"text/html, {OCI_MANIFEST};q=0.5", OCI_INDEX, "application/json", "text/plain", ""],
)
async def test_accept(repository: Repository, accept: str | None) -> None:
    """Whatever Accept lists, the client gets the manifest as it was pushed: content is never rewritten."""
    await repository.push_image("latest")
    headers = {} if accept is None else {"accept": accept}
    response = await repository.get("manifests/latest", headers=headers)
    assert (response.status_code, response.content) == (200, encode(image()))
    assert response.headers["content-type"] == OCI_MANIFEST


@pytest.mark.parametrize("size", [0, 1, 255, 256 * 1024, 256 * 1024 + 1, 3 * 1024 * 1024 + 7])
async def test_sizes(repository: Repository, size: int) -> None:
    """A blob of any size, the empty one too, comes back byte for byte."""
    content = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    digest = await repository.push_blob(content)
    response = await repository.get(f"blobs/{digest}")
    assert response.content == content
    assert response.headers["content-length"] == str(size)
    assert (await repository.head(f"blobs/{digest}")).headers["content-length"] == str(size)


async def test_unknown_query_parameters_are_ignored(repository: Repository) -> None:
    """A pull with ``ns`` (registry proxying) or any other parameter is answered as without it."""
    await repository.push_image("latest")
    response = await repository.get("manifests/latest?ns=docker.io&x=y")
    assert response.status_code == 200
    assert "oci-namespace" not in response.headers


async def test_manifest_that_needs_nothing(repository: Repository, registry: Registry) -> None:
    """Config and layers are pulled in any order, before the manifest or after it."""
    await repository.push_image("latest")
    document = (await repository.get("manifests/latest")).json()
    assert document["config"] == descriptor(CONFIG, OCI_CONFIG)
    assert document["layers"] == [descriptor(LAYER, OCI_LAYER)]
    for each in (document["layers"][0], document["config"]):
        response = await repository.get(f"blobs/{each['digest']}")
        assert len(response.content) == each["size"]
        assert digest_of(response.content) == each["digest"]


async def lose(folder: Path, keep: int) -> None:
    """Cut the one file below ``folder`` to ``keep`` bytes."""
    (file,) = [each for each in folder.rglob("*") if each.is_file()]
    if keep:
        os.truncate(file, keep)
    else:
        file.unlink()


async def test_lost_bytes_are_no_200(tmp_path: Path) -> None:
    """A blob whose bytes are gone from storage is 500, not an empty 200."""
    async with open_registry(tmp_path) as registry, served(create_app(registry), checked=False) as client:
        digest = await Repository(client).push_blob(LAYER)
        await lose(tmp_path / "blobs", 0)
        response = await client.get(f"/v2/library/thing/blobs/{digest}")
        assert detail(response, 500, "UNKNOWN") == {"digest": digest}


async def test_bytes_lost_amid_a_pull_cut_the_connection(tmp_path: Path) -> None:
    """A blob whose file was cut ends in a broken connection, not in a body that looks whole."""
    async with open_registry(tmp_path) as registry:
        app = create_app(registry)
        async with served(app) as client:
            digest = await Repository(client).push_blob(bytes(1024 * 1024))
        await lose(tmp_path / "blobs", 700_000)
        exchange = Exchange(app, "GET", f"/v2/library/thing/blobs/{digest}")
        with pytest.raises(ContentLost):
            await exchange.run()
        assert exchange.sent[0]["status"] == 200
        assert len(exchange.response.content) <= 700_000
        assert exchange.sent[-1]["more_body"]


async def test_nothing_is_read_for_a_client_that_left(tmp_path: Path) -> None:
    """When the client goes amid a pull, the rest of the blob is not read."""
    async with open_registry(tmp_path) as registry:
        app = create_app(registry)
        async with served(app) as client:
            digest = await Repository(client).push_blob(bytes(8 * 1024 * 1024))
        exchange = Exchange(app, "GET", f"/v2/library/thing/blobs/{digest}", messages=[body(b""), DISCONNECT])
        await exchange.run()
        assert len(exchange.response.content) < 4 * 1024 * 1024
