"""Quotas: what repositories may have together, counted exactly whatever happens to them."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from moorage import Policy, Registry
from moorage.errors import QuotaExceeded, RegistryError
from moorage.metadata.base import MovableMetadata
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.quotas import Allowed, declare
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.check import check
from moorage.registry.policy import QuotaRule, RetentionRule
from moorage.spec.errors import ClientDisconnected
from moorage.storage.memory import MemoryBlobStore
from moorage.testing import memory_registry
from tests.fuzz.profile import bounded
from tests.postgres import TEMPLATE, Cluster
from tests.support import OCI_MANIFEST, Json, descriptor, digest_of, encode, image, index, pieces

Result = TypeVar("Result")
GRACE: Final = 100.0
# Patterns as regular expressions, written without Moorage.
EXPRESSIONS: Final = {"**": r".+", "a/**": r"a/.+", "a/x": r"a/x", "*": r"[^/]+"}
Numbers = tuple[int, int, int]


async def counted(registry: Registry) -> dict[str, Numbers]:
    """What the quotas say is used: bytes, tags, repositories."""
    return {each.pattern: (*each.used,) for each in await registry.quotas.list()}


async def recounted(metadata: MovableMetadata, patterns: Any) -> dict[str, Numbers]:
    """The same, from all other facts."""
    tables: dict[str, list[dict[str, Any]]] = {}
    async for page in metadata.dump():
        tables.setdefault(page.table, []).extend(dict(zip(page.columns, row, strict=True)) for row in page.rows)
    names = {row["id"]: row["name"] for row in tables.get("repositories", [])}
    sizes = {row["digest"]: row["size"] for table in ("blobs", "quarantined") for row in tables.get(table, [])}

    def of(pattern: str, table: str) -> list[dict[str, Any]]:
        expression = re.compile(EXPRESSIONS[pattern])
        rows = tables.get(table, [])
        return [row for row in rows if expression.fullmatch(names[row["repository_id"]].removeprefix("~"))]

    found = {}
    for pattern in patterns:
        expression = re.compile(EXPRESSIONS[pattern])
        used = sum(sizes[digest] for digest in {row["digest"] for row in of(pattern, "repository_blobs")})
        used += sum(row["size"] for row in of(pattern, "manifests"))
        used += sum(row["received"] for row in tables.get("uploads", []) if expression.fullmatch(row["repository"]))
        repositories = sum(bool(expression.fullmatch(name)) for name in names.values() if name[0] != "~")
        found[pattern] = used, len(of(pattern, "tags")), repositories
    return found


async def members_without_anything(metadata: MovableMetadata) -> set[str]:
    """Names that are members of quotas and have neither a repository nor a session."""
    names: dict[str, set[str]] = {"quota_members": set(), "repositories": set(), "uploads": set()}
    async for table, columns, rows in metadata.dump():
        if table in names:
            column = columns.index("repository" if table == "uploads" else "name")
            names[table] |= {row[column] for row in rows}
    return names["quota_members"] - names["repositories"] - names["uploads"]


class Place:
    """A registry in memory, its clock, and short words for pushing."""

    def __init__(self, *quotas: QuotaRule, metadata: MovableMetadata | None = None, **policy: Any) -> None:
        self.now = 1_000_000.0
        self.store = MemoryBlobStore()
        self.metadata = metadata or SQLiteMetadata()
        given = {"collect_grace": GRACE, "housekeeping_interval": 3600, "history_days": 0.0, "scrub_rate": 0.0}
        self.policy = given | policy
        self.registry = self.of(*quotas)

    def of(self, *quotas: QuotaRule) -> Registry:
        """A registry over the same, with these quotas."""
        policy = Policy(**self.policy, quotas=quotas)
        return Registry(self.store, self.metadata, policy, clock=lambda: self.now, housekeeping=False)

    async def blob(self, content: bytes, repository: str = "a/x") -> None:
        await self.registry.uploads.push(repository, digest_of(content), pieces(content))

    async def put(self, document: Json, reference: str | None = None, repository: str = "a/x") -> Json:
        content, media_type = encode(document), str(document["mediaType"])
        await self.registry.manifests.put(repository, reference or digest_of(content), content, media_type)
        return descriptor(content, media_type)

    async def image(self, tag: str, layer: bytes, repository: str = "a/x") -> Json:
        for content in (b"{}", layer):
            await self.blob(content, repository)
        return await self.put(image(b"{}", [layer]), tag, repository)

    async def used(self) -> dict[str, Numbers]:
        """What is counted, which is what there is."""
        found, quotas = await counted(self.registry), await self.registry.quotas.list()
        whole = {each.pattern for each in quotas if each.counted}
        assert {name: found[name] for name in whole} == await recounted(self.metadata, whole)
        for pattern, *numbers in await self.metadata.fetch("recount"):  # of members, all there or not
            assert numbers[:3] == numbers[3:], pattern
        assert await members_without_anything(self.metadata) == set()
        return found

    async def problems(self) -> list[str]:
        """What `moorage check` finds wrong of the quotas."""
        found = [each async for each in check(self.store, self.metadata)]
        return [each.what for each in found if each.rule == "a quota counts what its repositories have"]


@contextlib.asynccontextmanager
async def opened(*quotas: QuotaRule, **policy: Any) -> AsyncIterator[Place]:
    place = Place(*quotas, **policy)
    async with place.registry:
        await place.registry.quotas.apply()
        yield place


def limit(repository: str, **amounts: int) -> QuotaRule:
    return QuotaRule(repository=repository, **amounts)


async def test_a_blob_counts_once_in_each_quota() -> None:
    """However many repositories of the pattern hold it; and again in another quota."""
    async with opened(limit("a/**", bytes=1000), limit("*", bytes=1000)) as place:
        await place.blob(b"x" * 100, "a/x")
        await place.blob(b"x" * 100, "a/y")
        await place.registry.blobs.mount("b", digest_of(b"x" * 100), "a/x")
        assert await place.used() == {"*": (100, 0, 1), "a/**": (100, 0, 2)}
        await place.registry.blobs.delete("a/x", digest_of(b"x" * 100))
        assert (await place.used())["a/**"] == (100, 0, 2)
        await place.registry.blobs.delete("a/y", digest_of(b"x" * 100))
        assert (await place.used())["a/**"] == (0, 0, 2)


async def test_the_last_byte_and_one_more() -> None:
    """What just fits is taken; one byte more is refused, names everything, and leaves nothing behind."""
    async with opened(limit("a/**", bytes=100)) as place:
        await place.blob(b"x" * 60)
        await place.blob(b"y" * 40)
        with pytest.raises(QuotaExceeded) as refused:
            await place.blob(b"z")
        (error,) = refused.value.entries()
        assert error["code"] == "DENIED"
        assert error["message"] == "the quota of a/** allows 100 B; used: 100 B, asked for: 1 B more"
        detail = {"name": "a/x", "quota": "a/**", "of": "bytes", "allowed": 100, "used": 100, "asked": 1}
        assert error["detail"] == detail
        assert await place.used() == {"a/**": (100, 0, 1)}
        assert len([key async for key in place.store.list()]) == 2
        await place.blob(b"z", "elsewhere")
        await place.blob(b"x" * 60, "a/y")  # which is counted already


async def test_all_quotas_must_hold() -> None:
    async with opened(limit("**", bytes=150), limit("a/**", bytes=100)) as place:
        await place.blob(b"x" * 100, "b")
        with pytest.raises(QuotaExceeded, match=r"of \*\* allows 150 B; used: 100 B"):
            await place.blob(b"y" * 60)
        assert await place.used() == {"**": (100, 0, 1), "a/**": (0, 0, 0)}


async def test_nothing_is_sent_where_the_length_says_enough() -> None:
    """A body that is announced is not read; one that is not announced is read as far as there is room."""
    taken = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 10
            yield b"0123456789"

    async with opened(limit("a/**", bytes=100)) as place:
        uploads = place.registry.uploads
        session = await uploads.start("a/x")
        for announced in (
            uploads.push("a/x", digest_of(b"0123456789" * 100), body(), length=1000),
            uploads.append("a/x", session.id, body(), length=1000),
            uploads.finish("a/x", session.id, digest_of(b"0123456789" * 100), body(), length=1000),
        ):
            with pytest.raises(QuotaExceeded, match=r"asked for: 1\.0 kB more"):
                await announced
        assert taken == 0
        with pytest.raises(QuotaExceeded):
            await uploads.append("a/x", session.id, body())
        assert taken == 110
        assert (await uploads.get("a/x", session.id)).received == 0
        await place.blob(b"x" * 100, "a/y")
        with pytest.raises(QuotaExceeded):
            await uploads.start("a/z")


async def test_open_sessions_count() -> None:
    """From their first byte, of a repository that is not there yet too, and until they are closed or expire."""
    async with opened(limit("a/**", bytes=100, repositories=1), upload_expiry=50.0) as place:
        uploads = place.registry.uploads
        first, second, other = [await uploads.start(name) for name in ("a/x", "a/y", "a/z")]
        await uploads.append("a/z", other.id, pieces(b"z"))
        await uploads.append("a/x", first.id, pieces(b"x" * 30))
        await uploads.append("a/y", second.id, pieces(b"y" * 30))
        assert await place.used() == {"a/**": (61, 0, 0)}
        with pytest.raises(QuotaExceeded):
            await uploads.append("a/x", first.id, pieces(b"x" * 50), length=50)
        await uploads.append("a/x", first.id, pieces(b"x" * 30))
        await uploads.cancel("a/y", second.id)
        assert await place.used() == {"a/**": (61, 0, 0)}
        await uploads.finish("a/x", first.id, digest_of(b"x" * 60))
        assert await place.used() == {"a/**": (61, 0, 1)}
        with pytest.raises(QuotaExceeded, match="repositories"):
            await uploads.finish("a/z", other.id, digest_of(b"z"))
        await uploads.cancel("a/z", other.id)
        assert await place.used() == {"a/**": (60, 0, 1)}
        third = await uploads.start("a/x")
        await uploads.append("a/x", third.id, pieces(b"z" * 40))
        place.now += 60
        await place.registry.clean()
        assert await place.used() == {"a/**": (60, 0, 1)}
        with pytest.raises(QuotaExceeded, match="repositories; used: 1, asked for: 1 more"):
            await uploads.start("a/y")


async def test_what_a_session_received_is_not_asked_for_again() -> None:
    """So a session that is within the quota can be closed, also after the quota was lowered below it."""
    async with opened(limit("a/**", bytes=100)) as place:
        session = await place.registry.uploads.start("a/x")
        await place.registry.uploads.append("a/x", session.id, pieces(b"x" * 90))
        await place.of(limit("a/**", bytes=10)).quotas.apply()
        await place.registry.uploads.finish("a/x", session.id, digest_of(b"x" * 90))
        assert await place.used() == {"a/**": (90, 0, 1)}


async def test_tags_and_manifests() -> None:
    """New tags count and moved ones do not; a push that is refused leaves neither manifest nor tag."""
    async with opened(limit("a/**", tags=2), limit("**", bytes=2000)) as place:
        first = await place.image("v1", b"layer")
        await place.image("v1", b"other layer")
        await place.put(image(b"{}", [b"layer"]), "v2")
        used = await place.used()
        assert used["a/**"][1] == 2
        document = encode(image(b"{}", [b"layer"], annotations={"n": "1"}))
        with pytest.raises(QuotaExceeded, match="allows 2 tags; used: 2, asked for: 1 more"):
            await place.registry.manifests.put("a/x", "v3", document, OCI_MANIFEST)
        big = encode(image(b"{}", [b"layer"], annotations={"n": "1" * 2000}))
        with pytest.raises(QuotaExceeded, match=r"of \*\* allows 2.0 kB"):
            await place.registry.manifests.put("a/x", "v2", big, OCI_MANIFEST)
        assert await place.used() == used
        assert (await place.registry.manifests.get("a/x", "v2")).digest == first["digest"]
        await place.registry.manifests.delete("a/x", "v1")
        await place.put(image(b"{}", [b"layer"]), "v3")
        await place.registry.manifests.delete("a/x", first["digest"])
        assert (await place.used())["a/**"][1] == 0


async def test_what_the_history_keeps_counts() -> None:
    """Until the history does not reach it any more; a tag that is restored needs room for a tag."""
    async with opened(limit("a/**", bytes=10_000, tags=1), history_days=1.0) as place:
        first = await place.image("v1", b"x" * 1000)
        before = (await place.used())["a/**"][0]
        place.now += 1
        await place.registry.manifests.delete("a/x", first["digest"])
        assert await place.used() == {"a/**": (before, 0, 1)}
        place.now += 2 * GRACE
        await place.registry.collect()
        assert await place.used() == {"a/**": (before, 0, 0)}
        await place.registry.history.restore("a/x", "v1")
        assert await place.used() == {"a/**": (before, 1, 1)}
        await place.registry.manifests.delete("a/x", "v1")
        await place.put(image(b"{}", [b"x" * 1000]), "v2")
        with pytest.raises(QuotaExceeded, match="tags"):
            await place.registry.history.restore("a/x", "v1")
        await place.registry.manifests.delete("a/x", first["digest"])
        place.now += 2 * 86400
        await place.registry.clean()
        place.now += 2 * GRACE
        await place.registry.collect()
        assert await place.used() == {"a/**": (0, 0, 0)}


async def test_damaged_content_counts_as_long_as_it_is_linked() -> None:
    async with opened(limit("**", bytes=1000)) as place:
        await place.blob(b"x" * 100)
        (key,) = [key async for key in place.store.list()]
        await place.store.delete([key])
        await place.registry.scrub()
        assert await place.registry.quarantined()
        assert await place.used() == {"**": (100, 0, 1)}
        await place.blob(b"x" * 100)
        assert await place.used() == {"**": (100, 0, 1)}
        (key,) = [key async for key in place.store.list()]
        await place.store.delete([key])
        await place.registry.scrub()
        await place.registry.blobs.delete("a/x", digest_of(b"x" * 100))
        assert await place.used() == {"**": (0, 0, 1)}


async def test_a_new_quota_counts_what_is_there() -> None:
    """Repositories, what is past of them, open sessions; and one that is gone counts no more."""
    async with opened(history_days=1.0) as place:
        first = await place.image("v1", b"layer", "a/x")
        await place.image("v1", b"layer", "a/y")
        await place.image("v1", b"other", "b")
        await place.registry.manifests.delete("a/x", first["digest"])
        session = await place.registry.uploads.start("a/new")
        await place.registry.uploads.append("a/new", session.id, pieces(b"1234"))
        assert await place.used() == {}
        await place.of(limit("a/**", bytes=1), limit("*", tags=9)).quotas.apply()
        used = await place.used()
        assert used["a/**"][1:] == (1, 2)
        assert used["*"][1:] == (1, 1)
        await place.registry.uploads.cancel("a/new", session.id)
        assert (await place.used())["a/**"][0] == used["a/**"][0] - 4
        await place.of(limit("*", bytes=1)).quotas.apply()
        assert (await place.used()).keys() == {"*"}
        assert await place.problems() == []


async def test_what_is_deleted_before_it_is_counted() -> None:
    """What moves between a repository and its past counts once, whichever of them was there first."""
    async with opened(history_days=1.0) as place:
        first, second = await place.image("v1", b"x" * 100), await place.image("v2", b"y" * 100)
        await place.metadata.transact(declare, {"**": Allowed(bytes=10_000)})
        await place.registry.manifests.delete("a/x", first["digest"])  # which makes the past
        await place.used()
        place.now += 2 * GRACE
        await place.registry.collect()
        await place.of().quotas.apply()
        await place.registry.manifests.delete("a/x", second["digest"])
        place.now += 2 * GRACE
        await place.registry.collect()  # the repository went, its past did not
        await place.metadata.transact(declare, {"**": Allowed(bytes=10_000)})
        third = await place.image("v3", b"z" * 100)
        await place.registry.manifests.delete("a/x", third["digest"])
        await place.of(limit("**", bytes=10_000)).quotas.apply()
        assert (await place.used())["**"][0] > 300


async def test_a_lowered_quota_refuses_only_growth() -> None:
    async with opened(limit("**", bytes=10_000)) as place:
        await place.image("v1", b"layer")
        await place.of(limit("**", bytes=10)).quotas.apply()
        await place.put(image(b"{}", [b"layer"]), "v2")
        await place.registry.manifests.delete("a/x", "v1")
        with pytest.raises(QuotaExceeded):
            await place.blob(b"y")
        await place.used()


async def test_quotas_hold_for_who_does_not_know_them() -> None:
    """Such as a command without the server's settings; they go when a server is started without them."""
    async with opened(limit("**", bytes=10)) as place:
        other = Registry(place.store, place.metadata, Policy(), housekeeping=False)
        with pytest.raises(QuotaExceeded):
            await other.uploads.push("a", digest_of(b"x" * 11), pieces(b"x" * 11))
        await other.uploads.push("a", digest_of(b"x" * 9), pieces(b"x" * 9))
        session = await other.uploads.start("a")
        with pytest.raises(QuotaExceeded):
            await other.uploads.append("a", session.id, pieces(b"yy"))
        assert len([key async for key in place.store.list()]) == 1
        assert (await place.used())["**"] == (9, 0, 1)
        await place.of().quotas.apply()
        assert await place.used() == {}


async def test_quotas_of_a_policy_hold_once_it_is_opened() -> None:
    async with memory_registry(Policy(quotas=(limit("**", bytes=10),))) as registry:
        with pytest.raises(QuotaExceeded):
            await registry.uploads.push("a", digest_of(b"x" * 11), pieces(b"x" * 11))


async def test_check_and_recount() -> None:
    """What is counted wrongly is found, and mended by counting anew."""
    async with opened(limit("a/**", bytes=1000)) as place:
        await place.image("v1", b"layer")
        right = await place.used()
        place.metadata._writer.execute("UPDATE quotas SET bytes_used = 1, tags_used = 7")  # type: ignore[attr-defined]
        place.metadata._writer.execute("DELETE FROM quota_members")  # type: ignore[attr-defined]
        assert "a/**: 7 tags counted, not 0" in await place.problems()
        assert "a/**: a/x is not counted" in await place.problems()
        await place.registry.quotas.recount()
        assert await place.problems() == []
        assert await place.used() == right


async def test_retention_gives_tags_back() -> None:
    rules = (RetentionRule(repository="**", keep_newest=1),)
    async with opened(limit("**", tags=3), retention=rules) as place:
        for n in range(3):
            place.now += 1
            await place.image(f"v{n}", b"layer %d" % n)
        await place.registry.retention.apply()
        assert (await place.used())["**"][1] == 1


names = st.sampled_from(["a/x", "a/y", "b"])
tags = st.sampled_from(["v1", "v2", "v3"])
contents = st.sampled_from([b"x" * n for n in (1, 20, 300)])
amounts = st.one_of(st.none(), st.integers(0, 2500))
few = st.one_of(st.none(), st.integers(0, 3))


class AnySequence(RuleBasedStateMachine):
    """After whatever happens the counts are what a recount finds, and nothing grew beyond what is allowed."""

    def __init__(self, metadata: MovableMetadata | None = None) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = Place(history_days=0.01, upload_expiry=200.0, metadata=metadata)
        self.run(self.place.registry.__aenter__())
        self.sessions: list[tuple[str, str]] = []
        self.pushed: list[tuple[str, Json]] = []
        self.before: dict[str, Numbers] = {}
        self.allowed: dict[str, tuple[int | None, ...]] = {}

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.runner.run(work)

    def tried(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Whether it was done; what is refused is refused in the specification's form."""
        try:
            self.run(work)
        except RegistryError:
            return False
        return True

    def teardown(self) -> None:
        try:
            assert self.run(self.place.problems()) == []
        finally:
            self.run(self.place.registry.__aexit__(None, None, None))
            self.runner.close()

    @rule(
        rules=st.dictionaries(st.sampled_from(sorted(EXPRESSIONS)), st.tuples(amounts, few, few), max_size=3),
        later=st.booleans(),
    )
    def set_quotas(self, rules: dict[str, tuple[int | None, int | None, int | None]], *, later: bool = False) -> None:
        made = [
            QuotaRule(repository=name, bytes=most, tags=tags, repositories=repositories)
            for name, (most, tags, repositories) in rules.items()
        ]
        self.place.registry._parts.policy = Policy(**self.place.policy, quotas=tuple(made))
        if later:  # as when the server that began to count what is there takes its time
            allowed = {each.repository: Allowed(each.bytes, each.tags, each.repositories) for each in made}
            self.run(self.place.metadata.transact(declare, allowed))
        else:
            self.run(self.place.registry.quotas.apply())
        self.before, self.allowed = self.run(self.place.used()), dict(rules)

    @rule(anew=st.booleans())
    def count(self, anew: bool) -> None:
        self.run(self.place.registry.quotas.recount() if anew else self.place.registry.quotas.apply())
        self.before = self.run(self.place.used())

    @rule(name=names, content=contents)
    def push_blob(self, name: str, content: bytes) -> None:
        self.tried(self.place.blob(content, name))

    @rule(name=names, source=names, content=contents)
    def mount(self, name: str, source: str, content: bytes) -> None:
        self.tried(self.place.registry.blobs.mount(name, digest_of(content), source))

    @rule(name=names, content=contents)
    def delete_blob(self, name: str, content: bytes) -> None:
        self.tried(self.place.registry.blobs.delete(name, digest_of(content)))

    @rule(name=names, content=contents, breaks=st.booleans())
    def open_session(self, name: str, content: bytes, breaks: bool) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield content
            if breaks:
                raise ClientDisconnected

        async def begin() -> None:
            session = await self.place.registry.uploads.start(name)
            self.sessions.append((name, session.id))
            with contextlib.suppress(ClientDisconnected):
                await self.place.registry.uploads.append(name, session.id, body())

        self.tried(begin())

    @rule(data=st.data(), more=st.one_of(st.none(), contents), cancel=st.booleans())
    def close_session(self, data: Any, more: bytes | None, cancel: bool) -> None:
        if not self.sessions:
            return
        name, identifier = data.draw(st.sampled_from(self.sessions))
        uploads = self.place.registry.uploads

        async def close() -> None:
            received = (await uploads.get(name, identifier)).received
            if cancel:
                await uploads.cancel(name, identifier)
            else:
                content = b"x" * received + (more or b"")
                await uploads.finish(name, identifier, digest_of(content), pieces(more) if more else None)
            self.sessions.remove((name, identifier))

        self.tried(close())

    @rule(name=names, layer=contents, tag=st.one_of(st.none(), tags), n=st.integers(0, 2), data=st.data())
    def push_manifest(self, name: str, layer: bytes, tag: str | None, n: int, data: Any) -> None:
        subjects = [each for where, each in self.pushed if where == name]
        more: Json = {"annotations": {"n": "n" * n}}
        if subjects and data.draw(st.booleans(), "has a subject"):
            more["subject"] = data.draw(st.sampled_from(subjects), "subject")
        for content in (b"{}", layer):
            self.tried(self.place.blob(content, name))
        document = image(b"{}", [layer], **more)
        if self.tried(self.place.put(document, tag, name)):
            self.pushed.append((name, descriptor(encode(document), OCI_MANIFEST)))

    @rule(name=names, tag=tags, data=st.data())
    def push_list(self, name: str, tag: str, data: Any) -> None:
        """An index of what was pushed, or a client's list of referrers."""
        pushed = [each for where, each in self.pushed if where == name]
        if not pushed:
            return
        one = data.draw(st.sampled_from(pushed))
        reference = tag if data.draw(st.booleans(), "tag") else one["digest"].replace(":", "-")
        self.tried(self.place.put(index([one]), reference, name))

    @rule(name=names, tag=tags, restore=st.booleans())
    def change_tag(self, name: str, tag: str, restore: bool) -> None:
        if restore:
            self.tried(self.place.registry.history.restore(name, tag))
        else:
            self.tried(self.place.registry.manifests.delete(name, tag))

    @rule(data=st.data())
    def delete_manifest(self, data: Any) -> None:
        if self.pushed:
            name, each = data.draw(st.sampled_from(self.pushed))
            self.tried(self.place.registry.manifests.delete(name, each["digest"]))

    @rule(seconds=st.sampled_from([1.0, GRACE, 1000.0]), fully=st.booleans())
    def time_passes(self, seconds: float, fully: bool) -> None:
        self.place.now += seconds
        self.run(self.place.registry.collect() if fully else self.place.registry.clean())

    @rule(content=contents)
    def damage(self, content: bytes) -> None:
        async def harm() -> None:
            for digest, _, key in await self.place.metadata.fetch("check_blobs", "", 100):
                if digest == digest_of(content):
                    await self.place.store.delete([key])
            await self.place.registry.scrub()

        self.run(harm())

    @invariant()
    def counts_are_right(self) -> None:
        used = self.run(self.place.used())
        for quota in self.run(self.place.registry.quotas.list()):
            if not quota.counted:  # what was there before it is found bit by bit
                continue
            pattern, numbers = quota.pattern, (*quota.used,)
            before = self.before.get(pattern, (0, 0, 0))
            for number, was, most in zip(numbers, before, self.allowed[pattern], strict=True):
                # What the registry itself writes into lists of referrers is counted, and never refused.
                lists = 0 if number < 4 else 2000
                assert most is None or number <= max(most + lists, was), (pattern, numbers, before, self.allowed)
        self.before = used


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = bounded(60, steps=40)


def test_any_sequence_on_postgresql(postgres: Cluster) -> None:
    made: list[str] = []

    def machine() -> AnySequence:
        made.append(postgres.make_database(TEMPLATE))
        return AnySequence(PostgresMetadata(PostgresOptions(url=made[-1], connections=2)))

    try:
        run_state_machine_as_test(machine, settings=bounded(6, steps=25))  # type: ignore[arg-type]
    finally:
        for each in made:
            postgres.drop(each)
