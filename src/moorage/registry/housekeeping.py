"""What a registry does by itself: end sessions whose time is over, delete bytes that no fact needs."""

import asyncio
import contextlib
import logging

from moorage.metadata import doomed, uploads
from moorage.registry.parts import Parts
from moorage.spec.errors import RegistryError

_AT_ONCE = 500
_log = logging.getLogger("moorage.housekeeping")


async def keep_house(parts: Parts) -> None:
    """Clean up until cancelled: when something was doomed, and each ``housekeeping_interval``."""
    while True:
        parts.doomed.clear()
        try:
            await clean(parts)
        except RegistryError as error:
            _log.error("cleaning up is put off: %s", error)
        except Exception:  # noqa: BLE001  whatever it was, the registry goes on
            _log.exception("cleaning up failed; it is tried again")
        # Not wait_for: in Python 3.11 it drops a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(parts.policy.housekeeping_interval):
                await parts.doomed.wait()


async def clean(parts: Parts) -> None:
    """Expire sessions and delete doomed bytes, until none are left. Doing it twice at once does no harm."""
    while await parts.metadata.transact(uploads.expire(parts.clock(), _AT_ONCE)) == _AT_ONCE:
        pass
    while keys := await doomed.page(parts.metadata, _AT_ONCE):
        await parts.store.delete(keys)
        await parts.metadata.transact(doomed.forget(keys))
