"""Pushes, mounts, deletes, retags, restores and collection, all at once, by two processes or nodes; no grace.

``MOORAGE_RACES_SECONDS`` is how long each of it goes on, ``MOORAGE_RACES_SEED`` where all choices come from.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from moorage import Registry
from moorage.build import registry_of
from moorage.config import load
from moorage.registry.check import check
from moorage.settings import Settings
from tests.buckets import Engine
from tests.postgres import Cluster
from tests.server import Server, as_environment, running
from tests.torture.ending import verify_the_end
from tests.torture.model import Violation
from tests.torture.tenants import Tenant
from tests.torture.wire import Connection

SECONDS = float(os.environ.get("MOORAGE_RACES_SECONDS", "3"))
SEED = int(os.environ.get("MOORAGE_RACES_SEED", "0")) or secrets.randbelow(2**32)
TENANTS = 8
REST = 0.03  # seconds between collections, and between checks
histories = pytest.mark.parametrize("history", [False, True], ids=["no history", "history"])


def settings_of(*, history: bool, **place: Any) -> dict[str, Any]:
    """Without any grace, and with housekeeping that never rests."""
    return {
        "collect_grace": 0,
        "housekeeping_interval": 0.05,
        "sweep_interval": 60,
        "history_days": 7 if history else 0,
        **place,
    }


async def race(servers: Sequence[Server], settings: Settings, *, history: bool) -> None:
    """Tenants of all ``servers``, and beside them collections, scrubs and checks; raises ``Violation``."""
    until = time.monotonic() + SECONDS

    def over() -> bool:
        return time.monotonic() > until

    async def collected(registry: Registry) -> None:
        while not over():
            await registry.collect()
            await asyncio.sleep(REST)

    async def looked_after(registry: Registry) -> None:
        store, metadata = registry._parts.store, registry.metadata
        while not over():
            await registry.scrub()
            if wrong := [str(each) async for each in check(store, metadata)]:
                raise Violation("\n".join(wrong))
            await asyncio.sleep(REST)

    async with AsyncExitStack() as stack:
        tenants = [
            Tenant(
                number,
                TENANTS,
                [await stack.enter_async_context(Connection(each.host)) for each in servers],
                Random(f"{SEED} {number}"),
                history,
            )
            for number in range(TENANTS)
        ]
        one, other = [await stack.enter_async_context(registry_of(settings, housekeeping=False)) for _ in range(2)]
        try:
            async with asyncio.TaskGroup() as group:
                for tenant in tenants:
                    group.create_task(tenant.work(over))
                group.create_task(collected(one))
                group.create_task(looked_after(other))
            for tenant in tenants:
                await tenant.verify()
            await verify_the_end(settings, tenants)
        except* Violation as violations:
            raise Violation(f"seed {SEED}: " + "\n".join(map(str, violations.exceptions))) from None
    for server in servers:
        assert "Traceback" not in server.log, server.log
    operations, refused, pulled = (
        sum(getattr(each.done, name) for each in tenants) for name in ("operations", "refused", "pulled")
    )
    print(f"seed {SEED}: {operations} operations, {refused} pushes met a collection, {pulled} blobs pulled")
    assert operations > TENANTS


@pytest.mark.slow
@histories
async def test_two_workers(tmp_path: Path, history: bool) -> None:
    """On SQLite and files."""
    settings = settings_of(history=history)
    with running(tmp_path, "--workers", "2", **as_environment(settings)) as server:
        # Each connection stays with one worker, so that requests of one tenant reach both.
        await race([server] * 4, load(arguments={"root": str(tmp_path), **settings}), history=history)


@pytest.mark.slow
@pytest.mark.stores
@histories
def test_two_nodes(tmp_path: Path, postgres: Cluster, seaweedfs: Engine, history: bool) -> None:
    """On PostgreSQL and a bucket of S3."""
    database = postgres.make_database()
    settings = settings_of(history=history, metadata=database, **seaweedfs.place(redirect="never"))
    with ExitStack() as stack:
        stack.callback(postgres.drop, database)
        nodes = [stack.enter_context(running(tmp_path / str(n), **as_environment(settings))) for n in range(2)]
        asyncio.run(race(nodes, load(arguments={"root": str(tmp_path / "c"), **settings}), history=history))
