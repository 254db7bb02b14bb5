"""Tokens that were verified before, under their digest, so that each costs one verification."""

import hashlib
from typing import Final, Generic, TypeVar

Found = TypeVar("Found")
_MOST: Final = 10_000
_LONGEST: Final = 300.0  # seconds; a key that an issuer withdraws is noticed after that


class Remembered(Generic[Found]):
    """At most 10,000 values, each for at most five minutes; the oldest goes first."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[float, Found]] = {}

    def get(self, token: str, now: float) -> Found | None:
        """What was kept for this very token, unless its time is over; times are seconds since 1970."""
        kept = self._found.get(_digest(token))
        return kept[1] if kept is not None and kept[0] > now else None

    def keep(self, token: str, found: Found, now: float, until: float) -> None:
        """Keep ``found`` until ``until`` at the longest."""
        if len(self._found) >= _MOST:
            del self._found[next(iter(self._found))]
        self._found[_digest(token)] = min(until, now + _LONGEST), found

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
