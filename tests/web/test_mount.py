"""Mounting a blob from another repository; spec "Mounting a blob from another repository", end-11."""

import pytest

from tests.support import LAYER, Repository, detail, digest_of, errors

DIGEST = digest_of(LAYER)


@pytest.fixture
async def source(repository: Repository) -> Repository:
    """A repository that holds the blob."""
    found = Repository(repository.client, "from/here")
    await found.push_blob(LAYER)
    return found


async def test_mount(repository: Repository, source: Repository) -> None:
    """A blob of another repository is mounted: 201 with a Location that can be pulled."""
    response = await repository.post(f"?mount={DIGEST}&from={source.name}")
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["location"] == repository.at(f"blobs/{DIGEST}")
    assert response.headers["docker-content-digest"] == DIGEST
    assert (await repository.client.get(response.headers["location"])).content == LAYER


async def test_mount_without_from(repository: Repository, source: Repository) -> None:
    """``from`` is optional: the blob is mounted from wherever it is."""
    response = await repository.post(f"?mount={DIGEST}")
    assert response.status_code == 201
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER


async def test_mount_where_it_is_already(repository: Repository, source: Repository) -> None:
    """Mounting again, or from the repository itself, is 201 as well."""
    for origin in (source.name, source.name, repository.name):
        assert (await repository.post(f"?mount={DIGEST}&from={origin}")).status_code == 201


@pytest.mark.parametrize("origin", ["nowhere", "empty/one"])
async def test_unable_to_mount(repository: Repository, source: Repository, origin: str) -> None:
    """A source that does not hold the blob gives a session instead (202), which can be used."""
    await Repository(repository.client, "empty/one").push_blob(b"other")
    response = await repository.post(f"?mount={DIGEST}&from={origin}")
    assert response.status_code == 202
    assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404
    location = response.headers["location"]
    assert (await repository.client.put(f"{location}?digest={DIGEST}", content=LAYER)).status_code == 201


async def test_unknown_content(repository: Repository) -> None:
    """Content that is stored nowhere cannot be mounted: a session is opened."""
    for query in (f"?mount={DIGEST}", f"?mount={DIGEST}&from=nowhere"):
        assert (await repository.post(query)).status_code == 202


async def test_content_that_no_repository_holds(repository: Repository, source: Repository) -> None:
    """Bytes that are stored still, but that no repository holds, are not given to whoever knows the digest."""
    assert (await source.delete(f"blobs/{DIGEST}")).status_code == 202
    for query in (f"?mount={DIGEST}", f"?mount={DIGEST}&from={source.name}"):
        assert (await repository.post(query)).status_code == 202
    assert (await repository.head(f"blobs/{DIGEST}")).status_code == 404


async def test_mounted_blob_outlives_its_source(repository: Repository, source: Repository) -> None:
    """Deleting the blob where it came from does not take it from where it was mounted."""
    assert (await repository.post(f"?mount={DIGEST}&from={source.name}")).status_code == 201
    assert (await source.delete(f"blobs/{DIGEST}")).status_code == 202
    assert (await repository.get(f"blobs/{DIGEST}")).content == LAYER
    assert (await source.get(f"blobs/{DIGEST}")).status_code == 404


async def test_mount_makes_the_repository(repository: Repository, source: Repository) -> None:
    """A repository whose first blob was mounted is there."""
    await repository.post(f"?mount={DIGEST}&from={source.name}")
    assert await repository.tags() == []


async def test_mount_serves_a_manifest(repository: Repository) -> None:
    """An image whose blobs were all mounted can be pushed."""
    source = Repository(repository.client, "from/here")
    found = await source.push_image("latest")
    document = (await source.get("manifests/latest")).content
    for part in (await source.get("manifests/latest")).json()["layers"]:
        await repository.post(f"?mount={part['digest']}&from={source.name}")
    config = (await source.get("manifests/latest")).json()["config"]["digest"]
    assert (await repository.put(document, "latest")).status_code == 404
    await repository.post(f"?mount={config}&from={source.name}")
    assert await repository.push(document, "latest") == found["digest"]


@pytest.mark.parametrize("digest", ["x", "sha256:x", "md5:d41d8cd98f00b204e9800998ecf8427e"])
async def test_malformed_mount(repository: Repository, digest: str) -> None:
    """A digest that is malformed or unsupported is 400 DIGEST_INVALID."""
    errors(await repository.post(f"?mount={digest}&from=a"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("origin", ["A", "a//b", "../a", "%20"])
async def test_malformed_from(repository: Repository, source: Repository, origin: str) -> None:
    """A ``from`` that is no repository name is 400 NAME_INVALID."""
    assert detail(await repository.post(f"?mount={DIGEST}&from={origin}"), 400, "NAME_INVALID")["name"]


async def test_manifest_is_not_mounted(repository: Repository) -> None:
    """A manifest is no blob: its digest opens a session."""
    source = Repository(repository.client, "from/here")
    found = await source.push_image("latest")
    assert (await repository.post(f"?mount={found['digest']}&from={source.name}")).status_code == 202
