"""A registry in memory, and doors to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from moorage import Registry, create_app
from moorage.registry.policy import Policy
from tests.support import Repository, new_registry, served

# Opens one more registry, of settings by name; a client of it.
Opener = Callable[..., Any]


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    """A registry in memory with the default policy."""
    async with new_registry() as opened:
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
async def opened() -> AsyncIterator[Opener]:
    """A function that opens a registry in memory of another policy; gives a repository of it."""
    async with AsyncExitStack() as stack:

        async def open_one(**policy: Any) -> Repository:
            registry = await stack.enter_async_context(new_registry(Policy(**policy)))
            return Repository(await stack.enter_async_context(served(create_app(registry))))

        yield open_one
