"""What a registry does by itself: end sessions, collect what nothing holds, delete bytes that no fact needs."""

import asyncio
import contextlib
import logging
from typing import Final

from moorage.metadata import retention
from moorage.registry.collection import collect, delete_doomed, expire, forget_events, sweep_if_due
from moorage.registry.lease import Lease
from moorage.registry.parts import Parts
from moorage.registry.retention import Retention
from moorage.spec.errors import RegistryError

_LEASE: Final = "housekeeping"
_PULLS: Final = 500  # in one transaction
_log = logging.getLogger("moorage.housekeeping")


async def keep_house(parts: Parts) -> None:
    """Clean up until cancelled: all of it each ``housekeeping_interval``, bytes also as soon as they are doomed.

    All of it is done by one process of those that share the facts; bytes are deleted by the one that doomed them.
    """
    lease = Lease(parts.metadata, _LEASE, parts.policy.housekeeping_interval)
    async with lease.kept():
        await _keep(parts, lease)


async def _keep(parts: Parts, lease: Lease) -> None:
    clock, due = asyncio.get_running_loop().time, 0.0
    while True:
        parts.doomed.clear()
        try:
            if clock() < due:
                await delete_doomed(parts)
            else:
                due = clock() + parts.policy.housekeeping_interval
                parts.ahead = await parts.metadata.ahead()
                await note_pulls(parts)
                if not lease.held:
                    await lease.beat()
                if lease.held:
                    await clean(parts)
                    await Retention(parts).apply_if_due()
                    await sweep_if_due(parts)
        except RegistryError as error:
            _log.error("cleaning up is put off: %s", error)
        except Exception:  # noqa: BLE001  whatever it was, the registry goes on
            _log.exception("cleaning up failed; it is tried again")
        # Not wait_for: in Python 3.11 it drops a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await parts.doomed.wait()


async def note_pulls(parts: Parts) -> None:
    """State when manifests were last pulled; on the way of a pull this is only remembered."""
    pulled, parts.pulled = parts.pulled, {}
    rows = [(*which, at) for which, at in pulled.items()]
    try:
        for start in range(0, len(rows), _PULLS):
            await parts.metadata.transact(retention.note_pulls, rows[start : start + _PULLS])
    except BaseException:
        parts.pulled = pulled | parts.pulled
        raise


async def clean(parts: Parts) -> None:
    """Do everything that is due, until nothing is. Doing it twice at once does no harm."""
    await note_pulls(parts)
    await expire(parts)
    if parts.policy.collection:
        await collect(parts)
    await forget_events(parts)
    await delete_doomed(parts)
