"""A registry whose bytes are in a bucket behind a proxy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moorage import Registry, create_app
from moorage.build import store_of
from moorage.config import load
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.check import check
from moorage.storage.base import BlobStore
from tests.buckets import Engine
from tests.proxy import Proxy
from tests.support import Repository, served

# Patience that suits a test.
QUICK = {"object_retries": 3, "object_retry_timeout": 2.0, "object_read_timeout": 1.0, "object_connect_timeout": 1.0}


@dataclass
class Behind:
    """A repository whose bytes go through ``proxy``."""

    proxy: Proxy
    store: BlobStore
    metadata: SQLiteMetadata
    registry: Registry
    repository: Repository

    async def wrong(self) -> list[str]:
        """What is wrong once the storage answers as it should."""
        self.proxy.rule = lambda _: None
        return [str(each) async for each in check(self.store, self.metadata, full=True)]

    async def keys(self, count: int = 1) -> set[str]:
        """What is in the bucket, once it is as many as ``count``: what failed is cleared away in its own time."""
        self.proxy.rule = lambda _: None
        async with asyncio.timeout(10):
            while len(found := {key async for key in self.store.list()}) != count:
                await asyncio.sleep(0.05)
        return found


Opener = Callable[..., Any]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """SeaweedFS, or the engines that a test names."""
    made: Engine = request.getfixturevalue(getattr(request, "param", "seaweedfs"))
    return made


@pytest.fixture
async def behind(engine: Engine, tmp_path: Path) -> AsyncIterator[Opener]:
    """A function that opens a registry over an engine behind a proxy, with settings by name."""
    async with AsyncExitStack() as stack:

        async def open_one(**settings: Any) -> Behind:
            proxy = stack.enter_context(Proxy(engine.endpoint).serving())
            chosen = load(arguments=engine.place(object_endpoint=proxy.url, **{**QUICK, **settings}))
            store, metadata = store_of(chosen), SQLiteMetadata(tmp_path / f"{chosen.storage.rpartition('/')[2]}.db")
            registry = await stack.enter_async_context(Registry(store, metadata, chosen.policy(), housekeeping=False))
            client = await stack.enter_async_context(
                served(create_app(registry), checked=False, followed=False, raise_app_exceptions=False)
            )
            proxy.requests.clear()
            return Behind(proxy, store, metadata, registry, Repository(client))

        yield open_one
