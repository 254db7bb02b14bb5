"""Nodes, the database and the bucket die under load and come back; nothing that was acknowledged is lost."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.buckets import Engine, seaweed
from tests.nodes.faults import ROUNDS, push
from tests.nodes.kit import Nodes, nodes
from tests.postgres import Cluster, cluster


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Cluster]:
    """A cluster that syncs what it commits, and may be killed."""
    with cluster(durable=True) as made:
        yield made


@pytest.fixture(scope="module")
def own_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with seaweed(tmp_path_factory.mktemp("own-seaweedfs")) as engine:
        yield engine


@pytest.fixture
def nodes_of_own(tmp_path: Path, own_postgres: Cluster, own_bucket: Engine) -> Iterator[Nodes]:
    with nodes(tmp_path, own_postgres, own_bucket, MOORAGE_OBJECT_RETRY_TIMEOUT="5") as made:
        yield made


def test_a_node_is_killed(nodes_of_own: Nodes) -> None:
    """Whichever it is: the others go on with its uploads, and it comes back."""

    def harm(choices: Random) -> None:
        server = choices.choice(nodes_of_own.servers)
        server.kill()
        time.sleep(choices.uniform(0, 0.5))
        server.start()

    push(nodes_of_own, harm)


def test_the_database_is_restarted(nodes_of_own: Nodes, own_postgres: Cluster) -> None:
    """At once, as if it had crashed: it recovers from its log."""

    def harm(choices: Random) -> None:
        own_postgres.stop(signal.SIGQUIT)
        time.sleep(choices.uniform(0, 0.5))
        own_postgres.start()

    push(nodes_of_own, harm)


def test_the_bucket_is_restarted(nodes_of_own: Nodes, own_bucket: Engine) -> None:
    """Killed, and started again."""

    def harm(choices: Random) -> None:
        own_bucket.kill()
        time.sleep(choices.uniform(0, 0.5))
        own_bucket.start_again()

    push(nodes_of_own, harm, (ROUNDS + 1) // 2)  # it takes half a minute to come back
