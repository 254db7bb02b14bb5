"""The history of tags: pulling as of a moment, setting back, and what is kept for it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from moorage import Registry
from moorage.errors import (
    BlobUnknown,
    Denied,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PageInvalid,
)
from moorage.registry.check import check
from moorage.spec.digest import Digest
from moorage.spec.moments import as_of
from tests.registry.test_collection import GRACE, Place
from tests.support import CONFIG, Json, artifact, digest_of, image, index, pieces

DAY = 86400.0


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place(history_days=7)
    async with made.registry:
        yield made
        wrong = [each async for each in check(made.store, made.metadata, full=True)]
        assert wrong == []


async def names(registry: Registry, reference: str, repository: str = "a") -> str | None:
    """What a reference names in a registry, None if it is not there."""
    try:
        return (await registry.manifests.get(repository, reference)).digest
    except ManifestUnknown:
        return None


async def pulls(registry: Registry, manifest: Json, *layers: bytes, repository: str = "a") -> bool:
    """Whether the manifest and each blob is there whole."""
    await registry.manifests.get(repository, manifest["digest"])
    for content in layers:
        blob = await registry.blobs.get(repository, digest_of(content))
        assert b"".join([bytes(each) async for each in registry.blobs.read(blob)]) == content
    return True


async def test_tags_as_of_each_moment(place: Place) -> None:
    """A tag names at each moment what it named then: also before it was, while it was deleted, and in between."""
    start = place.now
    place.now += 10
    one = await place.image("one", "v1")
    place.now += 10
    two = await place.image("two", "v1")
    place.now += 10
    await place.registry.manifests.delete("a", "v1")
    place.now += 10
    await place.put(image(CONFIG, [b"one"]), "v1")
    place.now += 10
    expected = [None, one["digest"], two["digest"], None, one["digest"], one["digest"]]
    found = [await names(place.registry.at(start + 10 * n), "v1") for n in range(6)]
    assert found == expected
    assert [await names(place.registry.at(start + 10 * n + 9.9), "v1") for n in range(5)] == expected[:5]


async def test_lists_of_tags_as_of_each_moment(place: Place) -> None:
    """The list has the tags of the moment, in pages."""
    start = place.now
    for n, tag in enumerate(("b", "a", "c")):
        place.now = start + 10 * n
        await place.image(tag, tag)
    place.now = start + 30
    await place.registry.manifests.delete("a", "b")
    await place.image("other", "a")
    place.now = start + 40
    lists = [(await place.registry.at(start + 10 * n).tags.list("a")).items for n in range(4)]
    assert lists == [["b"], ["a", "b"], ["a", "b", "c"], ["a", "c"]]
    page = await place.registry.at(start + 20).tags.list("a", 2)
    assert (page.items, page.last) == (["a", "b"], "b")
    assert (await place.registry.at(start + 20).tags.list("a", 2, "b")).items == ["c"]
    with pytest.raises(NameUnknown):
        await place.registry.at(start).tags.list("absent")


async def test_deleted_content_is_there_as_of_then(place: Place) -> None:
    """What was deleted is gone at once by its normal name, and pulls whole as of then while history reaches."""
    one = await place.image("one", "v1")
    then = place.now
    place.now += 10
    await place.registry.manifests.delete("a", one["digest"])
    assert not await place.has(one)
    await place.later(GRACE)
    with pytest.raises(BlobUnknown):
        await place.registry.blobs.get("a", digest_of(b"one"))
    assert (await place.registry.repositories.list()).items == []
    assert not await place.registry.blobs.mount("b", digest_of(b"one"))
    place.now = then + 7 * DAY
    await place.registry.clean()
    past = place.registry.at(then)
    assert await names(past, "v1") == one["digest"]
    assert await pulls(past, one, CONFIG, b"one")
    assert (await past.tags.list("a")).items == ["v1"]
    await place.later(10)
    with pytest.raises(NameUnknown):
        place.registry.at(then)
    await place.later(GRACE)
    assert await place.objects() == 0
    assert (await place.metadata.fetch("check_counts"))[0][:4] == (0, 0, 0, 0)


async def test_referrers_as_of_then(place: Place) -> None:
    """The referrers of the moment, whatever came or went since."""
    await place.blob(b"{}")
    subject = await place.image("one", "v1")
    first = await place.put(artifact(subject=subject))
    then = place.now
    place.now += 10
    second = await place.put(artifact(subject=subject, annotations={"n": "2"}))
    between = place.now
    place.now += 10
    await place.registry.manifests.delete("a", first["digest"])

    async def referrers(registry: Registry) -> set[str]:
        return {each.digest for each in (await registry.referrers.list("a", subject["digest"])).items}

    assert await referrers(place.registry.at(then)) == {first["digest"]}
    assert await referrers(place.registry.at(between)) == {first["digest"], second["digest"]}
    assert await referrers(place.registry) == {second["digest"]}


async def test_the_past_cannot_be_changed(place: Place) -> None:
    """No verb changes anything through the past, and no repository bears a name that asks for it."""
    one = await place.image("one", "v1")
    past = place.registry.at(place.now)
    with pytest.raises(Denied):
        await past.manifests.delete("a", one["digest"])
    with pytest.raises(Denied):
        await past.uploads.start("a")
    name = "at-2026-08-01t0930z/a"
    with pytest.raises(Denied):
        await place.registry.uploads.start(name)
    with pytest.raises(Denied):
        await place.registry.uploads.push(name, digest_of(b"x"), pieces(b"x"))
    with pytest.raises(Denied):
        await place.registry.blobs.mount(name, digest_of(b"one"), "a")
    with pytest.raises(Denied):
        await place.put(image(CONFIG, [b"one"]), "v1", name)
    with pytest.raises(Denied):
        await place.registry.history.restore(name, "v1", Digest(one["digest"]))


async def test_where_history_does_not_reach(place: Place) -> None:
    """Neither the future nor what is too long ago can be asked for."""
    for moment in (place.now + 1, place.now - 7 * DAY - 1):
        with pytest.raises(NameUnknown) as raised:
            place.registry.at(moment)
        assert set(raised.value.details[0]) == {"at", "from", "to"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("at-2026-08-01t0930z/a/b", (1785576600.0, "a/b")),
        ("at-2026-08-01t093015z/a", (1785576615.0, "a")),
        ("at-2026-08-01/a", (1785542400.0, "a")),
        ("at-2026-08-01", None),
        ("at-2026-08-01t09z/a", None),
        ("at-2026-8-01/a", None),
        ("attic/a", None),
        ("a/at-2026-08-01/b", None),
    ],
)
def test_names_that_ask_for_the_past(name: str, expected: tuple[float, str] | None) -> None:
    """A moment as the first component, and nothing else."""
    assert as_of(name) == expected


@pytest.mark.parametrize("name", ["at-2026-13-01/a", "at-2026-02-30t0000z/a", "at-2026-08-01t2500z/a"])
def test_moments_that_never_are(name: str) -> None:
    """A day or time that does not exist is a malformed name."""
    with pytest.raises(NameInvalid):
        as_of(name)


async def test_undo(place: Place) -> None:
    """A tag is set back to what it named before its last change, and that once more undoes the undoing."""
    one = await place.image("one", "v1")
    place.now += 1
    two = await place.image("two", "v1")
    for expected in (one, two, one):
        place.now += 1
        assert await place.registry.history.restore("a", "v1", actor="me") == expected["digest"]
        assert await names(place.registry, "v1") == expected["digest"]
    changes = (await place.registry.history.list("a", "v1")).items
    assert [(each.actor, each.reason) for each in changes[:3]] == [("me", "restored")] * 3


async def test_restore_brings_back_all_that_went(place: Place) -> None:
    """A deleted index comes back with its platforms, their layers, and the signatures of all of them."""
    await place.blob(b"{}")
    images = [await place.image(name) for name in ("one", "two")]
    platforms = await place.put(index(images), "latest")
    signatures = [await place.put(artifact(subject=each)) for each in (platforms, images[0])]
    then = place.now
    place.now += 1
    await place.registry.manifests.delete("a", platforms["digest"])
    for _ in range(4):
        await place.later(GRACE)
    assert (await place.registry.repositories.list()).items == []
    await place.registry.history.restore("a", "latest", then)
    assert await pulls(place.registry, platforms)
    for each, name in zip(images, (b"one", b"two"), strict=True):
        assert await pulls(place.registry, each, CONFIG, name)
    for each in signatures:
        assert await pulls(place.registry, each, b"{}")
    for _ in range(20):
        await place.later(DAY)
    assert await pulls(place.registry, platforms)
    assert await pulls(place.registry, images[1], b"two")
    assert await pulls(place.registry, signatures[1], b"{}")
    assert all(not name.startswith("~") for (name,) in await place.metadata.fetch("page_repositories", "", 10))


async def test_restore_of_what_is_gone_for_good(place: Place) -> None:
    """A moment at which the tag named nothing, or content that history does not reach any more, is an error."""
    one = await place.image("one", "v1")
    with pytest.raises(ManifestUnknown):
        await place.registry.history.restore("a", "v1")
    with pytest.raises(ManifestUnknown):
        await place.registry.history.restore("a", "v1", place.now - 1)
    with pytest.raises(ManifestUnknown):
        await place.registry.history.restore("a", "never")
    await place.registry.manifests.delete("a", one["digest"])
    await place.later(8 * DAY)
    with pytest.raises(ManifestUnknown):
        await place.registry.history.restore("a", "v1")


async def test_restore_where_a_blob_is_gone(place: Place) -> None:
    """Nothing is restored by halves: what cannot be whole stays gone."""
    one = await place.image("one", "v1")
    await place.registry.manifests.delete("a", one["digest"])

    def lose() -> Any:
        rows = yield "repository_id", ("~a",)
        yield "unlink_blob", (rows[0][0], digest_of(b"one"))

    await place.later(GRACE)
    await place.metadata.transact(lose)
    with pytest.raises(ManifestBlobUnknown) as raised:
        await place.registry.history.restore("a", "v1")
    assert raised.value.details == ({"digest": digest_of(b"one"), "kind": "layer"},)
    assert not await place.has(one)
    await place.later(8 * DAY)


async def test_deleted_twice(place: Place) -> None:
    """Content that is pushed and deleted again and again is kept once, from the last time on."""
    for _ in range(3):
        one = await place.image("one", "v1")
        place.now += 1
        await place.registry.manifests.delete("a", one["digest"])
        await place.later(3 * DAY)
    await place.later(3 * DAY)
    assert await pulls(place.registry.at(place.now - 6.5 * DAY), one, b"one")
    await place.later(2 * DAY)
    await place.later(GRACE)
    assert await place.objects() == 0


async def test_history_of_a_tag_and_of_all(place: Place) -> None:
    """Each change is there, the latest first, in pages; an unknown tag or repository is said to be so."""
    digests = []
    for n in range(5):
        place.now += 1
        digests.append((await place.image(str(n), "v1"))["digest"])
        await place.image(str(n), "v2")
    await place.registry.manifests.delete("a", "v1", actor="me")
    found = (await place.registry.history.list("a", "v1")).items
    assert [(each.before, each.after) for each in found] == [
        (digests[4], None),
        *[(digests[n - 1] if n else None, digests[n]) for n in (4, 3, 2, 1, 0)],
    ]
    assert (found[0].actor, found[0].action, found[0].at) == ("me", "tag.delete", place.now)
    paged, last = [], ""
    while True:
        page = await place.registry.history.list("a", "v1", 2, last)
        paged += page.items
        if page.last is None:
            break
        last = page.last
    assert paged == found
    everything = (await place.registry.history.list("a")).items
    assert len(everything) == 11
    with pytest.raises(ManifestUnknown):
        await place.registry.history.list("a", "never")
    with pytest.raises(NameUnknown):
        await place.registry.history.list("b")
    with pytest.raises(PageInvalid):
        await place.registry.history.list("a", "v1", 2, "x")


async def test_old_events_go(place: Place) -> None:
    """Events go after their time, but never while the history needs them."""
    kept = Place(history_days=30, events_days=1)
    async with kept.registry:
        one = await kept.image("one", "v1")
        await kept.later(DAY * 29)
        await kept.image("two", "v1")
        assert await names(kept.registry.at(kept.now - DAY * 10), "v1") == one["digest"]
        assert len((await kept.registry.history.list("a", "v1")).items) == 2
        await kept.later(DAY * 2)
        assert len((await kept.registry.history.list("a", "v1")).items) == 1
        assert await names(kept.registry.at(kept.now - DAY * 10), "v1") == one["digest"]


async def test_without_history(place: Place) -> None:
    """With a history of no days nothing is kept."""
    bare = Place()
    async with bare.registry:
        one = await bare.image("one", "v1")
        await bare.registry.manifests.delete("a", one["digest"])
        assert (await bare.metadata.fetch("check_counts"))[0][0] == 0
        with pytest.raises(ManifestUnknown):
            await bare.registry.history.restore("a", "v1")


async def test_restores_at_once(place: Place) -> None:
    """Several at once do what one does."""
    await place.image("one", "v1")
    await place.registry.manifests.delete("a", (await place.image("one"))["digest"])
    place.now += 1
    then = place.now - 1.5
    with pytest.raises(ManifestUnknown):
        await place.registry.history.restore("a", "v1", then)
    digest = Digest((await place.registry.history.list("a", "v1")).items[0].before or "")
    done = await asyncio.gather(*(place.registry.history.restore("a", f"v{n}", digest) for n in range(8)))
    assert set(done) == {digest}
    assert await names(place.registry, "v7") == digest
