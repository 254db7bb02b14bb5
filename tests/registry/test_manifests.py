"""Manifests, tags, referrers and listings through the library."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from moorage import Descriptor, Policy, Precondition, Registry, open_registry
from moorage.errors import (
    DigestInvalid,
    InUse,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestTooLarge,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PreconditionFailed,
    TagInvalid,
    TooManyTags,
)
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


async def fill(registry: Registry, repository: str = "a") -> None:
    """Push what images and artifacts need."""
    for content in (CONFIG, LAYER, EMPTY):
        await registry.uploads.push(repository, digest_of(content), pieces(content))


async def test_put_and_get(registry: Registry) -> None:
    """A manifest is got by tag and digest, with its bytes or only described."""
    await fill(registry)
    pushed = await registry.manifests.put("a", "latest", IMAGE, OCI_MANIFEST)
    assert (pushed.digest, pushed.subject, pushed.tags) == (DIGEST, None, ("latest",))
    for reference in ("latest", DIGEST):
        found = await registry.manifests.get("a", reference)
        assert (found.digest, found.media_type, found.size) == (DIGEST, OCI_MANIFEST, len(IMAGE))
        assert found.content == IMAGE
        assert (await registry.manifests.get("a", reference, content=False)).content is None


async def test_put_with_tags(registry: Registry) -> None:
    """More tags go with a digest."""
    await fill(registry)
    pushed = await registry.manifests.put("a", DIGEST, IMAGE, also=["one", "two", "one"])
    assert pushed.tags == ("one", "two")
    assert (await registry.tags.list("a")).items == ["one", "two"]
    with pytest.raises(TagInvalid):
        await registry.manifests.put("a", "one", IMAGE, also=["two"])


async def test_put_errors(registry: Registry) -> None:
    """Each reason to refuse a manifest is its own error; nothing is stored."""
    with pytest.raises(NameInvalid):
        await registry.manifests.put("A", "latest", IMAGE)
    with pytest.raises(TagInvalid):
        await registry.manifests.put("a", "-", IMAGE)
    with pytest.raises(DigestInvalid):
        await registry.manifests.put("a", "sha256:x", IMAGE)
    with pytest.raises(DigestInvalid):
        await registry.manifests.put("a", digest_of(b""), IMAGE)
    with pytest.raises(TooManyTags):
        await registry.manifests.put("a", DIGEST, IMAGE, also=[f"t{n}" for n in range(33)])
    with pytest.raises(ManifestTooLarge):
        await registry.manifests.put("a", "latest", b" " * (4 * 1024 * 1024 + 1))
    with pytest.raises(ManifestInvalid):
        await registry.manifests.put("a", "latest", b"{}")
    with pytest.raises(ManifestBlobUnknown) as caught:
        await registry.manifests.put("a", "latest", IMAGE)
    assert [each["path"] for each in caught.value.details] == ["$.config", "$.layers[0]"]
    assert (await registry.repositories.list()).items == []


async def test_get_errors(registry: Registry) -> None:
    """What is not there is ManifestUnknown, a malformed digest DigestInvalid."""
    await fill(registry)
    for reference in ("none", DIGEST, "-malformed"):
        with pytest.raises(ManifestUnknown):
            await registry.manifests.get("a", reference)
        with pytest.raises(ManifestUnknown):
            await registry.manifests.get("never", reference)
    with pytest.raises(DigestInvalid):
        await registry.manifests.get("a", "sha256:x")


async def test_delete(registry: Registry) -> None:
    """A tag goes alone, a manifest with its tags; what an index needs stays."""
    await fill(registry)
    await registry.manifests.put("a", DIGEST, IMAGE, also=["one", "two"])
    top = await registry.manifests.put("a", "top", encode(index([descriptor(IMAGE, OCI_MANIFEST)])), OCI_INDEX)
    await registry.manifests.delete("a", "one")
    assert (await registry.tags.list("a")).items == ["top", "two"]
    with pytest.raises(InUse):
        await registry.manifests.delete("a", DIGEST)
    await registry.manifests.delete("a", top.digest)
    await registry.manifests.delete("a", DIGEST)
    assert (await registry.tags.list("a")).items == []
    for reference in ("one", DIGEST):
        with pytest.raises(ManifestUnknown):
            await registry.manifests.delete("a", reference)
        with pytest.raises(NameUnknown):
            await registry.manifests.delete("never", reference)


async def test_preconditions(registry: Registry) -> None:
    """A precondition guards a put and a delete."""
    await fill(registry)
    create = Precondition(none_match="*")
    await registry.manifests.put("a", "latest", IMAGE, precondition=create)
    with pytest.raises(PreconditionFailed):
        await registry.manifests.put("a", "latest", encode(index()), OCI_INDEX, precondition=create)
    with pytest.raises(PreconditionFailed):
        await registry.manifests.delete("a", "latest", precondition=Precondition(match='"other"'))
    await registry.manifests.delete("a", "latest", precondition=Precondition(match=f'"{DIGEST}"'))


async def test_listings(registry: Registry) -> None:
    """Tags and repositories come in pages that tell where the next one starts."""
    await fill(registry)
    await fill(registry, "b")
    await registry.manifests.put("a", DIGEST, IMAGE, also=["c", "a", "b"])
    page = await registry.tags.list("a", 2)
    assert (page.items, page.last) == (["a", "b"], "b")
    page = await registry.tags.list("a", 2, "b")
    assert (page.items, page.last) == (["c"], None)
    assert (await registry.tags.list("a", 0)).last is None
    with pytest.raises(NameUnknown):
        await registry.tags.list("never")
    repositories = await registry.repositories.list(1)
    assert (repositories.items, repositories.last) == (["a"], "a")
    assert (await registry.repositories.list(1, "a")).items == ["b"]


async def test_referrers(registry: Registry) -> None:
    """Referrers come as descriptors, filtered and in pages."""
    await fill(registry)
    subject = descriptor(IMAGE, OCI_MANIFEST)
    contents = [encode(artifact("application/x", subject, annotations={"n": str(n)})) for n in range(3)]
    pushed = [(await registry.manifests.put("a", digest_of(each), each)) for each in contents]
    assert {each.subject for each in pushed} == {DIGEST}
    ordered = sorted(each.digest for each in pushed)
    page = await registry.referrers.list("a", DIGEST)
    assert [each.digest for each in page.items] == ordered
    assert isinstance(page.items[0], Descriptor)
    assert page.items[0].artifact_type == "application/x"
    page = await registry.referrers.list("a", DIGEST, "application/x", n=2)
    assert ([each.digest for each in page.items], page.last) == (ordered[:2], ordered[1])
    page = await registry.referrers.list("a", DIGEST, n=2, last=ordered[1])
    assert ([each.digest for each in page.items], page.last) == (ordered[2:], None)
    assert (await registry.referrers.list("a", DIGEST, "application/y")).items == []
    assert (await registry.referrers.list("never", DIGEST)).items == []
    with pytest.raises(DigestInvalid):
        await registry.referrers.list("a", "latest")


async def test_policy() -> None:
    """The policy says what may be missing, what types are taken, and how much."""
    policy = Policy(sparse="all", unknown_manifests=True, manifest_limit=1024, tags_per_push=1)
    async with open_registry(policy=policy) as registry:
        await registry.manifests.put("a", "latest", IMAGE)
        await registry.manifests.put("a", "odd", b"{}", "application/x")
        with pytest.raises(ManifestTooLarge):
            await registry.manifests.put("a", "latest", b" " * 1025)
        with pytest.raises(TooManyTags):
            await registry.manifests.put("a", DIGEST, IMAGE, also=["one", "two"])
        await registry.manifests.delete("a", DIGEST)


async def test_every_change_is_an_event(tmp_path: Path) -> None:
    """Each change leaves one row: who, what, where, and for tags what they named before and after."""
    new = encode(index())
    async with open_registry(tmp_path) as registry:
        for content in (CONFIG, LAYER):
            await registry.uploads.push("a", digest_of(content), pieces(content), actor="ann")
        await registry.blobs.mount("b", digest_of(LAYER), "a", actor="bob")
        await registry.manifests.put("a", "latest", IMAGE, actor="ann")
        await registry.manifests.put("a", "latest", IMAGE, actor="ann")
        await registry.manifests.put("a", "latest", new, OCI_INDEX, actor="ann")
        await registry.manifests.delete("a", "latest", actor="cid")
        await registry.manifests.delete("a", DIGEST, actor="cid")
        await registry.blobs.delete("a", digest_of(LAYER))
    database = sqlite3.connect(tmp_path / "moorage.db")
    query = "SELECT actor, action, repository, digest, tag, before, after FROM events ORDER BY seq"
    found = database.execute(query).fetchall()
    database.close()
    assert found == [
        ("ann", "blob.push", "a", digest_of(CONFIG), None, None, None),
        ("ann", "blob.push", "a", digest_of(LAYER), None, None, None),
        ("bob", "blob.mount", "b", digest_of(LAYER), None, None, None),
        ("ann", "manifest.push", "a", DIGEST, None, None, None),
        ("ann", "tag.push", "a", DIGEST, "latest", None, DIGEST),
        ("ann", "manifest.push", "a", digest_of(new), None, None, None),
        ("ann", "tag.push", "a", digest_of(new), "latest", DIGEST, digest_of(new)),
        ("cid", "tag.delete", "a", None, "latest", digest_of(new), None),
        ("cid", "manifest.delete", "a", DIGEST, None, None, None),
        ("anonymous", "blob.delete", "a", digest_of(LAYER), None, None, None),
    ]


async def test_facts_outlive_the_process(tmp_path: Path) -> None:
    """What was pushed is there when the root is opened again."""
    async with open_registry(tmp_path) as registry:
        await fill(registry)
        await registry.manifests.put("a", "latest", IMAGE)
        session = await registry.uploads.start("a")
        await registry.uploads.append("a", session.id, pieces(b"half"))
    async with open_registry(tmp_path) as registry:
        assert (await registry.manifests.get("a", "latest")).content == IMAGE
        whole = digest_of(b"half and half")
        assert await registry.uploads.finish("a", session.id, whole, pieces(b" and half")) == whole


async def test_many_at_once(registry: Registry) -> None:
    """Two hundred pushes at once each happen."""
    await fill(registry)
    contents = [encode(index(annotations={"n": str(n)})) for n in range(200)]
    await asyncio.gather(
        *(registry.manifests.put("a", f"t{n:03}", each, OCI_INDEX) for n, each in enumerate(contents))
    )
    assert (await registry.tags.list("a")).items == [f"t{n:03}" for n in range(200)]
