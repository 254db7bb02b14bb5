"""The questions of the conformance matrix, each request of which reaches another of four nodes."""

from collections.abc import Iterator

import pytest

from tests.conformance import Door
from tests.conformance import material as m
from tests.conformance.test_matrix import *  # noqa: F403  every question, whatever they are
from tests.conformance.test_matrix import ROWS, SERVERS, Row
from tests.nodes.kit import Nodes

del test_every_pair, test_check_of_sparse_content  # noqa: F821  they ask no server
del door, doors, row  # noqa: F821  there is one server here

# One row of each kind of content that needs no setting, each algorithm and way in turn.
_EACH = [ROWS[n + n // len(SERVERS) % len(SERVERS)] for n in range(0, len(ROWS), len(SERVERS))]
ONE_OF_EACH = [each for each in _EACH if each.kind not in m.SPARSE]


@pytest.fixture(name="door", scope="session")
def the_door(four: Nodes) -> Iterator[Door]:
    with Door(four.host) as made:
        yield made


@pytest.fixture(name="doors", scope="session")
def the_doors(door: Door) -> dict[str, Door]:
    """All rows of the matrix go to the same."""
    return dict.fromkeys(SERVERS, door)


@pytest.fixture(name="row", scope="module", params=ONE_OF_EACH, ids=str)
def a_row(request: pytest.FixtureRequest) -> Row:
    made: Row = request.param
    return made
