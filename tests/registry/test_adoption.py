"""Adopting a storage tree: what is broken in it, what was changed here, and what becomes of its bytes."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage import Policy, Registry
from moorage.errors import BlobUnknown, ManifestUnknown, NameUnknown
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.adoption import Adoption
from moorage.registry.blobs import ContentLost
from moorage.registry.check import check
from moorage.registry.imports import Imported
from moorage.registry.policy import QuotaRule
from moorage.registry.uploads import BATCH
from moorage.spec.errors import StorageUnavailable
from moorage.storage.adopting import AdoptingBlobStore
from moorage.storage.memory import MemoryBlobStore
from moorage.storage.trees import FolderTree
from tests.distribution_tree import DistributionTree
from tests.support import CONFIG, LAYER, descriptor, digest_of, encode, image, index, pieces

GRACE = 1000.0
ROOM = {"bytes": 10**9}
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Place:
    """A tree, and a registry that adopts it."""

    def __init__(self, folder: Path, **quota: int) -> None:
        self.now = 1_000_000.0
        self.tree = DistributionTree(folder / "old")
        self.own = MemoryBlobStore()
        self.store = AdoptingBlobStore(self.own, FolderTree(self.tree.root), "adopt")
        self.registry = Registry(
            self.store,
            SQLiteMetadata(),
            Policy(collect_grace=GRACE, history_days=0.0, quotas=(QuotaRule(repository="**", **(quota or ROOM)),)),
            clock=lambda: self.now,
            housekeeping=False,
        )

    async def adopt(self) -> Imported:
        return await Adoption(self.registry, FolderTree(self.tree.root), "old").run()

    async def tags(self, repository: str = "a") -> dict[str, str]:
        try:
            found = (await self.registry.tags.list(repository)).items
        except NameUnknown:
            return {}
        return {tag: (await self.registry.manifests.get(repository, tag)).digest for tag in found}

    async def read(self, digest: str, *, got: list[bytes] | None = None, **span: int) -> bytes:
        """The bytes, each piece of which goes to ``got`` as it comes."""
        got = [] if got is None else got
        blob = await self.registry.blobs.get("a", digest)
        async for piece in self.registry.blobs.read(blob, **span):
            got.append(bytes(piece))
        return b"".join(got)

    async def push_image(self, number: int, *tags: str) -> str:
        """The same as ``DistributionTree.push_image``, to the registry."""
        layer = b"%d" % number + LAYER
        for content in (CONFIG, layer):
            await self.registry.uploads.push("a", digest_of(content), pieces(content))
        content = encode(image(layers=[layer]))
        done = await self.registry.manifests.put("a", digest_of(content), content, also=tags)
        return done.digest

    async def wrong(self) -> list[str]:
        return [f"{each.rule}: {each.what}" async for each in check(self.store, self.registry.metadata, full=True)]

    async def own_keys(self) -> list[str]:
        return [key async for key in self.own.list()]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    async with made.registry:
        await made.registry.quotas.apply()
        yield made


async def test_only_facts_are_taken(place: Place) -> None:
    """Content pulls from where it lies, in whole and in part, as long as a fact needs it; the tree is not touched."""
    digest = place.tree.push_image("a", 1, "v1", "v2")
    layer = b"1" + LAYER
    before = place.tree.listing()
    done = await place.adopt()
    assert (done.manifests, done.tags, done.blobs, done.problems) == (1, 2, 2, [])
    assert await place.tags() == {"v1": digest, "v2": digest}
    for _ in range(2):
        assert await place.read(digest_of(layer)) == layer
    assert await place.read(digest_of(layer), start=2, stop=5) == layer[2:5]
    assert await place.own_keys() == []
    assert await place.wrong() == []
    await place.registry.manifests.delete("a", digest)
    place.now += 2 * GRACE
    await place.registry.collect()
    with pytest.raises(BlobUnknown):
        await place.read(digest_of(layer))
    assert place.tree.listing() == before


async def test_large_blob(place: Place) -> None:
    """Several pieces, the last of which waits for the digest."""
    layer = bytes(range(256)) * (3 * BATCH // 256) + b"end"
    for content in (CONFIG, layer):
        place.tree.blob(content)
    place.tree.push("a", image(layers=[layer]), "v1")
    await place.adopt()
    assert await place.read(digest_of(layer)) == layer


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("size", [20, 100_000, 3 * BATCH])
async def test_flipped_byte(place: Place, size: int, at: int) -> None:
    """It is never given in whole, and quarantined; a push mends it, and another adoption does not undo that."""
    layer = bytes(size - 1) + b"1"
    for content in (CONFIG, layer):
        place.tree.blob(content)
    digest = place.tree.push("a", image(layers=[layer]), "v1")
    damaged = bytearray(layer)
    damaged[at] ^= 1
    place.tree.data(digest_of(layer)).write_bytes(damaged)
    await place.adopt()
    got: list[bytes] = []
    with pytest.raises(ContentLost):
        await place.read(digest_of(layer), got=got)
    assert sum(map(len, got)) < size
    with pytest.raises(BlobUnknown):
        await place.read(digest_of(layer))
    assert len(await place.wrong()) == 1
    place.tree.push("a", image(layers=[layer], annotations={"a": "b"}), "v2")
    (problem,) = [each for each in (await place.adopt()).problems if "@" in each]
    assert digest_of(layer) in problem
    await place.registry.uploads.push("b", digest_of(layer), pieces(layer))
    await place.adopt()
    assert await place.read(digest_of(layer)) == layer
    assert (await place.tags())["v1"] == digest
    assert await place.wrong() == []


async def test_mended_in_the_tree(place: Place) -> None:
    """A small blob that was damaged is not remembered with its wrong bytes."""
    layer = b"1" + LAYER
    place.tree.push_image("a", 1, "v1")
    path = place.tree.data(digest_of(layer))
    path.write_bytes(layer[:-1] + b"!")
    await place.adopt()
    with pytest.raises(ContentLost):
        await place.read(digest_of(layer))
    path.write_bytes(layer)
    await place.registry.scrub()
    blob = await place.registry.blobs.get("a", digest_of(layer))
    assert place.registry.blobs.at_hand(blob) in (None, layer)
    assert await place.read(digest_of(layer)) == layer


async def test_broken_tree(place: Place) -> None:
    """What is broken is named and does not come; what is not does. Mended, it comes."""
    tree = place.tree
    good = tree.push_image("a", 1, "good")
    short, gone, unlinked, damaged, lone = (tree.push_image("a", n, f"v{n}") for n in range(2, 7))
    whole = tree.data(digest_of(b"2" + LAYER)).read_bytes()
    tree.data(digest_of(b"2" + LAYER)).write_bytes(whole[:-1])
    tree.data(digest_of(b"3" + LAYER)).unlink()
    tree.revision("a", unlinked).unlink()
    tree.data(damaged).write_bytes(b"{}")
    tree.tag("a", "v6").write_text("nonsense")
    tree.tag("a", "empty").parent.mkdir(parents=True)
    tree.tag("a", "empty").write_text("")
    (tree.repository("a") / "_uploads" / "1" / "hashstates").mkdir(parents=True)
    (tree.repository("a") / "_uploads" / "1" / "data").write_bytes(b"left over")
    (tree.repository("a") / "_layers" / "sha256" / "0").mkdir(parents=True)
    (tree.repository("UP") / "_manifests").mkdir(parents=True)
    before = tree.listing()
    done = await place.adopt()
    assert await place.tags() == {"good": good}
    assert (await place.registry.manifests.get("a", lone)).digest == lone
    for digest in (short, gone, unlinked, damaged):
        with pytest.raises(ManifestUnknown):
            await place.registry.manifests.get("a", digest)
        assert any(digest in each for each in done.problems)
    for words in (
        "is cut short, or another",
        "is not there",
        "was deleted there",
        "have the digest",
        "no digest",
        "UP",
    ):
        assert any(words in each for each in done.problems), words
    assert any("empty/current/link is empty" in each for each in done.problems)
    assert await place.wrong() == []
    assert tree.listing() == before
    tree.data(digest_of(b"2" + LAYER)).write_bytes(whole)
    await place.adopt()
    assert (await place.tags())["v2"] == short


async def test_tree_that_is_away(place: Place) -> None:
    """A mount that is gone is no damage: nothing is quarantined, and it serves once it is back."""
    place.tree.push_image("a", 1, "v1")
    layer = b"1" + LAYER
    await place.adopt()
    top, away = place.tree.top, place.tree.root / "away"
    top.rename(away)
    with pytest.raises(StorageUnavailable):
        await place.read(digest_of(layer))
    with pytest.raises(StorageUnavailable):
        await place.registry.scrub()
    away.rename(top)
    assert await place.read(digest_of(layer)) == layer
    assert await place.wrong() == []


async def test_deleted_child_does_not_come_again(place: Place) -> None:
    """A new index in the tree over a manifest that was deleted here is named, and does not bring that back."""
    child = place.tree.push_image("a", 1)
    await place.adopt()
    await place.registry.manifests.delete("a", child)
    listed = {**descriptor(b"", OCI_MANIFEST), "digest": child, "size": place.tree.data(child).stat().st_size}
    parent = place.tree.push("a", index([listed]), "multi")
    done = await place.adopt()
    assert [each for each in done.problems if f"@{parent}" in each]
    assert await place.tags() == {}
    assert (await place.adopt()).manifests == 0


async def test_pushed_before_it_was_adopted(place: Place) -> None:
    """What came by a push and is in the tree, too, does not come again when it was deleted after an adoption."""
    digest = place.tree.push_image("a", 1, "v1")
    await place.push_image(1, "v1")
    await place.adopt()
    await place.registry.manifests.delete("a", digest)
    await place.adopt()
    assert await place.tags() == {}
    with pytest.raises(ManifestUnknown):
        await place.registry.manifests.get("a", digest)


async def test_taken_in(place: Place) -> None:
    """What is right is copied and what is not is quarantined; then the tree may go, and pushes mend the rest."""
    for number in (1, 2):
        place.tree.push_image("a", number, f"v{number}")
    place.tree.data(digest_of(b"2" + LAYER)).write_bytes(b"3" + LAYER)
    await place.adopt()
    taken = await place.registry.take_in()
    assert (taken.blobs, taken.damaged) == (2, 1)
    shutil.rmtree(place.tree.root)
    assert await place.read(digest_of(b"1" + LAYER)) == b"1" + LAYER
    assert len(await place.own_keys()) == 2
    assert len(await place.wrong()) == 1
    await place.push_image(2)
    assert await place.wrong() == []
    assert (await place.registry.take_in()).blobs == 0


async def test_another_tree_is_refused(place: Place, tmp_path: Path) -> None:
    """Keys do not say which tree they are of, so there is one at a time."""
    place.tree.push_image("a", 1, "v1")
    await place.adopt()
    other = DistributionTree(tmp_path / "other")
    with pytest.raises(RuntimeError, match="one tree at a time"):
        await Adoption(place.registry, FolderTree(other.root), "other").run()
    with pytest.raises(RuntimeError, match="a storage tree of distribution"):
        await Adoption(place.registry, FolderTree(tmp_path / "nothing"), "nothing").run()


async def test_quota(tmp_path: Path) -> None:
    """What lies in the tree counts like what is stored; what does not fit is named, and comes when it fits."""
    place = Place(tmp_path, bytes=1000)
    sizes = [len(place.tree.data(place.tree.push_image("a", n, f"v{n}")).read_bytes()) for n in range(3)]
    assert sum(sizes) > 1000
    async with place.registry:
        await place.registry.quotas.apply()
        done = await place.adopt()
        assert any("the quota of ** allows 1.0 kB" in each for each in done.problems)
        tags = await place.tags()
        assert 0 < len(tags) < 3
        await place.registry.manifests.delete("a", next(iter(tags.values())))
        place.now += 2 * GRACE
        await place.registry.collect()
        assert (await place.adopt()).manifests == 1
        assert await place.wrong() == []


TAGS = st.sampled_from(["x", "y"])
NUMBERS = st.integers(0, 2)
STEPS = st.one_of(
    st.tuples(st.just("there"), NUMBERS, TAGS),
    st.tuples(st.just("untag there"), TAGS),
    st.tuples(st.just("here"), NUMBERS, TAGS),
    st.tuples(st.just("untag here"), TAGS),
    st.tuples(st.just("delete here"), NUMBERS),
    st.tuples(st.just("adopt")),
    st.tuples(st.just("collect")),
)


class Model:
    """What tags and manifests there are by the rules: a tag follows the tree only while nobody touched it here."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.revisions: dict[str, None] = {}
        self.here: dict[str, str] = {}
        self.manifests: set[str] = set()
        self.seen: dict[str, str] = {}

    def adopt(self) -> None:
        for digest in self.revisions:
            if digest not in self.seen:
                self.seen[digest] = digest
                self.manifests.add(digest)
        for tag, digest in self.there.items():
            before, now = self.seen.get(tag), self.here.get(tag)
            if before != digest and digest in self.manifests:
                if now == before:
                    self.here[tag] = digest
                self.seen[tag] = digest


@given(st.lists(STEPS, max_size=14))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_nothing_comes_again(steps: list[tuple[Any, ...]]) -> None:
    """Pushes, deletions and moves on both sides, adoptions and collections in any order."""

    async def run(folder: Path) -> None:
        place, model = Place(folder), Model()
        digests = {n: digest_of(encode(image(layers=[b"%d" % n + LAYER]))) for n in range(3)}
        async with place.registry:
            await place.registry.quotas.apply()
            for kind, *rest in [*steps, ("adopt",)]:
                if kind == "there":
                    digest = place.tree.push_image("a", *rest)
                    model.there[rest[1]] = digest
                    model.revisions[digest] = None
                elif kind == "untag there" and model.there.pop(rest[0], None):
                    place.tree.tag("a", rest[0]).unlink()
                elif kind == "here":
                    digest = await place.push_image(*rest)
                    model.here[rest[1]] = digest
                    model.manifests.add(digest)
                elif kind == "untag here" and model.here.pop(rest[0], None):
                    await place.registry.manifests.delete("a", rest[0])
                elif kind == "delete here" and digests[rest[0]] in model.manifests:
                    digest = digests[rest[0]]
                    await place.registry.manifests.delete("a", digest)
                    model.manifests.remove(digest)
                    model.here = {tag: each for tag, each in model.here.items() if each != digest}
                elif kind == "adopt":
                    before = place.tree.listing()
                    await place.adopt()
                    assert place.tree.listing() == before
                    model.adopt()
                elif kind == "collect":
                    place.now += 2 * GRACE
                    await place.registry.collect()
                assert await place.tags() == model.here
                for n, digest in digests.items():
                    if digest in model.manifests:
                        await place.registry.manifests.get("a", digest)
                        assert await place.read(digest_of(b"%d" % n + LAYER)) == b"%d" % n + LAYER
                    else:
                        with pytest.raises(ManifestUnknown):
                            await place.registry.manifests.get("a", digest)
            assert await place.wrong() == []

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
