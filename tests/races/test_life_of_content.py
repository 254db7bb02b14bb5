"""Pushes, mounts, deletes, retags, restores and collection in any order, by two registries over one root.

The model knows what must be there and what must not; what it does not know is whether something whose grace is over
is gone yet. In the end everything that nothing holds is gone, with its bytes.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from moorage import Policy, Registry, open_registry
from moorage.errors import BlobUnknown, InUse, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from moorage.registry.check import check
from tests.fuzz.profile import bounded
from tests.support import OCI_INDEX, OCI_MANIFEST, Json, descriptor, digest_of, encode, image, index, pieces

GRACE, HISTORY = 100.0, 1000.0
NAMES, TAGS = ("a", "b/c"), ("v1", "v2")
CONTENTS = tuple(b"content %d" % n for n in range(4))
Result = TypeVar("Result")
names, tags = st.sampled_from(NAMES), st.sampled_from(TAGS)
contents = st.sampled_from(CONTENTS)
which = st.integers(0, 1)  # of the two registries


@dataclass
class Manifest:
    """A manifest as pushed, and what it needs."""

    content: bytes
    media_type: str
    blobs: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    subject: str | None = None


@dataclass
class Repository:
    """What is known of a repository. ``told`` is when a client was last told that a blob is there."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    told: dict[str, float] = field(default_factory=dict)
    orphans: dict[str, float] = field(default_factory=dict)  # since when each is to go

    def held(self, digest: str) -> bool:
        """Whether a tag, an index or a living subject holds a manifest."""
        return (
            digest in self.tags.values()
            or any(digest in each.children for each in self.manifests.values())
            or self.manifests[digest].subject in self.manifests
        )


class Life(RuleBasedStateMachine):
    """Everything through the verbs of ``Registry``; the clock is set by a rule."""

    grace = GRACE

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.now = 1_000_000.0
        policy = Policy(
            collect_grace=self.grace, history_days=HISTORY / 86400, housekeeping_interval=3600, unnamed_grace=0
        )
        self.registries: list[Registry] = []
        for _ in range(2):
            registry = open_registry(self.root, policy, clock=lambda: self.now, housekeeping=False)
            self.runner.run(registry.__aenter__())
            self.registries.append(registry)
        self.model = {name: Repository() for name in NAMES}
        self.known: list[tuple[str, Manifest]] = []
        self.moments: list[tuple[float, str, str, str | None]] = []

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def teardown(self) -> None:
        try:
            self.everything_unheld_goes()
        finally:
            for registry in self.registries:
                self.run(registry.__aexit__(None, None, None))
            self.runner.close()
            shutil.rmtree(self.root)

    # Pushing

    @rule(name=names, content=contents, who=which)
    def push_blob(self, name: str, content: bytes, who: int) -> None:
        digest = digest_of(content)
        self.run(self.registries[who].uploads.push(name, digest, pieces(content)))
        self.model[name].told[digest] = self.now

    @rule(name=names, source=names, content=contents, who=which)
    def mount(self, name: str, source: str, content: bytes, who: int) -> None:
        digest = digest_of(content)
        if self.run(self.registries[who].blobs.mount(name, digest, source)):
            self.model[name].told[digest] = self.now
        else:
            assert not self.blob_must_be_there(source, digest)

    @rule(name=names, content=contents, who=which)
    def ask_for_blob(self, name: str, content: bytes, who: int) -> None:
        digest = digest_of(content)
        try:
            self.run(self.registries[who].blobs.get(name, digest))
        except BlobUnknown:
            assert not self.blob_must_be_there(name, digest)
        else:  # three quarters of the grace are sure
            told = self.now - self.grace / 4
            self.model[name].told[digest] = max(told, self.model[name].told.get(digest, 0))

    @rule(name=names, layers=st.sets(contents, max_size=2), tag=st.one_of(st.none(), tags), who=which, data=st.data())
    def push_image(self, name: str, layers: set[bytes], tag: str | None, who: int, data: Any) -> None:
        manifests = sorted(self.model[name].manifests)
        subject = data.draw(st.sampled_from([None, *manifests]), "subject")
        config, *_ = sorted(layers) or [CONTENTS[0]]
        if data.draw(st.integers(0, 3), "blobs pushed before"):
            for content in {config, *layers}:
                self.push_blob(name, content, who)
        more = {"subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}} if subject else {}
        document = image(config, sorted(layers), **more)
        blobs = frozenset(map(digest_of, [config, *layers]))
        self.push(name, Manifest(encode(document), OCI_MANIFEST, blobs, subject=subject), tag, who)

    @rule(name=names, tag=st.one_of(st.none(), tags), who=which, data=st.data())
    def push_index(self, name: str, tag: str | None, who: int, data: Any) -> None:
        manifests = sorted(self.model[name].manifests)
        children = data.draw(st.sets(st.sampled_from(manifests), max_size=2), "children") if manifests else set()
        listed = [self.describe(name, digest) for digest in sorted(children)]
        manifest = Manifest(encode(index(listed)), OCI_INDEX, children=frozenset(children))
        self.push(name, manifest, tag, who)

    def describe(self, name: str, digest: str) -> Json:
        known = self.model[name].manifests[digest]
        return descriptor(known.content, known.media_type)

    def push(self, name: str, manifest: Manifest, tag: str | None, who: int) -> None:
        repository, digest = self.model[name], digest_of(manifest.content)
        put = self.registries[who].manifests.put(name, tag or digest, manifest.content, manifest.media_type)
        try:
            self.run(put)
        except ManifestBlobUnknown as error:
            missing = {each["digest"] for each in error.details}
            assert not any(self.blob_must_be_there(name, each) for each in missing & manifest.blobs)
            assert not any(self.manifest_must_be_there(name, each) for each in missing & manifest.children)
            for each in missing & manifest.children:
                self.gone(name, each)
            return
        for child in manifest.children:
            repository.orphans.pop(child, None)
        for each, known in repository.manifests.items():
            if known.subject == digest:
                repository.orphans.pop(each, None)
        repository.manifests[digest] = manifest
        repository.orphans.pop(digest, None)
        for blob in manifest.blobs:
            repository.told.pop(blob, None)
        if tag:
            repository.tags[tag] = digest
        self.note()

    # Changing

    @rule(name=names, tag=tags, who=which)
    def delete_tag(self, name: str, tag: str, who: int) -> None:
        try:
            self.run(self.registries[who].manifests.delete(name, tag))
        except (ManifestUnknown, NameUnknown):
            assert tag not in self.model[name].tags
        else:
            self.model[name].tags.pop(tag)
        self.note()

    @rule(name=names, who=which, data=st.data())
    def delete_manifest(self, name: str, who: int, data: Any) -> None:
        manifests = sorted(self.model[name].manifests)
        if not manifests:
            return
        digest = data.draw(st.sampled_from(manifests), "manifest")
        try:
            self.run(self.registries[who].manifests.delete(name, digest))
        except InUse:
            assert any(digest in each.children for each in self.model[name].manifests.values())
        except (ManifestUnknown, NameUnknown):
            assert not self.manifest_must_be_there(name, digest)
            self.gone(name, digest)
        else:
            self.gone(name, digest)
        self.note()

    def gone(self, name: str, digest: str) -> None:
        """A manifest is gone, and what it held with it after the grace."""
        repository = self.model[name]
        manifest = repository.manifests.pop(digest)
        repository.orphans.pop(digest, None)
        repository.tags = {tag: each for tag, each in repository.tags.items() if each != digest}
        for blob in manifest.blobs:
            if not any(blob in each.blobs for each in repository.manifests.values()):
                repository.told[blob] = self.now
        referrers = [each for each, known in repository.manifests.items() if known.subject == digest]
        for each in (*manifest.children, *referrers):
            if each in repository.manifests and not repository.held(each):
                repository.orphans[each] = self.now

    @rule(name=names, tag=tags, who=which, data=st.data())
    def restore(self, name: str, tag: str, who: int, data: Any) -> None:
        """Set a tag back to what it named at a moment that history reaches."""
        reached = [(at, digest) for at, n, t, digest in self.moments if (n, t) == (name, tag) and digest]
        reached = [(at, digest) for at, digest in reached if at > self.now - HISTORY and at < self.now]
        if not reached:
            return
        at, digest = data.draw(st.sampled_from(reached[-6:]), "moment")
        assert self.run(self.registries[who].history.restore(name, tag, at)) == digest
        self.bring_back(name, digest)
        self.model[name].tags[tag] = digest
        self.model[name].orphans.pop(digest, None)
        self.note()

    def bring_back(self, name: str, digest: str) -> None:
        """What the registry now has of what a restored manifest needs and what refers to it."""
        repository = self.model[name]
        known = {digest_of(each.content): each for where, each in self.known if where == name}
        waiting, seen = [digest], set[str]()
        while waiting:
            each = waiting.pop()
            if each in seen:
                continue
            seen.add(each)
            manifest = known[each]
            if not self.there(name, each):
                continue
            repository.manifests[each] = manifest
            for blob in manifest.blobs:
                repository.told.pop(blob, None)
            waiting += manifest.children
            waiting += [d for d, m in known.items() if m.subject == each and self.there(name, d)]
        for each in seen:
            if each in repository.manifests and repository.held(each):
                repository.orphans.pop(each, None)

    def there(self, name: str, digest: str) -> bool:
        try:
            self.run(self.registries[0].manifests.get(name, digest, content=False))
        except ManifestUnknown:
            return False
        return True

    # Time and collection

    @rule(seconds=st.sampled_from([1.0, 30.0, GRACE, 4 * GRACE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=which)
    def clean(self, who: int) -> None:
        self.run(self.registries[who].clean())
        self.see_what_went()

    @rule(who=which)
    def sweep(self, who: int) -> None:
        self.run(self.registries[who].collect())
        self.see_what_went()

    def see_what_went(self) -> None:
        """Let the model know which of those that may go are gone; that may let others go."""
        metadata, changed = self.registries[0].metadata, True
        while changed:
            changed = False
            for name, repository in self.model.items():
                for digest in list(repository.orphans):
                    if not self.manifest_must_be_there(name, digest) and not self.run(
                        metadata.fetch("describe_by_digest", name, digest)
                    ):
                        self.gone(name, digest)
                        changed = True

    # What must hold

    def note(self) -> None:
        """Remember what each tag names from now on, and every manifest."""
        for name, repository in self.model.items():
            self.moments += [(self.now, name, tag, repository.tags.get(tag)) for tag in TAGS]
            self.known += [(name, each) for each in repository.manifests.values()]
        last = {(name, tag): (at, name, tag, digest) for at, name, tag, digest in self.moments if at == self.now}
        self.moments = [each for each in self.moments if each[0] != self.now] + list(last.values())
        self.now += 0.001

    def manifest_must_be_there(self, name: str, digest: str) -> bool:
        repository = self.model[name]
        if digest not in repository.manifests:
            return False
        since = repository.orphans.get(digest)
        return since is None or repository.held(digest) or self.now - since < self.grace

    def blob_must_be_there(self, name: str, digest: str) -> bool:
        repository = self.model[name]
        if any(
            digest in repository.manifests[m].blobs and self.manifest_must_be_there(name, m)
            for m in repository.manifests
        ):
            return True
        return digest in repository.told and self.now - repository.told[digest] < self.grace

    @invariant()
    def nothing_that_is_held_is_lost(self) -> None:
        registry = self.registries[int(self.now * 1000) % 2]
        fetch = registry.metadata.fetch  # asked so, nothing's grace is renewed
        for name, repository in self.model.items():
            for digest in repository.manifests:
                if self.manifest_must_be_there(name, digest):
                    assert self.run(fetch("manifest_by_digest", name, digest)), (name, digest)
            for tag, digest in repository.tags.items():
                rows = self.run(fetch("describe_by_tag", name, tag))
                assert [row[0] for row in rows] == [digest], (name, tag)
            for content in CONTENTS:
                digest = digest_of(content)
                if self.blob_must_be_there(name, digest):
                    rows = self.run(fetch("blob_of_repository", name, digest))
                    assert rows, (name, digest)
                    assert (self.root / "blobs" / rows[0][1]).read_bytes() == content

    @invariant()
    def the_facts_agree(self) -> None:
        async def wrong() -> list[str]:
            store, metadata = self.registries[0]._parts.store, self.registries[0].metadata
            return [f"{each.rule}: {each.what}" async for each in check(store, metadata)]

        assert self.run(wrong()) == []

    @invariant()
    def what_is_referenced_is_known_exactly(self) -> None:
        metadata = self.registries[1].metadata
        for repository_id in range(1, 9):
            for digest, since, referenced in self.run(metadata.fetch("sweep_links", repository_id, "", 100)):
                assert bool(referenced) == (since is None), (repository_id, digest, since)

    def everything_unheld_goes(self) -> None:
        """Once all graces and the history are over, what is left is what is held, and not a byte more."""
        for _ in range(12):
            self.now += HISTORY + self.grace + 1
            for registry in self.registries:
                self.run(registry.collect())
            self.see_what_went()
        held = set()
        for name, repository in self.model.items():
            rows = self.run(self.registries[0].metadata.fetch("digests_of_repository", self.id_of(name), "", 1000))
            assert {digest for (digest,) in rows} == set(repository.manifests), name
            held |= {blob for each in repository.manifests.values() for blob in each.blobs}
        files = [each for each in (self.root / "blobs").rglob("*") if each.is_file()]
        assert sorted(digest_of(each.read_bytes()) for each in files) == sorted(held)
        listed = self.run(self.registries[0].repositories.list()).items
        assert listed == sorted(name for name, each in self.model.items() if each.manifests)

    def id_of(self, name: str) -> int:
        rows = self.run(self.registries[0].metadata.fetch("repository_id", name))
        return int(rows[0][0]) if rows else 0


class Hasty(Life):
    """Without any grace."""

    grace = 0.0


TestLife = Life.TestCase
TestLife.settings = bounded(25, steps=30)
TestHasty = Hasty.TestCase
TestHasty.settings = bounded(15, steps=30)
