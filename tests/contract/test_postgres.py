"""What only PostgreSQL does: round trips, transactions that lose against others, connections that go."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from moorage import Policy, Registry, Settings, create_app
from moorage.metadata import blobs, manifest_changes, manifests, repositories, tags, uploads
from moorage.metadata.base import Unit, later, load_migrations, one, run
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.metadata.postgres_schema import translated
from moorage.registry.policy import QuotaRule
from moorage.spec.errors import DatabaseUnavailable, OutcomeUnknown, ServiceUnavailable, Unsupported
from moorage.spec.manifest import OCI_MANIFEST
from moorage.storage.memory import MemoryBlobStore
from moorage.testing.contract.units import CHANGE, DIGEST, REPOSITORY, add_bytes, pushed, received, session
from tests.login import basic
from tests.postgres import Cluster, cluster
from tests.relay import Relay, relay
from tests.support import CONFIG, LAYER, digest_of, encode, errors, image, pieces, served


def metadata(url: str, **options: Any) -> PostgresMetadata:
    return PostgresMetadata(PostgresOptions(url=url, **options))


class TestRoundTrips:
    """Counted on the wire, with statements prepared before, as on a node that has been running for a while."""

    async def trips(self, counted: Relay, ask: Callable[[], Any]) -> int:
        await ask()
        before = counted.trips
        await ask()
        return counted.trips - before

    async def test_pulls(self, database: str) -> None:
        async with (
            relay(database) as (counted, url),
            Registry(MemoryBlobStore(), metadata(url, connections=1), housekeeping=False) as registry,
        ):
            for content in (CONFIG, LAYER):
                await registry.uploads.push("a", digest_of(content), pieces(content))
            pushed = await registry.manifests.put("a", "v1", encode(image()), OCI_MANIFEST)

            async def blob() -> None:
                assert [
                    bytes(piece)
                    async for piece in registry.blobs.read(await registry.blobs.get("a", digest_of(LAYER)))
                ]

            assert await self.trips(counted, lambda: registry.manifests.get("a", "v1")) == 1
            assert await self.trips(counted, lambda: registry.manifests.get("a", pushed.digest)) == 1
            assert await self.trips(counted, lambda: registry.manifests.get("a", "v1", content=False)) == 1
            assert await self.trips(counted, lambda: registry.blobs.get("a", digest_of(LAYER))) == 1
            assert await self.trips(counted, blob) == 1

    async def test_pushes(self, database: str) -> None:
        contents = iter(range(1000))
        async with (
            relay(database) as (counted, url),
            Registry(MemoryBlobStore(), metadata(url, connections=1), housekeeping=False) as registry,
        ):

            async def post_and_put() -> None:
                content = f"content {next(contents)}".encode()
                opened = await registry.uploads.start("a")
                await registry.uploads.finish("a", opened.id, digest_of(content), pieces(content))

            async def single_post() -> None:
                content = f"content {next(contents)}".encode()
                await registry.uploads.push("a", digest_of(content), pieces(content))

            async def manifest() -> None:
                document = image() | {"annotations": {"n": str(next(contents))}}
                await registry.manifests.put("a", "latest", encode(document), OCI_MANIFEST)

            assert await self.trips(counted, post_and_put) == 4
            assert await self.trips(counted, single_post) == 2
            for content in (CONFIG, LAYER):
                await registry.uploads.push("a", digest_of(content), pieces(content))
            assert await self.trips(counted, manifest) == 3

    async def test_pushes_under_a_quota(self, database: str) -> None:
        """What is left is asked once before a session, and once before a body; the counting itself costs nothing."""
        contents = iter(range(1000))
        policy = Policy(quotas=(QuotaRule(repository="**", bytes=10**9, tags=100, repositories=100),))
        async with (
            relay(database) as (counted, url),
            Registry(MemoryBlobStore(), metadata(url, connections=1), policy, housekeeping=False) as registry,
        ):
            await registry.quotas.apply()

            async def post_and_put() -> None:
                content = f"content {next(contents)}".encode()
                opened = await registry.uploads.start("a")
                await registry.uploads.finish("a", opened.id, digest_of(content), pieces(content))

            async def patch() -> None:
                opened = await registry.uploads.start("a")
                await registry.uploads.append("a", opened.id, pieces(f"content {next(contents)}".encode()))

            async def single_post() -> None:
                content = f"content {next(contents)}".encode()
                await registry.uploads.push("a", digest_of(content), pieces(content), length=len(content))

            async def manifest() -> None:
                document = image() | {"annotations": {"n": str(next(contents))}}
                await registry.manifests.put("a", f"v{next(contents)}", encode(document), OCI_MANIFEST)

            for content in (CONFIG, LAYER):
                await registry.uploads.push("a", digest_of(content), pieces(content))
            assert await self.trips(counted, single_post) == 2 + 1
            assert await self.trips(counted, patch) == 4 + 2
            assert await self.trips(counted, manifest) == 3
            assert await self.trips(counted, post_and_put) == 4 + 2 + 1  # whose length nobody said

    async def test_a_unit_waits_only_for_what_it_asks(self, database: str) -> None:
        def only_writes() -> Unit[None]:
            for _ in range(20):
                yield from later("add_event", 1.0, "a", "b", "c", None, None, None, None, None)

        def asks() -> Unit[None]:
            yield from later("add_event", 1.0, "a", "b", "c", None, None, None, None, None)
            yield from one("repository_id", "a")

        def nothing() -> Unit[None]:
            yield from ()

        async with relay(database) as (counted, url), metadata(url, connections=1) as facts:
            assert await self.trips(counted, lambda: facts.transact(only_writes)) == 1
            assert await self.trips(counted, lambda: facts.transact(asks)) == 2
            assert await self.trips(counted, lambda: facts.transact(nothing)) == 0


class TestOthers:
    async def test_64_clients_move_one_tag(self, database: str) -> None:
        """From two nodes; each is told that it did, and the tag names what the last of them pushed."""
        async with metadata(database) as one_node, metadata(database) as other_node:
            wanted = [pushed(f"{n}", tags=["latest"]) for n in range(64)]
            await asyncio.gather(
                *(
                    node.transact(manifest_changes.push, each, CHANGE)
                    for each, node in zip(wanted, [one_node, other_node] * 32, strict=True)
                )
            )
            stored = await manifests.find(one_node, REPOSITORY, "latest", None)
            moves = await history(database)
        assert len(moves) == 64
        assert [before for before, _ in moves] == [None, *(after for _, after in moves[:-1])]
        assert moves[-1][1] == stored.digest

    async def test_a_push_of_what_is_collected_meanwhile(self, database: str) -> None:
        """A collection that looked before the push and deletes after it fails: somebody was told that it is there."""
        async with metadata(database) as facts:
            await facts.transact(blobs.add, "old", DIGEST, 7, "old key", CHANGE)
            with psycopg.connect(database) as collection:
                collection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
                collection.execute("DELETE FROM repository_blobs WHERE digest = %s", [DIGEST])
                await facts.transact(blobs.add, "new", DIGEST, 7, "new key", CHANGE)
                unheld = "NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest)"
                with pytest.raises(psycopg.errors.SerializationFailure):
                    collection.execute(f"DELETE FROM blobs b WHERE digest = %s AND {unheld}", [DIGEST])
            assert (await blobs.find(facts, "new", DIGEST)).key == "old key"

    async def test_it_gives_up_after_a_while(self, database: str) -> None:
        """A unit that loses each time ends with 503 and without a change."""

        async def lose(facts: PostgresMetadata) -> None:
            def unit() -> Unit[None]:
                yield from run("doomed", 10)
                with psycopg.connect(database, autocommit=True) as connection:  # in between, each time
                    connection.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
                    connection.execute("SELECT key FROM doomed ORDER BY since LIMIT 10")
                    connection.execute("SELECT name FROM repositories")
                    connection.execute("INSERT INTO doomed VALUES (gen_random_uuid()::text, 1)")
                    connection.execute("COMMIT")
                yield from later("doom", "mine", 2.0)
                yield from later("add_repository", "mine")

            await facts.transact(unit)

        async with metadata(database, patience=0.5) as facts:
            with pytest.raises(DatabaseUnavailable) as raised:
                await lose(facts)
            assert raised.value.status == 503
            assert raised.value.headers["Retry-After"]
            assert not await repositories.exists(facts, "mine")

    async def test_connections_run_out(self, database: str) -> None:
        async with metadata(database, connections=2, patience=0.3) as facts:
            held, release = asyncio.Semaphore(0), asyncio.Event()

            async def hold() -> None:
                async with facts._pool.connection():
                    held.release()
                    await release.wait()

            holders = [asyncio.create_task(hold()) for _ in range(2)]
            await held.acquire()
            await held.acquire()
            with pytest.raises(DatabaseUnavailable) as raised:
                await facts.fetch("repository_id", "a")
            assert (raised.value.status, raised.value.headers["Retry-After"]) == (503, "1")
            waiting = asyncio.create_task(facts.transact(repositories.make, "a"))
            await asyncio.sleep(0.01)
            release.set()
            await asyncio.gather(*holders)
            assert await waiting == (await facts.fetch("repository_id", "a"))[0][0]

    async def test_closed_it_takes_no_more(self, database: str) -> None:
        async with metadata(database) as facts:
            pass
        with pytest.raises(ServiceUnavailable):
            await facts.transact(repositories.make, "a")


async def history(url: str) -> list[tuple[str | None, str | None]]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT before, after FROM events WHERE action = 'tag.push' ORDER BY seq")
        return await cursor.fetchall()


class TestLostConnections:
    async def test_before_the_commit_it_is_tried_again(self, database: str) -> None:
        async with relay(database) as (cut, url), metadata(url, prepare=False) as facts:
            opened = await session(facts)
            cut.cut_at, cut.swallow = b"COMMIT", True
            await facts.transact(add_bytes, opened, 7)
            assert cut.cuts == 1
            assert await received(facts, opened) == 7
            cut.cut_at = b"BEGIN"
            await facts.transact(add_bytes, await uploads.find(facts, REPOSITORY, opened.id, 0.0), 7)
            assert cut.cuts == 2
            assert await received(facts, opened) == 14

    async def test_in_the_commit_the_server_is_asked_what_became_of_it(self, database: str) -> None:
        """Done once, and the caller is told so: started again, the compare-and-swap would have refused it."""
        async with relay(database) as (cut, url), metadata(url, prepare=False) as facts:
            opened = await session(facts)
            cut.cut_at = b"COMMIT"
            await facts.transact(add_bytes, opened, 7)
            assert cut.cuts == 1
            assert [size for _, size in await uploads.segments(facts, opened.id)] == [7]
            cut.cut_at = b"COMMIT"
            assert await facts.transact(blobs.add, "a", DIGEST, 7, "key", CHANGE) is False
            assert cut.cuts == 2
            assert (await blobs.find(facts, "a", DIGEST)).key == "key"

    @pytest.mark.parametrize("code", ["40001", "40P01", "53100", "57014"])
    async def test_what_is_committed_is_done_though_names_cannot_be_forgotten(self, database: str, code: str) -> None:
        """It is neither run again nor said to have failed, whatever comes after its commit."""
        async with metadata(database) as facts, await psycopg.AsyncConnection.connect(database) as other:
            await other.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END $$"
            )
            await other.execute(
                "CREATE TRIGGER refuse BEFORE DELETE ON moorage_commits FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
            )
            await other.commit()
            facts._commits = 1_000_000
            opened = await session(facts)
            facts._commits = 1_000_000
            await facts.transact(add_bytes, opened, 7)
            assert [size for _, size in await uploads.segments(facts, opened.id)] == [7]

    async def test_in_a_commit_that_never_arrived(self, database: str) -> None:
        """Also of a unit that is one round trip: it is started again, and what is late is not done twice."""
        async with relay(database) as (cut, url), metadata(url, prepare=False) as facts:
            cut.cut_at, cut.swallow = b"COMMIT", True
            first = await session(facts)
            assert cut.cuts == 1
            cut.cut_at, cut.swallow = b"COMMIT", False
            second = await session(facts)
            assert cut.cuts == 2
            for opened in (first, second):
                assert await received(facts, opened) == 0
            with psycopg.connect(database) as connection:
                assert connection.execute("SELECT count(*) FROM uploads").fetchone() == (2,)

    async def test_what_is_late_is_kept_from_being_done(self, database: str) -> None:
        """A transaction that still runs when it is given up waits for nobody, and cannot commit any more."""
        async with metadata(database) as facts:
            with psycopg.connect(database, autocommit=True) as late:
                late.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
                late.execute("INSERT INTO doomed VALUES ('late', 1.0)")
                assert await facts._is_committed("a name") is False
                with pytest.raises(psycopg.errors.UniqueViolation):
                    late.execute("INSERT INTO moorage_commits VALUES ('a name')")
                late.execute("ROLLBACK")
                late.execute("BEGIN")
                late.execute("INSERT INTO moorage_commits VALUES ('another')")
                asking = asyncio.create_task(facts._is_committed("another"))
                await asyncio.wait([asking], timeout=0.2)
                assert not asking.done()
                late.execute("COMMIT")
                assert await asking is True

    async def test_bytes_stay_where_nobody_can_tell(self) -> None:
        """The database goes while it commits, and stays away: 503, and what a fact may name is kept."""
        with cluster(durable=True) as server:
            store, url = MemoryBlobStore(), server.make_database()
            async with (
                relay(url) as (cut, through),
                Registry(store, metadata(through, patience=0.5, prepare=False), housekeeping=False) as registry,
            ):
                opened = await registry.uploads.start("a")
                cut.cut_at, cut.closed = b"COMMIT", True
                with pytest.raises(OutcomeUnknown) as raised:
                    await registry.uploads.append("a", opened.id, pieces(b"bytes"))
                assert (raised.value.status, raised.value.headers["Retry-After"]) == (503, "1")
                cut.closed = False
                async with asyncio.timeout(30):
                    while True:
                        try:
                            assert (await registry.uploads.get("a", opened.id)).received == 5
                            break
                        except DatabaseUnavailable:
                            continue
                assert len([key async for key in store.list()]) == 1

    async def test_a_server_that_restarts(self) -> None:
        """Killed and started again under eight clients, four times: what was acknowledged is there, once."""
        with cluster(durable=True) as server:
            url = server.make_database()
            async with metadata(url, patience=30.0) as facts:
                done: list[str] = []
                unknown: list[str] = []
                stopping = asyncio.Event()

                async def client(number: int) -> None:
                    n = 0
                    while not stopping.is_set():
                        n += 1
                        name = f"{number}/{n}"
                        try:
                            await facts.transact(
                                manifest_changes.push, pushed(name, tags=[name.replace("/", "-")]), CHANGE
                            )
                            done.append(name.replace("/", "-"))
                        except OutcomeUnknown:
                            unknown.append(name)

                clients = [asyncio.create_task(client(n)) for n in range(8)]
                for _ in range(4):
                    before = len(done)
                    await asyncio.to_thread(server.stop, signal.SIGQUIT)
                    await asyncio.to_thread(server.start)
                    while len(done) < before + 20:
                        await asyncio.sleep(0.01)
                stopping.set()
                await asyncio.gather(*clients)
                found = await tags.page(facts, REPOSITORY, "", 100_000)
                moves = await history(url)
            assert unknown == []
            assert sorted(done) == found
            assert len(moves) == len(done)

    async def test_who_waits_goes_on_when_the_server_is_back(self) -> None:
        """After longer than the pool of connections tries by itself, with nobody new who asks."""
        with cluster(durable=True) as server:
            async with metadata(server.make_database(), patience=60.0, connections=2) as facts:
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                waiting = [asyncio.create_task(facts.transact(repositories.make, f"r{n}")) for n in range(4)]
                await asyncio.sleep(7)
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(20):
                    await asyncio.gather(*waiting)

    async def test_reads_go_on_after_a_restart(self) -> None:
        with cluster(durable=True) as server:
            url = server.make_database()
            async with metadata(url, patience=0.5) as facts:
                await facts.transact(repositories.make, "a")
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                with pytest.raises(DatabaseUnavailable):
                    await repositories.exists(facts, "a")
                with pytest.raises(DatabaseUnavailable):
                    await facts.transact(repositories.make, "b")
                await asyncio.to_thread(server.start)
                async with asyncio.timeout(30):
                    while True:
                        try:
                            assert await repositories.exists(facts, "a")
                            break
                        except DatabaseUnavailable:
                            continue
                assert not await repositories.exists(facts, "b")


class TestSchema:
    async def test_a_newer_schema_is_refused(self, database: str) -> None:
        known = load_migrations()[-1][0]
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE moorage_schema SET version = version + 1")
        for read_only in (False, True):
            with pytest.raises(RuntimeError, match=rf"schema {known + 1}.* knows {known}"):
                async with PostgresMetadata(PostgresOptions(url=database), read_only=read_only):
                    pass

    async def test_read_only_changes_nothing(self, new_database: str) -> None:
        with pytest.raises(RuntimeError, match="it holds no registry"):
            async with PostgresMetadata(PostgresOptions(url=new_database), read_only=True):
                pass
        with psycopg.connect(new_database) as connection:
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)

    async def test_a_migration_that_fails_leaves_nothing(
        self, new_database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = [*load_migrations(), (9999, "CREATE TABLE a (b INTEGER); SELECT nonsense")]
        monkeypatch.setattr("moorage.metadata.postgres_schema.load_migrations", lambda: wrong)
        with pytest.raises(OSError, match="nonsense"):
            async with metadata(new_database):
                pass
        monkeypatch.undo()
        async with metadata(new_database) as facts:
            await facts.transact(repositories.make, "a")

    def test_every_text_column_sorts_bytewise_and_every_number_is_wide(self, database: str) -> None:
        with psycopg.connect(database) as connection:
            rows = connection.execute(
                "SELECT table_name, column_name, data_type, collation_name FROM information_schema.columns"
                " WHERE table_schema = 'public'"
            ).fetchall()
        assert len(rows) > 40
        assert {data_type for _, _, data_type, _ in rows} == {"bigint", "text", "bytea", "double precision"}
        assert {collation for _, _, data_type, collation in rows if data_type == "text"} == {"C"}

    def test_words_are_replaced_whole(self) -> None:
        assert translated("a INTEGER PRIMARY KEY, b TEXT NOT NULL REFERENCES c) WITHOUT ROWID") == (
            'a BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, b TEXT COLLATE "C" NOT NULL)'
        )


class TestPooler:
    async def test_without_prepared_statements(self, database: str) -> None:
        async with metadata(database, prepare=False, connections=1) as facts:
            for n in range(5):
                await facts.transact(repositories.make, f"r{n}")
                assert await repositories.exists(facts, f"r{n}")
            async with facts._pool.connection() as connection:
                cursor = await connection.execute("SELECT count(*) FROM pg_prepared_statements")
                assert await cursor.fetchone() == (0,)


async def test_text_with_a_nul(database: str) -> None:
    """PostgreSQL keeps none: nothing is found by it, and what holds it is refused."""
    async with metadata(database) as facts:
        await facts.transact(repositories.make, "a")
        assert await facts.fetch("repository_id", "a\0b") == []
        assert await tags.page(facts, "a\0", "", 10) == []
        with pytest.raises(Unsupported, match="NUL"):
            await facts.transact(repositories.make, "a\0b")
        assert await repositories.page(facts, "", 10) == ["a"]


async def test_a_password_is_asked_for_and_not_shown(postgres: Cluster) -> None:
    url = postgres.make_database()
    postgres.run("DROP ROLE IF EXISTS locked", "CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'geheim'")
    locked = url.replace("postgres@", "locked@")
    for url, password in ((locked, "falsch"), (locked.replace("locked@", "locked:falsch@"), None)):
        with pytest.raises(OSError, match="password authentication failed") as raised:
            async with PostgresMetadata(PostgresOptions(url=url, password=password)):
                pass
        assert "falsch" not in str(raised.value)
    for url, password in ((locked, "geheim"), (locked.replace("locked@", "locked:geheim@"), None)):
        async with PostgresMetadata(PostgresOptions(url=url, password=password)) as facts:
            await facts.transact(repositories.make, "a")
    postgres.drop(locked)


async def test_text_that_it_cannot_hold(new_database: str, tmp_path: Path) -> None:
    """Nobody's name holds a NUL: whoever gives one is told what a wrong name is told, and nothing fails."""
    settings = Settings(metadata=new_database, root=str(tmp_path), authentication=["users"], open_access=True)
    app = create_app(settings=settings)
    async with served(app) as client:
        refused = await client.get("/v2/", headers=basic("a\0b", "sesame"))
        errors(refused, 401, "UNAUTHORIZED")
    await app.aclose()
