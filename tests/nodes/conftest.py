"""Four nodes for all tests that do them no harm."""

from collections.abc import Iterator

import pytest

from tests.buckets import Engine
from tests.clients.conftest import image, run, scratch
from tests.nodes.kit import Nodes, nodes
from tests.postgres import Cluster

__all__ = ["image", "run", "scratch"]


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, seaweedfs: Engine) -> Iterator[Nodes]:
    """Four nodes. What the tests left in them is without fault, and no node failed."""
    with nodes(tmp_path_factory.mktemp("nodes"), postgres, seaweedfs) as made:
        yield made
        assert "nothing is wrong" in made.check()
        assert made.stop() == 0, made.log
        assert "Traceback" not in made.log, made.log
