"""The contract of ``moorage.metadata.base.Metadata``."""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from moorage.metadata import blobs, doomed, manifest_changes, manifests, referrers, releases, tags, uploads
from moorage.metadata.base import Metadata, Query, Unit, run
from moorage.spec.digest import Digest
from moorage.spec.errors import (
    BlobUnknown,
    BlobUploadUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
)
from moorage.spec.names import fallback_tag
from moorage.spec.preconditions import ALWAYS
from moorage.spec.releases import MOST_CHANGES, TagMove
from moorage.testing.contract.driving import with_metadata
from moorage.testing.contract.moving import MovingContract
from moorage.testing.contract.transactions import TransactionContract
from moorage.testing.contract.units import (
    CHANGE,
    DIGEST,
    LATER,
    REPOSITORY,
    Broken,
    add_bytes,
    anything,
    pushed,
    session,
    spied,
    walk,
)

# What is done, and of each of its events action, tag, digest before and after.
_Change = tuple[Callable[[], Unit[Any]], list[tuple[str, str | None, str | None, str | None]]]


class MetadataContract(TransactionContract, MovingContract):
    """Needs a fixture ``metadata``: a ``MovableMetadata``, empty and not opened."""

    @with_metadata
    async def test_an_upload_session_from_start_to_blob(self, metadata: Metadata) -> None:
        opened = await session(metadata)
        for key, size in [("first", 5), ("second", 2)]:
            now = await uploads.find(metadata, REPOSITORY, opened.id, 0.0)
            await metadata.transact(uploads.append, now, key, size, DIGEST, LATER)
        assert await uploads.segments(metadata, opened.id) == [("first", 5), ("second", 2)]
        now = await uploads.find(metadata, REPOSITORY, opened.id, 0.0)
        assert (now.received, now.digest) == (7, DIGEST)
        assert await metadata.transact(uploads.finish, now, DIGEST, 7, "whole", ["first", "second"], CHANGE) is True
        stored = await blobs.find(metadata, REPOSITORY, DIGEST)
        assert (stored.size, stored.key) == (7, "whole")
        assert set(await doomed.page(metadata, 10)) == {"first", "second"}
        with pytest.raises(BlobUploadUnknown):
            await uploads.find(metadata, REPOSITORY, opened.id, 0.0)
        with pytest.raises(BlobUploadUnknown):
            await metadata.transact(add_bytes, now, 1)
        assert await uploads.segments(metadata, opened.id) == []

    @with_metadata
    async def test_sessions_expire(self, metadata: Metadata) -> None:
        for n in range(5):
            await metadata.transact(uploads.start, REPOSITORY, f"u{n}", "sha256", 0.0, 10.0 + n)
        now = await uploads.find(metadata, REPOSITORY, "u1", 10.9)
        await metadata.transact(uploads.append, now, "key", 1, None, 11.0)
        with pytest.raises(BlobUploadUnknown):
            await uploads.find(metadata, REPOSITORY, "u1", 11.0)
        assert await metadata.transact(uploads.expire, 12.0, 2) == 2
        assert await metadata.transact(uploads.expire, 12.0, 2) == 1
        assert await metadata.transact(uploads.expire, 12.0, 2) == 0
        assert await doomed.page(metadata, 10) == ["key"]
        assert (await uploads.find(metadata, REPOSITORY, "u3", 12.0)).received == 0

    @with_metadata
    async def test_blobs_belong_to_repositories(self, metadata: Metadata) -> None:
        assert await metadata.transact(blobs.add, "a", DIGEST, 7, "key", CHANGE) is False
        with pytest.raises(BlobUnknown):
            await blobs.find(metadata, "b", DIGEST)
        assert await metadata.transact(blobs.mount, "b", DIGEST, "c", CHANGE) is False
        assert await metadata.transact(blobs.mount, "b", DIGEST, "a", CHANGE) is True
        await metadata.transact(blobs.unlink, "a", DIGEST, CHANGE, referenced=False)
        assert (await blobs.find(metadata, "b", DIGEST)).key == "key"
        with pytest.raises(BlobUnknown):
            await blobs.find(metadata, "a", DIGEST)

    @with_metadata
    async def test_the_second_bytes_of_one_content_are_doomed(self, metadata: Metadata) -> None:
        adds = (metadata.transact(blobs.add, f"r{n}", DIGEST, 7, f"key{n}", CHANGE) for n in range(10))
        assert sorted(await asyncio.gather(*adds)) == [False] + [True] * 9
        kept = {(await blobs.find(metadata, f"r{n}", DIGEST)).key for n in range(10)}
        assert len(kept) == 1
        assert set(await doomed.page(metadata, 100)) == {f"key{n}" for n in range(10)} - kept

    @with_metadata
    async def test_doomed_keys(self, metadata: Metadata) -> None:
        """The longest doomed first; dooming twice is one doom; forgetting what is not there is no error."""
        for key, since in [("c", 3.0), ("a", 1.0), ("b", 2.0), ("a", 9.0)]:
            await metadata.transact(run, "doom", key, since)
        assert await doomed.page(metadata, 2) == ["a", "b"]
        await metadata.transact(doomed.forget, ["a", "b", "not there"])
        assert await doomed.page(metadata, 10) == ["c"]

    @with_metadata
    async def test_a_refused_push_leaves_no_trace(self, metadata: Metadata) -> None:
        wanted = pushed("refused", tags=["tag"])
        strict = manifest_changes.Push(
            REPOSITORY, wanted.digest, wanted.content, wanted.facts, ["tag"], ALWAYS, frozenset()
        )
        with pytest.raises(ManifestBlobUnknown):
            await metadata.transact(manifest_changes.push, strict, CHANGE)
        assert await anything(metadata) == []

    @with_metadata
    async def test_referrers(self, metadata: Metadata) -> None:
        subject = pushed("subject", tags=["v1"])
        notes = [pushed(f"note {n}", subject=subject.digest) for n in range(7)]
        for each in [subject, *notes]:
            await metadata.transact(manifest_changes.push, each, CHANGE)

        async def page(last: str = "", kind: str | None = None, limit: int = 3) -> list[str]:
            index, more = await referrers.page(metadata, REPOSITORY, subject.digest, kind, last, limit)
            found = [each["digest"] for each in msgspec.json.decode(index)["manifests"]]
            assert more in (None, found[-1] if found else None)
            return found

        assert await walk(page) == sorted(note.digest for note in notes)
        kind = "application/vnd.example.note"
        assert len(await page(kind=kind, limit=7)) == 7
        assert await page(kind="other") == []
        await metadata.transact(
            manifest_changes.delete, REPOSITORY, notes[0].digest, ALWAYS, CHANGE, referenced=False
        )
        assert await page(kind=kind, limit=10) == sorted(note.digest for note in notes[1:])
        assert await tags.page(metadata, REPOSITORY, "", 10) == ["v1"]
        with pytest.raises(ManifestUnknown):
            await manifests.find(metadata, REPOSITORY, fallback_tag(subject.digest), None)

    @with_metadata
    async def test_deleting_a_manifest_takes_its_tags(self, metadata: Metadata) -> None:
        wanted = pushed("one", tags=["a", "b"])
        await metadata.transact(manifest_changes.push, wanted, CHANGE)
        await metadata.transact(manifest_changes.push, pushed("other", tags=["c"]), CHANGE)
        await metadata.transact(tags.delete, REPOSITORY, "a", ALWAYS, CHANGE)
        assert (await manifests.find(metadata, REPOSITORY, "b", None)).digest == wanted.digest
        await metadata.transact(manifest_changes.delete, REPOSITORY, wanted.digest, ALWAYS, CHANGE, referenced=False)
        assert await tags.page(metadata, REPOSITORY, "", 10) == ["c"]
        with pytest.raises(NameUnknown):
            await metadata.transact(tags.delete, "library/other", "c", ALWAYS, CHANGE)

    @with_metadata
    async def test_an_event_goes_with_each_change(self, metadata: Metadata) -> None:
        """In its transaction: where the event cannot be written, nothing is changed."""
        first, second = pushed("first", tags=["tag"]), pushed("second", tags=["tag"])
        changes: list[_Change] = [
            (
                lambda: manifest_changes.push(first, CHANGE),
                [("manifest.push", None, None, None), ("tag.push", "tag", None, first.digest)],
            ),
            (
                lambda: manifest_changes.push(second, CHANGE),
                [("manifest.push", None, None, None), ("tag.push", "tag", first.digest, second.digest)],
            ),
            (lambda: manifest_changes.push(second, CHANGE), []),
            (lambda: tags.delete(REPOSITORY, "tag", ALWAYS, CHANGE), [("tag.delete", "tag", second.digest, None)]),
            (
                lambda: manifest_changes.delete(REPOSITORY, first.digest, ALWAYS, CHANGE, referenced=False),
                [("manifest.delete", None, None, None)],
            ),
            (lambda: blobs.add(REPOSITORY, DIGEST, 7, "key", CHANGE), [("blob.push", None, None, None)]),
            (lambda: blobs.mount(REPOSITORY, DIGEST, None, CHANGE), []),
            (
                lambda: blobs.unlink(REPOSITORY, DIGEST, CHANGE, referenced=False),
                [("blob.delete", None, None, None)],
            ),
        ]
        for change, expected in changes:
            before, statements = await anything(metadata), list[Query]()
            if expected:
                with pytest.raises(Broken):
                    await metadata.transact(spied, change, [], break_at="add_event")
                assert await anything(metadata) == before
            await metadata.transact(spied, change, statements)
            events = [parameters for name, parameters in statements if name == "add_event"]
            assert [(action, tag, old, new) for _, _, action, _, _, tag, old, new, _ in events] == expected
            assert {event[:2] for event in events} <= {(CHANGE.at, CHANGE.actor)}

    @with_metadata
    async def test_a_release_is_one_change(self, metadata: Metadata) -> None:
        """Of several that race from the same tags one is done whole; also the largest; and back."""
        everywhere = [f"t{n:03}" for n in range(MOST_CHANGES)]
        rounds = [pushed("old", tags=everywhere), *(pushed(f"{n}") for n in range(4))]
        for each in rounds:
            await metadata.transact(manifest_changes.push, each, CHANGE)

        free: dict[str, Any] = {"fixed": {}, "kept": lambda *_: False}

        async def release(name: str, digest: str, expected: str) -> bool:
            moves = [TagMove(REPOSITORY, tag, digest, expected) for tag in everywhere]
            return await metadata.transact(releases.make, name, moves, CHANGE, **free)

        old = rounds[0].digest
        rivals = (release(f"r{n}", each.digest, old) for n, each in enumerate(rounds[1:]))
        outcomes = await asyncio.gather(*rivals, return_exceptions=True)
        assert outcomes.count(True) == 1
        assert sum(isinstance(each, PreconditionFailed) for each in outcomes) == 3
        winner = outcomes.index(True)

        async def named() -> set[str]:
            return {
                (await manifests.find(metadata, REPOSITORY, tag, None, content=False)).digest for tag in everywhere
            }

        assert await named() == {rounds[winner + 1].digest}
        found = [each.name for each in await releases.page(metadata, (9.9, ""), 10)]
        assert found == [f"r{winner}"]
        again = await asyncio.gather(*(release(f"r{winner}", rounds[winner + 1].digest, old) for _ in range(3)))
        assert again == [False] * 3
        undone = (
            metadata.transact(releases.roll_back, f"r{winner}", CHANGE, frozenset[str](), **free) for _ in range(3)
        )
        assert await asyncio.gather(*undone) == [[]] * 3
        assert await named() == {old}

    @with_metadata
    async def test_much_at_once(self, metadata: Metadata) -> None:
        pushes = [pushed(f"{n}", tags=[f"t{n:04}"]) for n in range(400)]
        await asyncio.gather(*(metadata.transact(manifest_changes.push, each, CHANGE) for each in pushes))
        assert await tags.page(metadata, REPOSITORY, "", 1000) == [f"t{n:04}" for n in range(400)]
        found = await manifests.find(metadata, REPOSITORY, None, Digest(pushes[123].digest), content=False)
        assert (found.size, found.content) == (len(pushes[123].content), None)
