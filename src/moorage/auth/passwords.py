"""Names and passwords: hashed slowly, checked in threads of their own, remembered for a minute.

A client that sends its password with each request costs one check a minute. What is remembered is a keyed hash, under
a key that only this process has, and it counts only as long as the user's entry is the one that was checked.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from moorage.auth.attempts import WRONG, Attempts
from moorage.auth.base import Challenge, Credentials, Identity
from moorage.spec.errors import Unauthorized

BASIC: Final = Challenge("Basic", (("realm", "Moorage"), ("charset", "UTF-8")))
REMEMBERED: Final = 60.0  # seconds
_MOST: Final = 10_000  # remembered at once
_THREADS: Final = 2
_BCRYPT_LONGEST: Final = 72  # bytes; the algorithm takes no more
_BCRYPT: Final = ("$2a$", "$2b$", "$2y$")
# Argon2id with 19 MiB and two passes: what OWASP asks for at least, and little enough for several at once.
_MEMORY, _PASSES, _LANES = 19 * 1024, 2, 1
# Not of any password; checking against it costs what checking against a user's hash does.
ARGON2_DUMMY: Final = f"$argon2id$v=19$m={_MEMORY},t={_PASSES},p={_LANES}${'A' * 22}${'A' * 43}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a user: the hash of his password, and his groups."""

    hash: str
    groups: frozenset[str] = frozenset()


class PasswordSource(Protocol):
    """Where users are kept. ``method`` is its name; ``dummy`` a hash that costs as much to check as those it has."""

    method: str

    @property
    def dummy(self) -> str: ...

    async def entry(self, name: str) -> Entry | None:
        """The user of that name, as of now."""


def hash_password(password: str) -> str:
    """The hash to keep of a password; takes tens of milliseconds."""
    from argon2 import PasswordHasher  # noqa: PLC0415  only where passwords are kept

    return PasswordHasher(_PASSES, _MEMORY, _LANES).hash(password)


def verify_password(hashed: str, password: str) -> bool:
    """Whether ``hashed`` (Argon2id or bcrypt) is of ``password``; takes tens of milliseconds."""
    if hashed.startswith(_BCRYPT):
        import bcrypt  # noqa: PLC0415

        try:
            return bcrypt.checkpw(password.encode()[:_BCRYPT_LONGEST], hashed.encode())
        except ValueError:  # it only looks like a hash
            return False
    from argon2 import PasswordHasher  # noqa: PLC0415
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415

    try:
        return PasswordHasher().verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


class Passwords:
    """An ``Authenticator`` by name and password, over one or more sources of users.

    Every check costs one hash of each source, whether or not there is such a user and in whichever source.
    """

    challenges = (BASIC,)

    def __init__(
        self,
        sources: Sequence[PasswordSource],
        *,
        attempts: Attempts | None = None,
        verify: Callable[[str, str], bool] = verify_password,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = tuple(sources)
        self._attempts = attempts or Attempts(0)
        self._verify = verify
        self._clock = clock
        self._key = os.urandom(32)
        self._known: dict[bytes, tuple[float, Entry, Identity]] = {}
        self._running: dict[tuple[bytes, Entry | None], asyncio.Future[bool]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "moorage-passwords")

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exception: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Whose password it is; None for an unknown name. Raises ``Unauthorized``, ``TooManyRequests``."""
        name, password = credentials.name, credentials.password
        if name is None or password is None:
            return None
        source, entry = await self._find(name)
        secret = hashlib.blake2b(
            len(name).to_bytes(4, "big") + name.encode() + password.encode(), key=self._key, digest_size=32
        ).digest()
        if source is not None and entry is not None and (known := self._known.get(secret)) is not None:
            until, checked, identity = known
            if checked == entry and identity.method == source.method and self._clock() < until:
                return identity
        with self._attempts.one(name, credentials.address, secret) as attempt:
            right = attempt.right = await self._check(secret, source, entry, password)
        if source is None or entry is None:
            return None
        if not right:
            raise Unauthorized(WRONG)
        identity = _identity(name, entry, source.method)
        self._known.pop(secret, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[secret] = self._clock() + REMEMBERED, entry, identity
        return identity

    @property
    def methods(self) -> Collection[str]:
        """The methods of its sources."""
        return [each.method for each in self._sources]

    async def recall(self, identity: Identity) -> Identity | None:
        """The user as of now, None where he is gone or has another password."""
        for source in self._sources:
            if (entry := await source.entry(identity.name)) is not None:
                found = _identity(identity.name, entry, source.method)
                same = found.proof == identity.proof and found.method == identity.method
                return found if same else None
        return None

    async def _find(self, name: str) -> tuple[PasswordSource | None, Entry | None]:
        for source in self._sources:
            if (entry := await source.entry(name)) is not None:
                return source, entry
        return None, None

    async def _check(self, secret: bytes, source: PasswordSource | None, entry: Entry | None, password: str) -> bool:
        """Whether the password is right; the same question asked again meanwhile waits for the one answer."""
        asked = (secret, entry)
        running = self._running.get(asked)
        if running is None:
            hashes = [entry.hash if entry and each is source else each.dummy for each in self._sources]
            right = self._sources.index(source) if source else None
            work = asyncio.get_running_loop().run_in_executor(
                self._threads, self._verify_all, hashes, right, password
            )
            running = self._running[asked] = asyncio.ensure_future(work)
            running.add_done_callback(lambda _: self._running.pop(asked, None))
        return await asyncio.shield(running)

    def _verify_all(self, hashes: Sequence[str], right: int | None, password: str) -> bool:
        results = [self._verify(each, password) for each in hashes]
        return right is not None and results[right]


@lru_cache(maxsize=_MOST)
def _identity(name: str, entry: Entry, method: str) -> Identity:
    """A user with this entry; the proof is a digest of the salted hash, from which nobody finds the password."""
    proof = hashlib.sha256(entry.hash.encode()).hexdigest()[:32]
    return Identity(name, entry.groups, method, local=True, proof=proof)
