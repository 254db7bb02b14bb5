"""Collection: what nothing holds goes after its grace, and nothing else ever does."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moorage import Policy, Registry, open_registry
from moorage.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from moorage.metadata import blobs
from moorage.metadata import collection as facts
from moorage.metadata.base import Metadata, Query, Row, Unit
from moorage.metadata.events import Change
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry import collection
from moorage.spec.digest import Digest
from moorage.spec.names import fallback_tag
from moorage.storage.base import new_key
from moorage.storage.memory import MemoryBlobStore
from moorage.testing.contract.units import spied
from tests.registry.conftest import Away
from tests.support import (
    CONFIG,
    LAYER,
    OCI_MANIFEST,
    Json,
    artifact,
    descriptor,
    digest_of,
    encode,
    image,
    index,
    pieces,
)

GRACE = 1000.0


class Place:
    """A registry over memory, its clock, and short words for pushing."""

    def __init__(self, **policy: Any) -> None:
        self.now = 1_000_000.0
        self.store = MemoryBlobStore()
        self.metadata = Away()
        policy = {
            "collect_grace": GRACE,
            "housekeeping_interval": 3600,
            "unnamed_grace": 5000.0,
            "history_days": 0.0,
        } | policy
        self.registry = Registry(
            self.store, self.metadata, Policy(**policy), clock=lambda: self.now, housekeeping=False
        )

    async def blob(self, content: bytes, repository: str = "a") -> str:
        return await self.registry.uploads.push(repository, digest_of(content), pieces(content))

    async def put(self, document: Json, reference: str | None = None, repository: str = "a") -> Json:
        """A descriptor of what was pushed."""
        content = encode(document)
        media_type = str(document["mediaType"])
        await self.registry.manifests.put(repository, reference or digest_of(content), content, media_type)
        return descriptor(content, media_type)

    async def image(self, name: str, reference: str | None = None, repository: str = "a") -> Json:
        """An image with a layer of its own; its descriptor."""
        for content in (CONFIG, name.encode()):
            await self.blob(content, repository)
        return await self.put(image(CONFIG, [name.encode()]), reference, repository)

    async def later(self, seconds: float) -> None:
        """Let time pass, and the registry do what is due."""
        self.now += seconds
        await self.registry.clean()

    async def has_blob(self, content: bytes, repository: str = "a") -> bool:
        """Whether it is there, asked without renewing its grace."""
        return bool(await self.metadata.fetch("blob_of_repository", repository, digest_of(content)))

    async def has(self, manifest: Json, repository: str = "a") -> bool:
        return bool(await self.metadata.fetch("describe_by_digest", repository, manifest["digest"]))

    async def objects(self) -> int:
        return len([key async for key in self.store.list()])


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    async with made.registry:
        yield made


async def test_blob_that_no_manifest_references(place: Place) -> None:
    """It stays for the grace period and goes with its bytes after that, and so does its repository."""
    await place.blob(b"lonely")
    await place.later(GRACE - 1)
    assert await place.has_blob(b"lonely")
    await place.later(1)
    assert not await place.has_blob(b"lonely")
    assert await place.objects() == 0
    assert (await place.registry.repositories.list()).items == []


async def test_referenced_blobs_stay(place: Place) -> None:
    """What a manifest references stays for ever, tagged or not; what it let go of stays for another grace."""
    pushed = await place.image("one")
    await place.later(100 * GRACE)
    assert await place.has_blob(b"one")
    await place.registry.manifests.delete("a", pushed["digest"])
    await place.later(GRACE - 1)
    assert await place.has_blob(b"one")
    await place.later(1)
    assert not await place.has_blob(b"one")
    assert await place.objects() == 0


async def test_shared_layers_stay(place: Place) -> None:
    """A layer stays while any manifest of its repository references it."""
    one = await place.image("one")
    await place.put(image(CONFIG, [b"one"], annotations={"n": "2"}), "second")
    await place.registry.manifests.delete("a", one["digest"])
    await place.later(2 * GRACE)
    assert await place.has_blob(b"one")


async def test_bytes_stay_while_another_repository_holds_them(place: Place) -> None:
    """A link goes by itself; the bytes go with the last one."""
    await place.blob(LAYER)
    await place.image(LAYER.decode(), "v1", repository="b")
    await place.later(GRACE)
    assert not await place.has_blob(LAYER)
    blob = await place.registry.blobs.get("b", digest_of(LAYER))
    assert b"".join([bytes(each) async for each in place.registry.blobs.read(blob)]) == LAYER


@pytest.mark.parametrize("how", ["asked for", "pushed", "mounted"])
async def test_who_is_told_that_a_blob_is_there_has_the_whole_grace(place: Place, how: str) -> None:
    """Whoever is told need not push it: its grace begins again, but for the quarter that renewing may save."""
    await place.blob(LAYER)
    await place.blob(LAYER, "b")
    await place.later(GRACE * 0.9)
    if how == "asked for":
        await place.registry.blobs.get("a", digest_of(LAYER))
    elif how == "pushed":
        await place.blob(LAYER)
    else:
        assert await place.registry.blobs.mount("a", digest_of(LAYER), "b")
    await place.later(GRACE * 0.74)
    assert await place.has_blob(LAYER)
    assert not await place.has_blob(LAYER, "b")
    await place.later(GRACE)
    assert not await place.has_blob(LAYER)


async def test_asking_writes_only_where_grace_wanes(place: Place) -> None:
    """Asking for a blob that a manifest references, or that was pushed lately, changes nothing."""
    await place.image("one")
    await place.blob(b"fresh")
    before = await place.metadata.fetch("blob_of_repository", "a", digest_of(b"fresh"))
    place.now += GRACE * 0.2
    await place.registry.blobs.get("a", digest_of(b"fresh"))
    assert await place.metadata.fetch("blob_of_repository", "a", digest_of(b"fresh")) == before
    place.now += 10 * GRACE
    await place.registry.blobs.get("a", digest_of(b"one"))
    assert (await place.metadata.fetch("blob_of_repository", "a", digest_of(b"one")))[0][2] is None


async def test_asking_too_late(place: Place) -> None:
    """A blob that was taken between the question and its renewal is not said to be there."""
    await place.blob(LAYER)
    real = place.metadata.fetch

    async def fetch(query: str, *parameters: Any) -> Any:
        rows = await real(query, *parameters)
        if query == "blob_of_repository":
            place.metadata.fetch = real  # type: ignore[method-assign]
            await place.later(GRACE)
        return rows

    place.metadata.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(BlobUnknown):
        await place.registry.blobs.get("a", digest_of(LAYER))


async def test_untagged_manifests_stay(place: Place) -> None:
    """A manifest without a tag is pulled by digest: it stays, and so do those that a tag left."""
    first = await place.image("one", "v1")
    await place.image("two", "v1")
    await place.registry.manifests.delete("a", "v1")
    await place.later(10 * GRACE)
    assert await place.has(first)
    assert (await place.registry.repositories.list()).items == ["a"]


async def test_deleted_index_lets_its_children_go(place: Place) -> None:
    """The platforms of a deleted index go after the grace, with their layers, unless something else holds them."""
    images = [await place.image(name) for name in ("alone", "tagged", "shared", "asked for")]
    await place.put(image(CONFIG, [b"tagged"]), "v1")
    await place.put(index(images[2:3]), "other")
    platforms = await place.put(index(images), "latest")
    await place.registry.manifests.delete("a", platforms["digest"])
    await place.later(GRACE * 0.9)
    await place.registry.manifests.get("a", images[3]["digest"], content=False)
    await place.later(GRACE * 0.1)
    assert [await place.has(each) for each in images] == [False, True, True, True]
    await place.later(GRACE)
    assert [await place.has(each) for each in images] == [False, True, True, False]
    assert not await place.has_blob(b"alone")
    assert await place.has_blob(b"shared")


async def test_nested_indexes_go_together(place: Place) -> None:
    """What an index of indexes held goes level by level."""
    inner = await place.put(index([await place.image("deep")]))
    outer = await place.put(index([inner]), "v1")
    await place.registry.manifests.delete("a", outer["digest"])
    for _ in range(3):
        await place.later(GRACE)
    assert await place.objects() == 0
    with pytest.raises(NameUnknown):
        await place.registry.tags.list("a")


async def test_children_pushed_again_stay(place: Place) -> None:
    """A child that is pushed, tagged or listed again before its grace is over stays."""
    images = [await place.image(name) for name in ("pushed", "tagged", "listed")]
    platforms = await place.put(index(images), "latest")
    await place.registry.manifests.delete("a", platforms["digest"])
    await place.put(image(CONFIG, [b"pushed"]))
    await place.put(image(CONFIG, [b"tagged"]), "v1")
    await place.put(index(images[2:]), "other")
    await place.later(10 * GRACE)
    assert [await place.has(each) for each in images] == [True, True, True]


async def test_referrers_go_with_their_subject(place: Place) -> None:
    """Untagged referrers, and theirs, go after the grace; a tagged one stays, and so do those of a living subject."""
    await place.blob(b"{}")
    subject, other = await place.image("one", "v1"), await place.image("two", "v2")
    signature = await place.put(artifact("application/x-signature", subject))
    countersigned = await place.put(artifact("application/x-signature", signature))
    tagged = await place.put(artifact("application/x-sbom", subject), "sbom")
    elsewhere = await place.put(artifact("application/x-signature", other))
    await place.registry.manifests.delete("a", subject["digest"])
    await place.later(GRACE - 1)
    assert await place.has(signature)
    await place.later(1)
    assert not await place.has(signature)
    await place.later(GRACE)
    found = [await place.has(each) for each in (countersigned, tagged, elsewhere)]
    assert found == [False, True, True]


async def test_subject_that_comes_back(place: Place) -> None:
    """Referrers stay if their subject is pushed again in time; those whose subject never was stay anyway."""
    await place.blob(b"{}")
    early = await place.put(artifact(subject=descriptor(encode(image(CONFIG, [b"one"])), OCI_MANIFEST)))
    await place.later(10 * GRACE)
    assert await place.has(early)
    await place.image("one", "v1")
    await place.registry.manifests.delete("a", early_subject := (await place.image("one"))["digest"])
    await place.later(GRACE / 2)
    assert (await place.image("one"))["digest"] == early_subject
    await place.later(10 * GRACE)
    assert await place.has(early)


async def test_without_cascade() -> None:
    """Where the policy says so, children and referrers stay."""
    place = Place(cascade=False)
    async with place.registry:
        await place.blob(b"{}")
        child = await place.image("one")
        platforms = await place.put(index([child]), "v1")
        signature = await place.put(artifact(subject=platforms))
        await place.registry.manifests.delete("a", platforms["digest"])
        await place.later(10 * GRACE)
        assert await place.has(child)
        assert await place.has(signature)


async def test_superseded_referrers_lists_go(place: Place) -> None:
    """However many lists a fallback tag named, only the last stays: those of clients and those merged here."""
    await place.blob(b"{}")
    subject = await place.image("one", "v1")
    tag = fallback_tag(subject["digest"])
    listed: list[Json] = []
    for n in range(20):
        listed.append(await place.put(artifact(subject=subject, annotations={"n": str(n)})))
        if n % 3 == 0:
            await place.put(index(listed[-2:]), tag)
    found = await place.registry.manifests.get("a", tag)
    names = {each["digest"] for each in json.loads(found.content or b"")["manifests"]}
    assert names == {each["digest"] for each in listed}
    await place.later(GRACE)
    ((manifests, *_),) = await place.metadata.fetch("check_counts")
    assert manifests == 1 + 20 + 1
    await place.later(10 * GRACE)
    assert (await place.registry.manifests.get("a", tag)).digest == found.digest


async def test_list_that_is_also_something_else_stays(place: Place) -> None:
    """An index that was pushed by digest or under another tag too is no mere list."""
    await place.blob(b"{}")
    subject = await place.image("one", "v1")
    tag = fallback_tag(subject["digest"])
    first = await place.put(index([subject]), tag)
    await place.put(index([subject]))
    await place.put(index([subject], annotations={"n": "2"}), tag)
    await place.later(10 * GRACE)
    assert await place.has(first)


async def test_explicit_deletion_of_the_last_link(place: Place) -> None:
    """A blob that its last repository deletes is gone with its bytes at once."""
    await place.blob(LAYER)
    await place.blob(LAYER, "b")
    await place.registry.blobs.delete("a", digest_of(LAYER))
    await place.registry.clean()
    assert await place.objects() == 1
    await place.registry.blobs.delete("b", digest_of(LAYER))
    await place.registry.clean()
    assert await place.objects() == 0


async def test_zero_grace_and_a_slow_push(place: Place) -> None:
    """Without any grace a push loses its layers, and is told which to send again; nothing half is stored."""
    hasty = Place(collect_grace=0)
    async with hasty.registry:
        await hasty.blob(CONFIG)
        await hasty.registry.clean()
        await hasty.blob(LAYER)
        with pytest.raises(ManifestBlobUnknown) as raised:
            await hasty.put(image(), "v1")
        assert [each["digest"] for each in raised.value.details] == [digest_of(CONFIG)]
        await hasty.blob(CONFIG)
        await hasty.put(image(), "v1")
        await hasty.registry.clean()
        assert await hasty.has_blob(LAYER)


async def test_events_say_why(place: Place) -> None:
    """Each removal is an event with its reason."""
    child = await place.image("one")
    platforms = await place.put(index([child]), "v1")
    await place.registry.manifests.delete("a", platforms["digest"], actor="me")
    await place.later(GRACE)
    await place.later(GRACE)
    rows = await _all(place.metadata, "SELECT actor, action, digest, reason FROM events ORDER BY seq DESC LIMIT 3")
    unreferenced = "no manifest of the repository references it"
    assert ("collection", "blob.delete", digest_of(b"one"), unreferenced) in rows
    gone = ("collection", "manifest.delete", child["digest"], "the index that it belonged to was deleted")
    assert gone in rows


async def test_turned_off() -> None:
    """Without collection nothing goes by itself, and a full one by request takes all."""
    place = Place(collection=False)
    async with place.registry:
        await place.blob(LAYER)
        await place.later(100 * GRACE)
        assert await place.has_blob(LAYER)
        swept = await place.registry.collect()
        assert (swept.collected.links, swept.collected.blobs) == (1, 1)
        assert await place.objects() == 0


async def test_sweep_mends_what_older_versions_left(tmp_path: Path) -> None:
    """A root whose facts know nothing of what is referenced is put right by the sweep, without losing anything."""
    place = Place()
    place.metadata = Away(tmp_path / "facts.db")
    place.registry = Registry(
        place.store, place.metadata, place.registry.policy, clock=lambda: place.now, housekeeping=False
    )
    async with place.registry:
        kept = await place.image("kept", "v1")
        gone = await place.image("gone", "v2")
        await place.blob(b"pushed")
        await place.registry.manifests.delete("a", gone["digest"])
        await place.blob(b"bytes without a link", "b")
        with closing(sqlite3.connect(tmp_path / "facts.db")) as connection, connection:
            connection.execute("UPDATE repository_blobs SET unreferenced_since = NULL")
            connection.execute(
                "UPDATE repository_blobs SET unreferenced_since = 1 WHERE digest = ?", (digest_of(b"kept"),)
            )
            connection.execute("DELETE FROM repository_blobs WHERE repository_id = 2")
        await place.later(10 * GRACE)
        assert await place.has_blob(b"kept")
        await place.registry.collect()
        assert await place.has_blob(b"gone")
        assert (await place.registry.repositories.list()).items == ["a"]
        await place.later(GRACE)
        assert [await place.has_blob(each) for each in (b"gone", b"pushed", b"kept")] == [False, False, True]
        assert await place.has(kept)
        assert await place.objects() == 2


async def test_files_that_no_fact_names(place: Place) -> None:
    """They go once they were seen so for longer than their grace; a write that is finished meanwhile stays."""
    lost, finished = new_key(), new_key()
    for key in (lost, finished):
        async with place.store.write(key) as writer:
            await writer.write([LAYER])
    assert (await place.registry.collect()).unnamed == 0
    place.now += 5000
    change = Change(place.now)
    await place.metadata.transact(blobs.add, "a", Digest(digest_of(LAYER)), len(LAYER), finished, change)
    assert [each.digest async for each in place.registry.collectable()] == [lost]
    assert (await place.registry.collect()).unnamed == 1
    assert [key async for key in place.store.list()] == [finished]


async def test_sweep_goes_on_where_it_was(place: Place) -> None:
    """A sweep that ended in the middle goes on from there once its turn is over, and later due again."""
    parts = place.registry._parts
    before = place.store.list
    calls: list[str] = []

    def counted(prefix: str = "") -> AsyncIterator[str]:
        calls.append(prefix)
        if len(calls) == 100:
            raise OSError("the disk is away")
        return before(prefix)

    place.store.list = counted  # type: ignore[method-assign]
    with pytest.raises(OSError, match="away"):
        await collection.sweep_if_due(parts)
    await collection.sweep_if_due(parts)
    assert len(calls) == 100, "another process may be at it"
    place.now += 601
    await collection.sweep_if_due(parts)
    assert len(calls) == 100 + 256 - 99
    await collection.sweep_if_due(parts)
    assert len(calls) == 100 + 256 - 99, "it is not due"
    place.now += place.registry.policy.sweep_interval
    await collection.sweep_if_due(parts)
    assert len(calls) == 100 + 256 - 99 + 256


async def test_dry_run_says_what_would_go(place: Place) -> None:
    """What it names is what goes, the freed bytes are counted once, and nothing is changed."""
    child = await place.image("one")
    platforms = await place.put(index([child]), "v1")
    for repository in ("b", "c"):
        await place.blob(b"twice", repository)
    await place.image("held", "v1", "d")
    await place.blob(b"held", "b")
    await place.registry.manifests.delete("a", platforms["digest"])
    assert [each async for each in place.registry.collectable()] == []
    place.now += GRACE
    for _ in range(2):
        found = [(each.kind, each.repository, each.digest, each.size) async for each in place.registry.collectable()]
        assert sorted(found) == sorted(
            [
                ("manifest", "a", child["digest"], child["size"]),
                ("blob", "b", digest_of(b"twice"), 0),
                ("blob", "c", digest_of(b"twice"), 5),
                ("blob", "b", digest_of(b"held"), 0),
            ]
        )
    await place.registry.clean()
    assert [each async for each in place.registry.collectable()] == []


async def test_deletes_that_fail_do_not_keep_the_others(place: Place) -> None:
    """A file that cannot be deleted is tried again; the others go."""
    for n in range(5):
        await place.blob(b"%d" % n)
    (stuck, *_) = [key async for key in place.store.list()]
    real = place.store.delete

    async def delete(keys: Any) -> None:
        if stuck in keys:
            raise OSError("stuck")
        await real(keys)

    place.store.delete = delete  # type: ignore[method-assign]
    with pytest.raises(OSError, match="stuck"):
        await place.later(GRACE)
    assert [key async for key in place.store.list()] == [stuck]
    place.store.delete = real  # type: ignore[method-assign]
    await place.registry.clean()
    assert await place.objects() == 0


async def test_manifest_taken_between_question_and_renewal(place: Place) -> None:
    """A child that went meanwhile is not said to be there."""
    child = await place.image("one")
    platforms = await place.put(index([child]), "v1")
    await place.registry.manifests.delete("a", platforms["digest"])
    real = place.metadata.fetch

    async def fetch(query: str, *parameters: Any) -> Any:
        rows = await real(query, *parameters)
        if query == "describe_by_digest":
            place.metadata.fetch = real  # type: ignore[method-assign]
            await place.later(GRACE)
        return rows

    place.metadata.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(ManifestUnknown):
        await place.registry.manifests.get("a", child["digest"], content=False)


def steps_of(unit: Callable[[], Unit[Any]], metadata: SQLiteMetadata) -> list[Query]:
    """The statements of a unit, which is run."""
    done: list[Query] = []
    metadata._alone(spied(unit, done))
    return done


@pytest.mark.parametrize("images", [10, 2000])
async def test_cost_of_one_deletion(images: int) -> None:
    """Deleting one image and collecting it takes as many statements among many images as among few, none a scan."""
    place = Place()
    async with place.registry:
        for n in range(images):
            await place.image(f"layer {n}", f"v{n}")
        victim = await place.registry.manifests.get("a", "v5")
        statements: list[Query] = []
        real = place.metadata.transact

        async def transact(unit: Callable[..., Unit[Any]], *arguments: Any, **named: Any) -> None:
            statements.extend(steps_of(partial(unit, *arguments, **named), place.metadata))

        place.now += 10 * GRACE
        await place.registry.clean()
        place.metadata.transact = transact  # type: ignore[method-assign]
        await place.registry.manifests.delete("a", victim.digest)
        place.metadata.transact = real  # type: ignore[method-assign]
        deleting = len(statements)
        place.now += GRACE
        change = Change(place.now)
        manifests = partial(facts.collect_manifests, "index", place.now, 100, change, cascade=True, bury=False)
        statements += steps_of(manifests, place.metadata)
        statements += steps_of(partial(facts.collect_blobs, place.now - GRACE, 100, change), place.metadata)
        assert (deleting, len(statements)) == (13, 21)
        for name, parameters in statements:
            for plan in await _plan(place.metadata, name, parameters):
                assert "SCAN" not in plan or "CONSTANT ROW" in plan or "(subquery" in plan, (name, plan)


async def _plan(metadata: SQLiteMetadata, name: str, parameters: tuple[Any, ...]) -> list[str]:
    text = metadata._queries[name]
    if text.startswith("INSERT"):
        return []
    rows = metadata._reader.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
    return [str(row[3]) for row in rows]


async def _all(metadata: Metadata, statement: str) -> list[Row]:
    assert isinstance(metadata, SQLiteMetadata)
    return metadata._reader.execute(statement).fetchall()


async def test_two_registries_collect_at_once(tmp_path: Path) -> None:
    """Two processes' worth of collection on one root take each thing once."""
    policy = Policy(collect_grace=0, housekeeping_interval=3600)
    async with (
        open_registry(tmp_path, policy, housekeeping=False) as one,
        open_registry(tmp_path, policy, housekeeping=False) as two,
    ):
        for n in range(250):
            await one.uploads.push("a", digest_of(b"%d" % n), pieces(b"%d" % n))
        swept = await asyncio.gather(one.collect(), two.collect())
        assert sum(each.collected.blobs for each in swept) == 250
        assert not [file for file in (tmp_path / "blobs").rglob("*") if file.is_file()]
        assert (await two.repositories.list()).items == []
