"""The contract of ``moorage.metadata.base.Metadata``."""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from moorage.metadata import blobs, doomed, manifest_changes, manifests, referrers, repositories, tags, uploads
from moorage.metadata.base import (
    Metadata,
    MovableMetadata,
    Query,
    Rows,
    Unit,
    later,
    load_queries,
    one,
    run,
    together,
)
from moorage.metadata.events import Change
from moorage.spec import digest as digests
from moorage.spec.digest import Digest
from moorage.spec.errors import (
    BlobUnknown,
    BlobUploadRangeInvalid,
    BlobUploadUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
)
from moorage.spec.names import fallback_tag
from moorage.spec.preconditions import ALWAYS, Precondition
from moorage.testing.contract.driving import with_metadata
from moorage.testing.contract.units import (
    LATER,
    REPOSITORY,
    Broken,
    add_bytes,
    pushed,
    reads,
    received,
    refused,
    sample,
    session,
    spied,
)

CHANGE = Change(1.5, "someone")
DIGEST = digests.compute(b"content")
LARGEST = 2**63 - 1


def everything() -> Unit[None]:
    """Put something into most tables."""
    yield from blobs.add(REPOSITORY, DIGEST, 7, "key", CHANGE)
    yield from uploads.start(REPOSITORY, "upload", "sha256", 1.0, LATER)
    yield from run("add_segment", "upload", 0, 1, "segment")
    yield from manifest_changes.push(pushed("all", tags=["tag"]), CHANGE)
    yield from run("doom", "doomed", 1.0)


async def anything(metadata: Metadata) -> list[object]:
    """What ``everything`` would have left."""
    return [
        *await repositories.page(metadata, "", 10),
        *await tags.page(metadata, REPOSITORY, "", 10),
        *await doomed.page(metadata, 10),
        *await uploads.segments(metadata, "upload"),
        *await metadata.fetch("upload", "upload", REPOSITORY, 0.0),
        *await metadata.fetch("check_blobs", "", 10),
        *await metadata.fetch("check_manifests", 0, 10),
    ]


async def pages_of(metadata: MovableMetadata) -> list[Rows]:
    """All facts, as they are dumped."""
    return [page async for page in metadata.dump()]


async def again(pages: list[Rows]) -> AsyncIterator[Rows]:
    """``pages``, one by one."""
    for page in pages:
        yield page


class MetadataContract:
    """Units and named queries. Needs a fixture ``metadata``: a ``Metadata``, empty and not opened."""

    @with_metadata
    async def test_what_was_dumped_is_loaded_in_place_of_all_else(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before, pages = await anything(metadata), await pages_of(metadata)
        assert {page.table for page in pages} >= {"blobs", "manifests", "tags", "segments", "events"}
        await metadata.transact(repositories.make, "later")
        await metadata.load(again(pages))
        assert await anything(metadata) == before
        assert sorted(await pages_of(metadata)) == sorted(pages)
        # Numbers that the database gives go on after those that came.
        await metadata.transact(repositories.make, "another")
        await metadata.transact(manifest_changes.push, pushed("other", tags=["other"]), CHANGE)
        assert await tags.page(metadata, REPOSITORY, "", 10) == ["other", "tag"]

    @with_metadata
    async def test_a_load_that_breaks_off_changes_nothing(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before = await anything(metadata)

        async def broken() -> AsyncIterator[Rows]:
            yield Rows("repositories", ("id", "name"), [(1, "a")])
            raise Broken

        with pytest.raises(Broken):
            await metadata.load(broken())
        assert await anything(metadata) == before

    @with_metadata
    async def test_a_dump_is_of_one_moment(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before = await pages_of(metadata)
        dump = metadata.dump()
        pages = [await anext(dump)]
        await metadata.transact(repositories.make, "later")
        await metadata.transact(manifest_changes.push, pushed("later", tags=["later"]), CHANGE)
        pages += [page async for page in dump]
        assert sorted(pages) == sorted(before)

    @with_metadata
    async def test_a_unit_gives_rows_and_a_result(self, metadata: Metadata) -> None:
        def unit() -> Unit[str]:
            assert list((yield "repository_id", ("a",))) == []
            assert list((yield "add_repository", ("a",))) == []
            rows = yield "repository_id", ("a",)
            assert [type(row) for row in rows] == [tuple]
            assert (yield from one("repository_id", "b")) is None
            return f"found {len(rows)}"

        assert await metadata.transact(unit) == "found 1"

    @with_metadata
    async def test_statements_run_in_their_order(self, metadata: Metadata) -> None:
        """Also those that the unit does not wait for, and several at once."""

        def unit() -> Unit[None]:
            yield from later("doom", "a", 1.0)
            assert list((yield "doomed", (10,))) == [("a",)]
            yield from later("doom", "b", 2.0)
            yield from later("forget_doomed", "a")
            found = yield from together(
                [("doomed", (10,)), ("add_upload", ("u", "r", "sha256", 0.0, 1.0)), ("upload", ("u", "r", 0.5))]
            )
            assert [list(rows) for rows in found] == [[("b",)], [], [("sha256", 0, None)]]
            assert (yield from together([])) == []
            yield from later("doom", "c", 3.0)

        await metadata.transact(unit)
        assert await doomed.page(metadata, 10) == ["b", "c"]

    @with_metadata
    async def test_what_is_committed_is_seen_at_once(self, metadata: Metadata) -> None:
        for n in range(50):
            identifier = await metadata.transact(repositories.make, f"r{n:02}")
            assert list(await metadata.fetch("repository_id", f"r{n:02}")) == [(identifier,)]

    @with_metadata
    async def test_a_unit_that_raises_changes_nothing(self, metadata: Metadata) -> None:
        error = ValueError("not now")
        with pytest.raises(ValueError, match="not now") as raised:
            await metadata.transact(refused, everything, error)
        assert raised.value is error
        assert await anything(metadata) == []
        await metadata.transact(everything)
        assert len(await anything(metadata)) == 7

    @pytest.mark.parametrize(
        "statement",
        [
            ("add_blob", ("digest", None, "another key", 1.0)),
            ("add_segment", ("upload", 0, 1, "another segment")),
            ("no_such_query", ()),
            ("repository_id", ("one", "too many")),
        ],
    )
    @with_metadata
    async def test_a_statement_that_fails_changes_nothing(self, metadata: Metadata, statement: Query) -> None:
        def unit() -> Unit[None]:
            yield from everything()
            yield statement

        with pytest.raises(Exception, match=r".+"):
            await metadata.transact(unit)
        assert await anything(metadata) == []
        await metadata.transact(everything)

    @with_metadata
    async def test_a_failing_unit_is_alone_among_many(self, metadata: Metadata) -> None:
        def unit(n: int) -> Unit[int]:
            yield from repositories.make(f"r{n:03}")
            if n % 7 == 3:
                raise ValueError(n)
            if n % 7 == 5:
                yield "add_blob", (None, None, None, None)
            return n

        outcomes = await asyncio.gather(*(metadata.transact(unit, n) for n in range(210)), return_exceptions=True)
        good = [n for n in range(210) if n % 7 not in (3, 5)]
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == good
        assert [outcome.args for outcome in outcomes if isinstance(outcome, ValueError)] == [
            (n,) for n in range(210) if n % 7 == 3
        ]
        assert await repositories.page(metadata, "", 1000) == [f"r{n:03}" for n in good]

    @with_metadata
    async def test_a_caller_that_is_cancelled(self, metadata: Metadata) -> None:
        """Its unit is done whole or not at all, and the next ones run."""
        tasks = [asyncio.create_task(metadata.transact(_pair, n)) for n in range(40)]
        for turn, task in enumerate(tasks):
            if turn % 2:
                await asyncio.sleep(0)
                task.cancel()
        await asyncio.wait(tasks)
        await metadata.transact(repositories.make, "after")
        names = set(await repositories.page(metadata, "", 1000))
        assert {f"{n}-a" for n in range(0, 40, 2)} <= names
        for n in range(40):
            assert (f"{n}-a" in names) == (f"{n}-b" in names)

    @with_metadata
    async def test_every_query_runs(self, metadata: Metadata) -> None:
        """Each text of ``queries.sql`` is valid for parameters of the right types; what reads, in ``fetch`` too."""
        wrong: dict[str, BaseException] = {}
        for name, text in load_queries().items():
            parameters = sample(text)
            try:
                with pytest.raises(Broken):
                    await metadata.transact(refused, functools.partial(run, name, *parameters), Broken())
                if reads(text):
                    await metadata.fetch(name, *parameters)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  all that fail are told at once
                wrong[name] = error
        assert wrong == {}

    @with_metadata
    async def test_values_come_back_as_they_were(self, metadata: Metadata) -> None:
        content = bytes(range(256)) + b"\x00" * 1_000_000
        moment = 1763726400.123456

        def unit() -> Unit[None]:
            identifier = yield from repositories.make("a")
            row = (DIGEST, "text/plain; charset=ü", LARGEST, "subject", None, '{"ключ": "値 🎉"}', moment, content)
            yield from run("add_manifest", identifier, *row)
            yield from run("add_upload", "upload", "a", "sha256", 0.0, moment)

        await metadata.transact(unit)
        ((digest, media_type, size, found, _),) = await metadata.fetch("manifest_by_digest", "a", DIGEST)
        assert (digest, media_type, size) == (DIGEST, "text/plain; charset=ü", LARGEST)
        assert bytes(found) == content
        assert await metadata.fetch("upload", "upload", "a", moment) == []
        assert list(await metadata.fetch("upload", "upload", "a", moment - 0.000001)) == [("sha256", 0, None)]
        referring = await metadata.fetch("page_referrers", "a", "subject", "tag", "", None, 1)
        assert [row[3:] for row in referring] == [(None, '{"ключ": "値 🎉"}')]

    @with_metadata
    async def test_pages_are_in_bytewise_order(self, metadata: Metadata) -> None:
        """Whatever the database's own idea of order is."""
        names = sorted(
            ["0", "9", "A", "Z", "_", "_a", "a", "a-b", "a.b", "a_b", "aB", "ab", "b", "v1", "v1.10", "v1.9"]
        )
        for name in reversed(names):
            await metadata.transact(manifest_changes.push, pushed(name, tags=[name]), CHANGE)
        assert await _walk(lambda last: tags.page(metadata, REPOSITORY, last, 3)) == names
        others = sorted([REPOSITORY, "a-b", "a.b", "a/b", "a0", "a_b", "aa", "a"])
        for name in others:
            await metadata.transact(repositories.make, name)
        assert await _walk(lambda last: repositories.page(metadata, last, 3)) == others

    @with_metadata
    async def test_the_same_swap_at_once_has_one_winner(self, metadata: Metadata) -> None:
        opened = await session(metadata)
        for turn in range(5):
            now = await uploads.find(metadata, REPOSITORY, opened.id, 0.0)
            moves = (metadata.transact(add_bytes, now, 1) for _ in range(20))
            outcomes = await asyncio.gather(*moves, return_exceptions=True)
            assert outcomes.count(None) == 1
            assert sum(isinstance(each, BlobUploadRangeInvalid) for each in outcomes) == 19
            assert await received(metadata, opened) == turn + 1

    @with_metadata
    async def test_a_tag_moves_only_from_where_it_was_seen(self, metadata: Metadata) -> None:
        new, current = Precondition(none_match="*"), None
        for turn in range(5):
            condition = Precondition(match=f'"{current}"') if current else new
            wanted = [pushed(f"{turn}.{n}", tags=["latest"], precondition=condition) for n in range(12)]
            outcomes = await asyncio.gather(
                *(metadata.transact(manifest_changes.push, each, CHANGE) for each in wanted), return_exceptions=True
            )
            (winner,) = [each for each, outcome in zip(wanted, outcomes, strict=True) if outcome is None]
            assert sum(isinstance(each, PreconditionFailed) for each in outcomes) == 11
            stored = await manifests.find(metadata, REPOSITORY, "latest", None)
            assert (stored.digest, stored.content) == (winner.digest, winner.content)
            for loser in wanted:
                if loser is not winner:
                    with pytest.raises(ManifestUnknown):
                        await manifests.find(metadata, REPOSITORY, None, loser.digest)
            current = winner.digest

    @with_metadata
    async def test_no_increment_is_lost(self, metadata: Metadata) -> None:
        opened = await session(metadata)

        async def increment() -> None:
            for _ in range(10):
                while True:
                    now = await uploads.find(metadata, REPOSITORY, opened.id, 0.0)
                    await asyncio.sleep(0)  # the others come in between
                    try:
                        await metadata.transact(add_bytes, now, 1)
                        break
                    except BlobUploadRangeInvalid:
                        continue

        await asyncio.gather(*(increment() for _ in range(12)))
        assert await received(metadata, opened) == 120
        assert len({key for key, _ in await uploads.segments(metadata, opened.id)}) == 120

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

        assert await _walk(page) == sorted(note.digest for note in notes)
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
        changes: list[tuple[Callable[[], Unit[Any]], list[tuple[str, str | None, str | None, str | None]]]] = [
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
    async def test_much_at_once(self, metadata: Metadata) -> None:
        pushes = [pushed(f"{n}", tags=[f"t{n:04}"]) for n in range(400)]
        await asyncio.gather(*(metadata.transact(manifest_changes.push, each, CHANGE) for each in pushes))
        assert await tags.page(metadata, REPOSITORY, "", 1000) == [f"t{n:04}" for n in range(400)]
        found = await manifests.find(metadata, REPOSITORY, None, Digest(pushes[123].digest), content=False)
        assert (found.size, found.content) == (len(pushes[123].content), None)


def _pair(n: int) -> Unit[None]:
    yield from repositories.make(f"{n}-a")
    yield from repositories.make(f"{n}-b")


async def _walk(page: Callable[[str], Any]) -> list[str]:
    """All pages, one after the other, each from where the one before ended."""
    found: list[str] = []
    for _ in itertools.count():
        more = await page(found[-1] if found else "")
        if not more:
            break
        found += more
    return found
