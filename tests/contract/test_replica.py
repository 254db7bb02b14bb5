"""A standby of PostgreSQL that answers what is only read, and shows all that was acknowledged."""

import asyncio
import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from moorage.metadata import repositories
from moorage.metadata.base import Metadata
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.testing.contract import MetadataContract, SharedMetadataContract
from tests.postgres import Cluster, cluster, standby


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


@pytest.fixture(scope="module")
def replica(primary: Cluster) -> Iterator[Cluster]:
    """A standby that commits wait for."""
    with standby(primary) as made:
        yield made


@pytest.fixture
def make(primary: Cluster, replica: Cluster) -> Iterator[Callable[[], PostgresMetadata]]:
    url = primary.make_database()
    elsewhere = url.replace(f":{primary.port}/", f":{replica.port}/")
    yield lambda: PostgresMetadata(PostgresOptions(url=url, replica=elsewhere, patience=5.0))
    primary.drop(url)


class TestReplica(MetadataContract):
    @pytest.fixture
    def metadata(self, make: Callable[[], Metadata]) -> Metadata:
        return make()


class TestSharedReplica(SharedMetadataContract):
    @pytest.fixture
    def make_metadata(self, make: Callable[[], Metadata]) -> Callable[[], Metadata]:
        return make


async def test_the_replica_is_asked(make: Callable[[], PostgresMetadata], primary: Cluster) -> None:
    """Without the primary, everything is still found."""
    async with make() as facts:
        await facts.transact(repositories.make, "a")
        assert await repositories.exists(facts, "a")
        primary.stop(signal.SIGKILL)
        try:
            assert await repositories.exists(facts, "a")
            assert not await repositories.exists(facts, "b")
        finally:
            primary.start()


async def test_a_change_is_acknowledged_once_the_replica_shows_it(
    make: Callable[[], PostgresMetadata], replica: Cluster
) -> None:
    async with make() as facts:
        await facts.transact(repositories.make, "a")
        replica.run("SELECT pg_wal_replay_pause()")
        try:
            change = asyncio.create_task(facts.transact(repositories.make, "b"))
            done, _ = await asyncio.wait([change], timeout=0.5)
            assert not done
            assert not await repositories.exists(facts, "b")
        finally:
            replica.run("SELECT pg_wal_replay_resume()")
        await change
        assert await repositories.exists(facts, "b")


async def test_the_primary_answers_where_the_replica_does_not(
    make: Callable[[], PostgresMetadata], replica: Cluster
) -> None:
    async with make() as facts:
        await facts.transact(repositories.make, "a")
        replica.stop(signal.SIGKILL)
        try:
            for _ in range(3):
                assert await repositories.exists(facts, "a")
        finally:
            replica.start()
    async with make() as facts:
        assert await repositories.exists(facts, "a")


async def test_a_primary_that_waits_for_nobody(database: str) -> None:
    """What was just pushed would not be found: the start says so."""
    with pytest.raises(RuntimeError, match="synchronous_standby_names is empty"):
        async with PostgresMetadata(PostgresOptions(url=database, replica=database)):
            pass
    async with PostgresMetadata(PostgresOptions(url=database, replica=database), read_only=True):
        pass  # which does not ask the replica


def test_a_replica_that_is_no_address() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        PostgresOptions(url="postgresql://a/b", replica="postgresql://[a/b")


def test_replicas_of_this_machine_are_told_apart(primary: Cluster, replica: Cluster) -> None:
    """The tests above would show nothing if both addresses were one server's."""
    for server, follows in ((primary, False), (replica, True)):
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (follows,)
