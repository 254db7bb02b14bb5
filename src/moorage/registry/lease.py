"""The right to do what one process at a time does, and its moving on when that process dies.

Nobody's clock is trusted: whoever waits for a lease measures by his own how long it stays as it is.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from moorage.metadata import leases
from moorage.metadata.base import Metadata
from moorage.registry.tasks import end
from moorage.spec.errors import RegistryError

_MISSED: Final = 3  # beats until a holder counts as dead
_log = logging.getLogger("moorage.lease")


class Lease:
    """A lease by its name, renewed or waited for each ``pause`` seconds."""

    def __init__(self, metadata: Metadata, name: str, pause: float) -> None:
        self._metadata = metadata
        self._name = name
        self._pause = pause
        self._holder = secrets.token_hex(8)
        self._clock = asyncio.get_running_loop().time
        self._until = 0.0
        self._seen: leases.Lease | None = None
        self._since = 0.0

    @property
    def held(self) -> bool:
        """Whether this process holds it, and no other can have taken it yet."""
        return self._clock() < self._until

    async def beat(self) -> None:
        """Renew it, or take it if it can be had."""
        asked = self._clock()
        patience = _MISSED * self._pause
        dead = self._seen if asked - self._since >= patience else None
        now = await self._metadata.transact(leases.take, self._name, self._holder, dead)
        if now.holder == self._holder:
            self._until = asked + patience - self._pause
        elif now != self._seen:
            self._seen, self._since = now, self._clock()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Hold it, or wait for it, for the length of the block; given up at the end."""
        beating = asyncio.create_task(self._beat(), name="moorage-lease")
        try:
            yield
        finally:
            await end(beating)
            if self.held:
                with contextlib.suppress(RegistryError):
                    await self._metadata.transact(leases.release, self._name, self._holder)

    async def _beat(self) -> None:
        while True:
            try:
                await self.beat()
            except RegistryError as error:
                _log.warning("the lease %s cannot be renewed: %s", self._name, error)
            except Exception:  # noqa: BLE001  whatever it was, others may do the work meanwhile
                _log.exception("the lease %s cannot be renewed", self._name)
            await asyncio.sleep(self._pause)
