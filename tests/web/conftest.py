"""A registry in memory, and doors to it. With TEST_METADATA=postgresql its facts are in PostgreSQL."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from moorage import Registry, create_app
from moorage.metadata.postgres import PostgresMetadata, PostgresOptions
from moorage.registry.policy import Policy
from moorage.storage.memory import MemoryBlobStore
from tests.postgres import TEMPLATE, Cluster
from tests.support import Repository, new_registry, served

# Opens one more registry, of settings by name; a client of it.
Opener = Callable[..., Any]


@pytest.fixture(scope="session")
def databases() -> list[str]:
    """The URLs of those that nobody uses, with the schema and nothing in them."""
    return []


@pytest.fixture
def make_registry(request: pytest.FixtureRequest, databases: list[str]) -> Callable[[Policy | None], Registry]:
    """Makes registries that hold nothing, to be opened."""
    if os.environ.get("TEST_METADATA") != "postgresql":
        return new_registry
    cluster: Cluster = request.getfixturevalue("postgres")

    def make(policy: Policy | None) -> Registry:
        url = databases.pop() if databases else cluster.make_database(TEMPLATE)

        def give_back() -> None:
            cluster.empty(url)
            databases.append(url)

        request.addfinalizer(give_back)
        return Registry(MemoryBlobStore(), PostgresMetadata(PostgresOptions(url=url, connections=3)), policy)

    return make


@pytest.fixture
async def registry(make_registry: Callable[[Policy | None], Registry]) -> AsyncIterator[Registry]:
    """A registry in memory with the default policy."""
    async with make_registry(None) as opened:
        yield opened


@pytest.fixture
async def client(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it; a 5xx fails the test."""
    async with served(create_app(registry)) as opened:
        yield opened


@pytest.fixture
def repository(client: httpx.AsyncClient) -> Repository:
    """A repository that nothing was pushed to yet."""
    return Repository(client)


@pytest.fixture
async def opened(make_registry: Callable[[Policy | None], Registry]) -> AsyncIterator[Opener]:
    """A function that opens a registry in memory of another policy; gives a repository of it."""
    async with AsyncExitStack() as stack:

        async def open_one(**policy: Any) -> Repository:
            registry = await stack.enter_async_context(make_registry(Policy(**policy)))
            return Repository(await stack.enter_async_context(served(create_app(registry))))

        yield open_one
