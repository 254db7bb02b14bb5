"""Why something is kept, and what its going would free, as the facts have it."""

from collections.abc import AsyncIterator

import pytest

from moorage.errors import DigestInvalid, ManifestUnknown, NameInvalid, NameUnknown, TagInvalid
from moorage.registry.explain import Cost, Holder
from tests.registry.test_collection import GRACE, Place
from tests.support import CONFIG, artifact, digest_of, encode, image, index


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    async with made.registry:
        yield made


def chains(holders: list[Holder]) -> set[tuple[str, ...]]:
    """Every way from the top down, as the kinds and names on it."""
    found: set[tuple[str, ...]] = set()
    for each in holders:
        below = chains(each.held_by) or {()}
        found |= {(f"{each.kind} {each.name}".strip(), *rest) for rest in below}
    return found


async def test_why_leads_up_to_the_tags(place: Place) -> None:
    """Every way from a layer by manifests and indexes to the tags is shown, in each repository."""
    one, two = await place.image("one"), await place.image("two", "v2")
    platforms = await place.put(index([one, two]), "latest")
    await place.put(image(CONFIG, [b"two"]), "other")
    await place.blob(CONFIG, "b")
    digest = digest_of(CONFIG)
    assert chains(await place.registry.explain.why(digest)) == {
        (f"blob a@{digest}", f"config {one['digest']}", f"index {platforms['digest']}", "tag latest"),
        (f"blob a@{digest}", f"config {two['digest']}", "tag v2"),
        (f"blob a@{digest}", f"config {two['digest']}", "tag other"),
        (f"blob a@{digest}", f"config {two['digest']}", f"index {platforms['digest']}", "tag latest"),
        (f"blob b@{digest}", "grace"),
    }
    assert chains(await place.registry.explain.why(f"a@{digest}")) == {
        each for each in chains(await place.registry.explain.why(digest)) if each[0].startswith("blob a@")
    }


async def test_why_of_what_goes(place: Place) -> None:
    """It says when, and why: the time at which collection takes it."""
    await place.blob(b"{}")
    child = await place.image("one")
    platforms = await place.put(index([child]), "v1")
    signature = await place.put(artifact(subject=platforms))
    assert chains(await place.registry.explain.why(f"a@{signature['digest']}")) == {
        (f"manifest a@{signature['digest']}", f"subject {platforms['digest']}", "tag v1")
    }
    await place.registry.manifests.delete("a", platforms["digest"])
    for each, reason in ((child, "index"), (signature, "subject")):
        ((holder,),) = [found.held_by for found in await place.registry.explain.why(each["digest"])]
        assert (holder.kind, holder.until) == ("grace", place.now + GRACE)
        assert reason in holder.reason
    ((holder,),) = [found.held_by for found in await place.registry.explain.why(digest_of(b"one"))]
    assert holder.held_by[0].kind == "grace"
    await place.later(GRACE - 1)
    assert await place.has(child)
    await place.later(1)
    assert await place.registry.explain.why(child["digest"]) == []


async def test_why_of_what_is_quarantined(place: Place) -> None:
    """In each repository: since when, for what damage, and that a push heals it; beside what holds it."""
    one = await place.image("one", "v1")
    await place.blob(b"one", "b")
    blob = await place.registry.blobs.get("a", digest_of(b"one"))
    place.store._objects[blob.key] = b"on"
    place.now += 10
    await place.registry.scrub()
    for found in await place.registry.explain.why(blob.digest):
        quarantine, *holders = found.held_by
        assert (quarantine.kind, quarantine.since) == ("quarantine", place.now)
        assert "2 of 3 bytes" in quarantine.reason
        assert "pushed again" in quarantine.reason
        assert chains(holders) == ({("grace",)} if "b@" in found.name else {(f"layer {one['digest']}", "tag v1")})
    place.now += 10
    await place.blob(b"one", "c")
    healed = await place.registry.explain.why(blob.digest)
    assert len(healed) == 3
    assert not any(each.kind == "quarantine" for place in healed for each in place.held_by)


async def test_why_of_an_untagged_manifest(place: Place) -> None:
    """It holds itself."""
    one = await place.image("one")
    assert chains(await place.registry.explain.why(one["digest"])) == {(f"manifest a@{one['digest']}", "itself")}


async def test_many_holders_are_not_all_named(place: Place) -> None:
    """Ten of a kind are, and that there are more."""
    for n in range(12):
        await place.image("one", f"v{n}")
    (found,) = await place.registry.explain.why("a:v1")
    assert [each.kind for each in found.held_by] == ["tag"] * 10 + ["more"]


async def test_cost_of_a_tag(place: Place) -> None:
    """What the tag's manifest alone holds would be free, and what others share would stay."""
    one = await place.image("one", "v1")
    await place.image("another", "v2")
    expected = Cost(manifests=1, blobs=1, freed=one["size"] + 3, kept=len(CONFIG))
    assert await place.registry.explain.cost(["a:v1"]) == expected
    await place.blob(b"one", "b")
    expected = Cost(manifests=1, blobs=0, freed=one["size"], kept=len(CONFIG) + 3)
    assert await place.registry.explain.cost(["a:v1"]) == expected


async def test_cost_of_several_is_not_the_sum(place: Place) -> None:
    """What two tags share is free only if both go; what another tag or index holds does not go."""
    one = await place.image("one", "v1")
    await place.put(image(CONFIG, [b"one"]), "again")
    assert await place.registry.explain.cost(["a:v1"]) == Cost()
    both = await place.registry.explain.cost(["a:v1", "a:again"])
    assert both == Cost(manifests=1, blobs=2, freed=one["size"] + 3 + len(CONFIG))
    platforms = await place.put(index([one]), "latest")
    assert await place.registry.explain.cost(["a:v1", "a:again"]) == Cost()
    all_of_it = await place.registry.explain.cost(["a:v1", "a:again", "a:latest"])
    assert all_of_it == Cost(manifests=2, blobs=2, freed=one["size"] + platforms["size"] + 3 + len(CONFIG))
    assert await place.registry.explain.cost(["a"]) == all_of_it


async def test_cost_is_what_collection_frees(place: Place) -> None:
    """The bytes that deleting and collecting free are those that were told before."""
    await place.blob(b"{}")
    images = [await place.image(name) for name in ("one", "two", "three")]
    await place.put(image(CONFIG, [b"three"]), "kept")
    platforms = await place.put(index(images), "v1")
    signature = await place.put(artifact(subject=platforms))
    await place.put(artifact(subject=signature, annotations={"n": "2"}))

    async def stored() -> int:
        sizes = [await place.store.size(key) async for key in place.store.list()]
        rows = await place.metadata.fetch("check_manifests", 0, 100)
        return sum(sizes) + sum(int(row[5]) for row in rows)

    await place.registry.clean()
    told, before = await place.registry.explain.cost(["a:v1"]), await stored()
    assert told.manifests == 5
    await place.registry.manifests.delete("a", platforms["digest"])
    for _ in range(4):
        await place.later(GRACE)
    assert before - await stored() == told.freed


async def test_cost_of_a_repository_counts_unreferenced_blobs(place: Place) -> None:
    """A repository stands for everything in it."""
    await place.blob(b"loose")
    one = await place.image("one", "v1")
    assert await place.registry.explain.cost(["a"]) == Cost(1, 3, one["size"] + 3 + 5 + len(CONFIG), 0)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("sha256:short", DigestInvalid),
        ("Upper:v1", NameInvalid),
        ("a:-x", TagInvalid),
        ("a@sha256:0", DigestInvalid),
        ("a:absent", ManifestUnknown),
    ],
)
async def test_what_is_no_reference(place: Place, reference: str, error: type[Exception]) -> None:
    """What is malformed or not there is said to be so."""
    with pytest.raises(error):
        await place.registry.explain.why(reference)


async def test_cost_of_nothing_there(place: Place) -> None:
    """An unknown repository is an error; an absent manifest costs nothing."""
    with pytest.raises(NameUnknown):
        await place.registry.explain.cost(["nowhere"])
    await place.image("one", "v1")
    assert await place.registry.explain.cost([f"a@{digest_of(encode(b'absent'))}"]) == Cost()
