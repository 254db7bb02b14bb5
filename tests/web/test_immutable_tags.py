"""Immutable tags: once they name something they are neither moved nor deleted."""

import pytest

from moorage.registry.policy import ImmutableTags
from tests.support import OCI_INDEX, Repository, artifact, descriptor, detail, digest_of, encode, errors, image, index
from tests.web.conftest import Opener

OTHER = image(annotations={"other": "one"})


@pytest.fixture
async def repository(opened: Opener) -> Repository:
    """A repository whose tags ``v*`` are immutable, with ``v1`` and ``latest`` on one image."""
    found: Repository = await opened(immutable_tags=(ImmutableTags("library/**", "v*"),))
    await found.push_image("v1")
    await found.push(image(), "latest")
    return found


async def test_moving(repository: Repository) -> None:
    """Moving it is refused by a clear message; the same digest again is fine, and so is any other tag."""
    (error,) = errors(await repository.put(OTHER, "v1"), 403, "DENIED")
    assert error["message"] == "the tag is immutable"
    assert error["detail"] == {"name": repository.name, "tag": "v1"}
    await repository.push(image(), "v1")
    await repository.push(OTHER, "latest")
    await repository.push(OTHER, "v2")
    assert detail(await repository.put(image(), "v2"), 403, "DENIED")["tag"] == "v2"
    assert (await repository.get("manifests/v1")).content == encode(image())


async def test_several_tags_at_once(repository: Repository) -> None:
    """With one of them immutable, none is set, and the manifest is not stored."""
    response = await repository.put(OTHER, params=[("tag", "new"), ("tag", "v1")])
    assert detail(response, 403, "DENIED")["tag"] == "v1"
    assert await repository.tags() == ["latest", "v1"]
    assert (await repository.head(f"manifests/{digest_of(encode(OTHER))}")).status_code == 404


async def test_deleting(repository: Repository) -> None:
    """Neither the tag nor the manifest that it names is deleted, and nothing of the attempt stays."""
    assert detail(await repository.delete("manifests/v1"), 403, "DENIED")["tag"] == "v1"
    digest = digest_of(encode(image()))
    assert detail(await repository.delete(f"manifests/{digest}"), 403, "DENIED")["tag"] == "v1"
    assert await repository.tags() == ["latest", "v1"]
    assert (await repository.delete("manifests/latest")).status_code == 202
    errors(await repository.delete("manifests/v9"), 404, "MANIFEST_UNKNOWN")


async def test_other_repositories(repository: Repository) -> None:
    """A pattern is about the repositories that it matches."""
    other = Repository(repository.client, "elsewhere/thing")
    await other.push_image("v1")
    await other.push(OTHER, "v1")
    assert (await other.delete("manifests/v1")).status_code == 202


async def test_preconditions_do_not_help(repository: Repository) -> None:
    """Even whoever knows what the tag names cannot move it."""
    match = {"If-Match": f'"{digest_of(encode(image()))}"'}
    errors(await repository.put(OTHER, "v1", headers=match), 403, "DENIED")
    errors(await repository.delete("manifests/v1", headers=match), 403, "DENIED")


async def test_fallback_tags_are_mended(opened: Opener) -> None:
    """The lists of referrers that clients keep under a tag go on, although the pattern matches every tag."""
    repository: Repository = await opened(immutable_tags=(ImmutableTags("**", "*"),))
    subject = await repository.push_image("v1")
    tag = subject["digest"].replace(":", "-")
    for kind in ("application/vnd.a", "application/vnd.b"):
        await repository.push_artifact(subject, kind)
        entry = descriptor(encode(artifact(kind, subject)), "application/vnd.oci.image.manifest.v1+json")
        await repository.push(index([entry]), tag, media_type=OCI_INDEX)
    assert len((await repository.get(f"manifests/{tag}")).json()["manifests"]) == 2
