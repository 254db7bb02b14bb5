"""Failed logins: whoever guesses waits longer and longer, and nobody else does.

What counts are different passwords, so that a script whose password has expired gets 401 for ever and keeps nobody
out. One address that tries one name has a few guesses, and one address that tries many names some more; nothing is
counted for a name alone, so nobody can keep its owner out from elsewhere. It makes no difference whether a name is
known. Each process counts for itself, in memory that does not grow.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from moorage.auth.addresses import client_of
from moorage.spec.errors import TooManyRequests, Unauthorized

WRONG: Final = "wrong name or password"
_GUESSES: Final = 5  # of one name from one address, before there is a delay
_GUESSES_ALL: Final = 50  # of one address
_FORGIVEN: Final = 900.0  # seconds in which as many are forgiven as are free
_REFUSED: Final = 10.0  # seconds in which a wrong password is refused without looking again
_KEPT: Final = 8  # wrong passwords of one name from one address
_MOST: Final = 10_000  # names and addresses
# Of this machine: that is a proxy, and all its clients would wait for one.
_PROXIES: Final = frozenset(map(client_of, ("127.0.0.1", "::1", None)))

Key = TypeVar("Key")


@dataclass(slots=True)
class Attempt:
    """One login; whether it was right, which whoever checks it says."""

    right: bool = False


@dataclass(slots=True)
class _Failures:
    count: float = 0.0
    last: float = 0.0
    free_at: float = 0.0
    wrong: OrderedDict[bytes, float] = field(default_factory=OrderedDict)  # when each was seen to be wrong
    pending: dict[bytes, int] = field(default_factory=dict)


class Attempts:
    """Remembers failed logins; ``longest`` is the longest delay in seconds, 0 for none."""

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._pairs: OrderedDict[tuple[str | None, bytes], _Failures] = OrderedDict()
        self._addresses: OrderedDict[str, _Failures] = OrderedDict()

    @contextmanager
    def one(self, name: str, address: str | None, secret: bytes) -> Iterator[Attempt]:
        """A login of ``name`` from ``address``, in which the password is checked; ``secret`` is a hash of it.

        Raises ``TooManyRequests`` while it has to wait, ``Unauthorized`` if the password was just seen to be wrong.
        """
        if not self._longest:
            yield Attempt()
            return
        client = client_of(address)
        key = client, hashlib.blake2b(name.encode(), digest_size=16).digest()
        failures = self._of(self._pairs, key)
        now = self._clock()
        if now < failures.wrong.get(secret, -math.inf) + _REFUSED:
            raise Unauthorized(WRONG)
        if client is not None and client in self._addresses:
            _wait(self._addresses[client], now)
        _wait(failures, now)
        # What is being checked may fail too: many guesses at once are no way round.
        if secret not in failures.pending and failures.count + len(failures.pending) >= max(
            _GUESSES, failures.count + 1
        ):
            raise _too_many(1)
        failures.pending[secret] = failures.pending.get(secret, 0) + 1
        attempt = Attempt()
        try:
            yield attempt
            if attempt.right:
                failures.count, failures.free_at = 0.0, 0.0
                failures.wrong.clear()
            else:
                self._failed(failures, client, secret)
        finally:
            failures.pending[secret] -= 1
            if not failures.pending[secret]:
                del failures.pending[secret]
            if not failures.pending and not failures.count:
                self._pairs.pop(key, None)

    def _failed(self, failures: _Failures, client: str | None, secret: bytes) -> None:
        now = self._clock()
        new = secret not in failures.wrong
        failures.wrong[secret] = now
        failures.wrong.move_to_end(secret)
        if len(failures.wrong) > _KEPT:
            failures.wrong.popitem(last=False)
        if not new:
            return
        self._count(failures, _GUESSES, now)
        if client is not None and client not in _PROXIES:
            self._count(self._of(self._addresses, client), _GUESSES_ALL, now)

    def _count(self, failures: _Failures, free: int, now: float) -> None:
        forgiven = (now - failures.last) * free / _FORGIVEN
        failures.count = max(0.0, failures.count - forgiven) + 1
        failures.last = now
        over = round(failures.count) - free
        if over >= 0:
            failures.free_at = now + min(self._longest, 2.0 ** min(over, 32))

    def _of(self, known: OrderedDict[Key, _Failures], key: Key) -> _Failures:
        failures = known.get(key)
        if failures is None or (not failures.pending and self._clock() > failures.last + _FORGIVEN):
            failures = known[key] = _Failures(last=self._clock())
        known.move_to_end(key)
        if len(known) > _MOST:
            known.popitem(last=False)
        return failures


def _wait(failures: _Failures, now: float) -> None:
    if now < failures.free_at:
        raise _too_many(math.ceil(failures.free_at - now))


def _too_many(seconds: int) -> TooManyRequests:
    return TooManyRequests(f"too many failed logins; try again in {seconds} s", headers={"Retry-After": str(seconds)})
