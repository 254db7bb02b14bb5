"""What concerns every test."""

import os
from functools import partial

import pytest

from tests.buckets import Engine, azurite, google, moto, seaweedfs
from tests.postgres import database, new_database, postgres
from tests.server import Bytes

__all__ = ["azurite", "database", "google", "moto", "new_database", "postgres", "seaweedfs"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("moorage")
    group.addoption("--store", choices=["seaweedfs", "moto", "azurite", "google"], help="keep bytes in such a bucket")
    group.addoption("--redirect", choices=["always", "never"], default="never", help="send clients to that bucket")
    group.addoption("--nodes", type=int, help="let clients speak to so many nodes over one database and one bucket")


@pytest.fixture(scope="session", autouse=True)
def _differences_in_short() -> None:
    """Where pytest sees ``CI``, it explains a difference between megabytes in full, which takes hours.

    ``tests.server`` has read it; the process that starts those which run tests keeps it for them.
    """
    os.environ.pop("CI", None)


@pytest.fixture(scope="session", autouse=True)
def _bytes(request: pytest.FixtureRequest) -> None:
    """What ``--store`` and ``--redirect`` ask for."""
    if name := request.config.getoption("--store"):
        engine: Engine = request.getfixturevalue(name)
        Bytes.place = staticmethod(partial(engine.place, redirect=request.config.getoption("--redirect")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = {
        "own_root": bool(config.getoption("--store")),
        "streamed": config.getoption("--redirect") == "always",
    }
    for item in items:
        if any(each and item.get_closest_marker(name) for name, each in elsewhere.items()):
            item.add_marker(pytest.mark.skip(reason="the bytes are elsewhere"))
