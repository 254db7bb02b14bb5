"""How much one client may ask for at once. Each process counts for itself, in memory that does not grow.

Most clients fail when they are told 429 amid a push or a pull, so whoever asks too much is slowed down first, and
refused only where he would wait too long.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from moorage.auth.addresses import client_of
from moorage.auth.base import ANONYMOUS
from moorage.spec.errors import TooManyRequests

REQUEST_PATIENCE: Final = 10.0  # seconds that a request waits for its turn
UPLOAD_PATIENCE: Final = 30.0  # the same for a body
_KNOWN: Final = 50_000  # clients that are remembered
_ROUNDING: Final = 1e-6  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The most that is allowed; None is without a limit. Rates are requests a second.

    ``request_burst`` is how many seconds' worth of requests a client may save up and send at once.
    """

    requests_per_address: float | None = None
    requests_per_identity: float | None = None
    request_burst: float = 10.0
    uploads_per_identity: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        limits = self.requests_per_address, self.requests_per_identity, self.uploads_per_identity
        return any(each is not None for each in limits)


UNLIMITED: Final = Rates()


class Meter:
    """Counts requests and uploads against ``Rates``."""

    def __init__(
        self,
        rates: Rates,
        clock: Callable[[], float] = time.monotonic,
        *,
        request_patience: float = REQUEST_PATIENCE,
        upload_patience: float = UPLOAD_PATIENCE,
    ) -> None:
        def rate(per_second: float | None) -> "_Buckets | None":
            return None if per_second is None else _Buckets(per_second, rates.request_burst, request_patience, clock)

        self._addresses = rate(rates.requests_per_address)
        self._identities = rate(rates.requests_per_identity)
        self.counts_addresses = self._addresses is not None
        self.counts_identities = self._identities is not None
        self._most = rates.uploads_per_identity
        self._patience = upload_patience
        self._uploads: dict[tuple[str, str | None], _Turns] = {}

    def request_from(self, address: str | None) -> float:
        """Count a request from ``address``: the seconds that it has to wait; raises ``TooManyRequests``."""
        if self._addresses is None or (client := client_of(address)) is None:
            return 0.0
        return self._addresses.take(client, "from this address")

    def request_of(self, identity: str) -> float:
        """Count a request of ``identity``: the seconds that it has to wait; raises ``TooManyRequests``."""
        if self._identities is None or identity == ANONYMOUS.name:
            return 0.0
        return self._identities.take(identity, f"of {identity}")

    @asynccontextmanager
    async def upload_of(self, identity: str, address: str | None) -> AsyncIterator[None]:
        """One of the uploads of ``identity``, or of ``address`` where that is anonymous, at once.

        It waits for its turn; raises ``TooManyRequests`` if none comes.
        """
        if self._most is None:
            yield
            return
        who = identity, client_of(address) if identity == ANONYMOUS.name else None
        turns = self._uploads.setdefault(who, _Turns(self._most, self._patience))
        turns.wanted += 1
        try:
            async with turns.one():
                yield
        finally:
            turns.wanted -= 1
            if not turns.wanted:
                del self._uploads[who]


class _Buckets:
    """A token bucket for each key, kept as the one time at which it will be full again."""

    def __init__(self, per_second: float, burst: float, patience: float, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._cost = 1 / per_second
        self._depth = max(burst, self._cost) + _ROUNDING
        self._clock = clock
        self._full: dict[str, float] = {}

    def take(self, key: str, whose: str) -> float:
        now = self._clock()
        full = self._full.get(key, 0.0)
        full = max(full, now)
        full += self._cost
        wait = full - now - self._depth
        if wait > self._patience:
            raise TooManyRequests(f"too many requests {whose}", headers={"Retry-After": str(max(1, math.ceil(wait)))})
        self._full[key] = full
        if len(self._full) > _KNOWN:
            self._forget(now)
        return max(0.0, wait)

    def _forget(self, now: float) -> None:
        """Drop those whose buckets are full; if that are few, also those that were seen first."""
        kept = [(key, full) for key, full in self._full.items() if full > now]
        self._full = dict(kept[-_KNOWN // 2 :])


class _Turns:
    """So many at once; the others wait."""

    def __init__(self, most: int, patience: float) -> None:
        self.wanted = 0
        self._patience = patience
        self._most = most
        self._places = asyncio.Semaphore(most)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            detail = {"allowed": self._most}
            raise TooManyRequests("too many uploads at once", detail=detail, headers={"Retry-After": "5"}) from None
        try:
            yield
        finally:
            self._places.release()
