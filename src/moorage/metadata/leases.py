"""Leases: what one process at a time may do."""

from typing import NamedTuple

from moorage.metadata.base import Unit, later, one


class Lease(NamedTuple):
    """Who holds it, and how often it was renewed."""

    holder: str
    beat: int


def take(name: str, holder: str, dead: Lease | None) -> Unit[Lease]:
    """Renew a lease that ``holder`` holds, or take one that nobody holds or that is still as it was when ``dead``.

    Returns what it is from now on.
    """
    row = yield from one("lease", name)
    held = Lease(*row) if row else Lease(holder, 0)
    if row and held.holder != holder and held != dead:
        return held
    taken = Lease(holder, held.beat + 1)
    yield from later("set_lease", name, *taken)
    return taken


def release(name: str, holder: str) -> Unit[None]:
    """Give up a lease if ``holder`` holds it."""
    yield from later("delete_lease", name, holder)
