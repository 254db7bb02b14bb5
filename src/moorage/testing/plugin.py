"""The pytest plugin: fixtures that run a real registry. pytest loads it wherever Moorage is installed."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from moorage import Registry
    from moorage.testing import Server

# Their asserts explain themselves, although they stand in no test file.
pytest.register_assert_rewrite("moorage.testing.contract")


@pytest.fixture(scope="session")
def moorage_registry_factory() -> "Callable[[], Registry]":
    """What makes the registry of the fixtures below; override it for a policy or a storage backend of your own."""
    from moorage.testing import memory_registry  # noqa: PLC0415  only tests that ask for a registry pay for it

    return memory_registry


@pytest.fixture
def moorage_registry(moorage_registry_factory: "Callable[[], Registry]") -> "Iterator[Server]":
    """A ``moorage.testing.Server`` on a free loopback port, empty and for this test alone."""
    from moorage.testing import serve  # noqa: PLC0415

    with serve(moorage_registry_factory) as server:
        yield server


@pytest.fixture(scope="session")
def moorage_registry_session(moorage_registry_factory: "Callable[[], Registry]") -> "Iterator[Server]":
    """One ``moorage.testing.Server`` for the whole run: what tests push, and the faults they add, stay in it."""
    from moorage.testing import serve  # noqa: PLC0415

    with serve(moorage_registry_factory) as server:
        yield server
