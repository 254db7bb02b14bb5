"""The contract of units and named queries: all or nothing, one after the other, whatever they change."""

# ruff: noqa: S101  an assert is what a test is made of
import asyncio
import functools

import pytest

from moorage.metadata import doomed, manifest_changes, manifests, repositories, tags, uploads
from moorage.metadata.base import Metadata, Query, Unit, later, load_queries, one, run, together
from moorage.spec.errors import BlobUploadRangeInvalid, ManifestUnknown, PreconditionFailed
from moorage.spec.preconditions import Precondition
from moorage.testing.contract.driving import with_metadata
from moorage.testing.contract.units import (
    CHANGE,
    DIGEST,
    REPOSITORY,
    Broken,
    add_bytes,
    anything,
    everything,
    pushed,
    reads,
    received,
    refused,
    sample,
    session,
    walk,
)

LARGEST = 2**63 - 1


class TransactionContract:
    """Units and named queries. Needs a fixture ``metadata``: a ``Metadata``, empty and not opened."""

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
        assert await walk(lambda last: tags.page(metadata, REPOSITORY, last, 3)) == names
        others = sorted([REPOSITORY, "a-b", "a.b", "a/b", "a0", "a_b", "aa", "a"])
        for name in others:
            await metadata.transact(repositories.make, name)
        assert await walk(lambda last: repositories.page(metadata, last, 3)) == others

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


def _pair(n: int) -> Unit[None]:
    yield from repositories.make(f"{n}-a")
    yield from repositories.make(f"{n}-b")
