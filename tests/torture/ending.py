"""The end of a run: what nothing holds is gone from the facts and from storage, and all else is there and right."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from moorage import Registry
from moorage.build import metadata_of, store_of
from moorage.registry.check import check, count
from moorage.settings import Settings
from tests.torture.model import Violation
from tests.torture.tenants import Tenant

_PATIENCE = 20.0  # seconds for what a server is still deleting


async def verify_the_end(settings: Settings, tenants: Sequence[Tenant]) -> None:
    """Collect when every grace, the history and all sessions are over, and look; raises ``Violation``."""
    policy = replace(settings.policy(), collect_grace=0, history_days=0, unnamed_grace=0)

    def late() -> float:
        return time.time() + settings.upload_expiry

    store, metadata = store_of(settings), metadata_of(settings)
    async with Registry(store, metadata, policy, clock=late, housekeeping=False) as registry:
        parts = registry._parts
        await registry.collect()
        async with asyncio.timeout(_PATIENCE):
            while (await count(parts.metadata)).doomed:
                await registry.clean()
                await asyncio.sleep(0.05)
        for tenant in tenants:
            await tenant.verify(exactly=True)
        wrong = [str(each) async for each in check(parts.store, parts.metadata, full=True)]
        repositories = [each for tenant in tenants for each in tenant.repositories]
        blobs = {blob for each in repositories for blob in each.needed()}
        seen = await count(parts.metadata)
        expected = {
            "manifests": sum(len(each.sure()) for each in repositories),
            "blobs": len(blobs),
            "tags": sum(len(each.tags) for each in repositories),
            "repositories": sum(bool(each.sure()) for each in repositories),
            "uploads": 0,
        }
        wrong += [
            f"{getattr(seen, name)} {name} are left, of {number} that something holds"
            for name, number in expected.items()
            if getattr(seen, name) != number
        ]
        if (objects := len([key async for key in parts.store.list()])) != len(blobs):
            wrong.append(f"{objects} objects are left in storage for {len(blobs)} blobs")
    if wrong:
        raise Violation("\n".join(wrong))
