"""The database behind PgBouncer, and with a standby that takes its place: nothing that was acknowledged is lost."""

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psycopg
import pytest

from tests.buckets import Engine
from tests.nodes.faults import push
from tests.nodes.kit import nodes
from tests.postgres import Cluster, Pair, cluster, pgbouncer, standby

POOL = 6  # connections to the server, for four nodes that want ten each


@pytest.fixture
def primary() -> Iterator[Cluster]:
    """A cluster of the test's own, which syncs what it commits."""
    with cluster(durable=True) as made:
        yield made


def test_pgbouncer(tmp_path: Path, primary: Cluster, seaweedfs: Engine) -> None:
    """Transactions of all nodes share a few connections, and PgBouncer dies and comes back under load."""
    with pgbouncer(primary, POOL) as bouncer:
        most = 0

        def harm(choices: Random) -> None:
            nonlocal most
            with psycopg.connect(primary.url()) as connection:
                asked = (
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname ~ '^t'"
                )
                ((now,),) = connection.execute(asked).fetchall()
            most = max(most, now)
            bouncer.stop(signal.SIGKILL)
            time.sleep(choices.uniform(0, 0.5))
            bouncer.start()

        with nodes(tmp_path, bouncer, seaweedfs, MOORAGE_METADATA_PREPARE="false") as made:
            push(made, harm)
            assert 0 < most <= POOL


def test_a_standby_takes_over(tmp_path: Path, primary: Cluster, seaweedfs: Engine) -> None:
    """The primary, whose commits wait for the standby, is killed; the nodes find the other by themselves.

    What died comes back as the standby of what took its place, and so on.
    """
    with standby(primary) as other:
        turns = itertools.cycle([(primary, other), (other, primary)])

        def harm(choices: Random) -> None:
            leader, follower = next(turns)
            leader.stop(signal.SIGKILL)
            time.sleep(choices.uniform(0, 0.5))
            follower.run("SELECT pg_promote()")
            time.sleep(choices.uniform(0.5, 1.5))
            leader.follow(follower)

        with nodes(tmp_path, Pair(primary, other), seaweedfs) as made:
            push(made, harm)
