"""Deleting tags, manifests and blobs; spec "Content Management", end-9, end-10."""

import pytest

from tests.support import (
    CONFIG,
    EMPTY,
    LAYER,
    OCI_INDEX,
    Repository,
    detail,
    digest_of,
    encode,
    errors,
    image,
    index,
)
from tests.web.conftest import Opener

NOWHERE = digest_of(b"nowhere")
DIGEST = digest_of(encode(image()))


async def test_delete_tag(repository: Repository) -> None:
    """Deleting a tag is 202; it is 404 at once and not listed, and the manifest stays by digest and other tags."""
    await repository.push_image("one")
    await repository.push(image(), "two")
    response = await repository.delete("manifests/one")
    assert (response.status_code, response.content) == (202, b"")
    assert (await repository.get("manifests/one")).status_code == 404
    assert (await repository.head("manifests/one")).status_code == 404
    assert await repository.tags() == ["two"]
    assert (await repository.get("manifests/two")).status_code == 200
    assert (await repository.get(f"manifests/{DIGEST}")).status_code == 200
    errors(await repository.delete("manifests/one"), 404, "MANIFEST_UNKNOWN")


async def test_delete_manifest(repository: Repository) -> None:
    """Deleting a manifest is 202; it and every tag that names it are 404 at once; others stay."""
    other = await repository.push_image("other", annotations={"a": "b"})
    await repository.push_image()
    await repository.push(image(), params=[("tag", "one"), ("tag", "two")])
    response = await repository.delete(f"manifests/{DIGEST}")
    assert (response.status_code, response.content) == (202, b"")
    for reference in (DIGEST, "one", "two"):
        assert (await repository.get(f"manifests/{reference}")).status_code == 404
        assert (await repository.head(f"manifests/{reference}")).status_code == 404
    assert await repository.tags() == ["other"]
    assert (await repository.get(f"manifests/{other['digest']}")).status_code == 200
    errors(await repository.delete(f"manifests/{DIGEST}"), 404, "MANIFEST_UNKNOWN")


async def test_delete_blob(repository: Repository) -> None:
    """Deleting a blob is 202; it is 404 at once."""
    digest = await repository.push_blob(b"alone")
    response = await repository.delete(f"blobs/{digest}")
    assert (response.status_code, response.content) == (202, b"")
    assert (await repository.get(f"blobs/{digest}")).status_code == 404
    assert (await repository.head(f"blobs/{digest}")).status_code == 404
    errors(await repository.delete(f"blobs/{digest}"), 404, "BLOB_UNKNOWN")


async def test_deleted_content_can_come_back(repository: Repository) -> None:
    """What was deleted can be pushed again, as often as one likes."""
    for _ in range(3):
        await repository.push_image("latest")
        assert (await repository.get("manifests/latest")).content == encode(image())
        for path in (f"manifests/{DIGEST}", f"blobs/{digest_of(LAYER)}", f"blobs/{digest_of(CONFIG)}"):
            assert (await repository.delete(path)).status_code == 202


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("manifests/none", "NAME_UNKNOWN"),
        (f"manifests/{NOWHERE}", "NAME_UNKNOWN"),
        (f"blobs/{NOWHERE}", "BLOB_UNKNOWN"),
    ],
)
async def test_unknown_repository(repository: Repository, path: str, code: str) -> None:
    """Deleting from a repository that does not exist is 404."""
    errors(await repository.delete(path), 404, code)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"manifests/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        ("manifests/-malformed", 404, "MANIFEST_UNKNOWN"),
        ("manifests/sha256:x", 400, "DIGEST_INVALID"),
        (f"blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("blobs/sha256:x", 400, "DIGEST_INVALID"),
        ("blobs/latest", 400, "DIGEST_INVALID"),
    ],
)
async def test_nothing_to_delete(repository: Repository, path: str, status: int, code: str) -> None:
    """What is not there is 404; a malformed digest is 400."""
    await repository.push_image("latest")
    errors(await repository.delete(path), status, code)


async def test_blob_in_use(repository: Repository) -> None:
    """A blob that manifests need is 405 DENIED naming them; once they are gone it can go."""
    manifests = [
        (await repository.push_image("one"))["digest"],
        (await repository.push_image("two", annotations={"a": "b"}))["digest"],
    ]
    for content in (CONFIG, LAYER):
        digest = digest_of(content)
        response = await repository.delete(f"blobs/{digest}")
        found = detail(response, 405, "DENIED")
        assert (found["digest"], sorted(found["referenced_by"])) == (digest, sorted(manifests))
        assert response.headers["allow"] == "GET, HEAD"
        assert (await repository.get(f"blobs/{digest}")).content == content
    for digest in manifests:
        assert (await repository.delete(f"manifests/{digest}")).status_code == 202
    assert (await repository.delete(f"blobs/{digest_of(LAYER)}")).status_code == 202


async def test_in_use_names_some(repository: Repository) -> None:
    """However many manifests need it, the error names a few."""
    for n in range(15):
        await repository.push_image(layers=[LAYER], annotations={"n": str(n)})
    found = detail(await repository.delete(f"blobs/{digest_of(LAYER)}"), 405, "DENIED")
    assert len(set(found["referenced_by"])) == 10


async def test_manifest_in_use(repository: Repository) -> None:
    """A manifest that an index needs is 405 DENIED naming it; its tag can go; so can the index, and then it."""
    child = await repository.push_image("child")
    top = await repository.push(index([child]), "index")
    found = detail(await repository.delete(f"manifests/{child['digest']}"), 405, "DENIED")
    assert found == {"digest": child["digest"], "referenced_by": [top]}
    assert (await repository.get("manifests/child")).status_code == 200
    assert (await repository.delete("manifests/child")).status_code == 202
    assert (await repository.delete(f"manifests/{top}")).status_code == 202
    assert (await repository.delete(f"manifests/{child['digest']}")).status_code == 202


async def test_use_in_another_repository_does_not_count(repository: Repository) -> None:
    """What another repository needs of the same content keeps nothing here, and stays there."""
    other = Repository(repository.client, "other")
    await other.push_image("latest")
    await repository.push_blob(LAYER)
    assert (await repository.delete(f"blobs/{digest_of(LAYER)}")).status_code == 202
    assert (await other.get(f"blobs/{digest_of(LAYER)}")).content == LAYER


async def test_subject_is_not_in_use(repository: Repository) -> None:
    """A subject can be deleted though something refers to it."""
    subject = await repository.push_image("latest")
    await repository.push_artifact(subject)
    assert (await repository.delete(f"manifests/{subject['digest']}")).status_code == 202


async def test_non_distributable_layer_is_not_in_use(repository: Repository) -> None:
    """A layer that need not be there may go while it is referenced."""
    await repository.push_blob(CONFIG)
    await repository.push_blob(LAYER)
    document = image()
    document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    await repository.push(document, "latest")
    assert (await repository.delete(f"blobs/{digest_of(LAYER)}")).status_code == 202


@pytest.mark.parametrize(("sparse", "child", "blob"), [("none", 405, 405), ("indexes", 202, 405), ("all", 202, 202)])
async def test_sparse(opened: Opener, sparse: str, child: int, blob: int) -> None:
    """What may be missing may be deleted while it is referenced, and nothing else."""
    repository = await opened(sparse=sparse)
    found = await repository.push_image("child")
    await repository.push(index([found]), "index")
    assert (await repository.delete(f"blobs/{digest_of(LAYER)}")).status_code == blob
    assert (await repository.delete(f"manifests/{found['digest']}")).status_code == child
    assert (await repository.get("manifests/index")).headers["content-type"] == OCI_INDEX


async def test_deletion_turned_off(opened: Opener) -> None:
    """Where deletion is off, tags, manifests and blobs are 405 UNSUPPORTED, there or not; uploads still end."""
    repository = await opened(deletion=False)
    await repository.push_image("latest")
    await repository.push_blob(EMPTY)
    for path in ("manifests/latest", f"manifests/{DIGEST}", f"blobs/{digest_of(EMPTY)}", f"blobs/{NOWHERE}"):
        response = await repository.delete(path)
        errors(response, 405, "UNSUPPORTED")
        assert response.headers["allow"]
    assert await repository.tags() == ["latest"]
    assert (await repository.get(f"blobs/{digest_of(EMPTY)}")).content == EMPTY
    location = await repository.start()
    assert (await repository.client.delete(location)).status_code == 204


async def test_allow_of_a_manifest_without_deletion(opened: Opener) -> None:
    """Allow lists what the address does take: a manifest can be pulled and pushed (RFC 9110 section 10.2.1)."""
    repository = await opened(deletion=False)
    await repository.push_image("latest")
    response = await repository.delete("manifests/latest")
    assert {"GET", "HEAD", "PUT"} <= set(response.headers["allow"].split(", "))


async def test_parent_goes_first(repository: Repository) -> None:
    """Nested indexes go from the outside in."""
    child = await repository.push_image()
    inner = await repository.push(index([child]))
    described = {"mediaType": OCI_INDEX, "digest": inner, "size": len(encode(index([child])))}
    outer = await repository.push(index([described], annotations={"a": "b"}))
    for digest in (child["digest"], inner):
        errors(await repository.delete(f"manifests/{digest}"), 405, "DENIED")
    for digest in (outer, inner, child["digest"]):
        assert (await repository.delete(f"manifests/{digest}")).status_code == 202
