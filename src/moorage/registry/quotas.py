"""Quotas: what repositories may have at most, from the settings to the facts; and what that leaves for a body.

The facts hold the quotas, so that every process counts and refuses by the same ones, whatever settings it was given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from moorage.metadata import quotas as facts
from moorage.metadata import repositories
from moorage.metadata.quotas import Allowed, Amount, Quota
from moorage.registry.parts import Parts
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobTooLarge, RegistryError

_PAGE: Final = 50  # names in one transaction


class Quotas:
    """The quotas of a registry, and what is used of them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list(self) -> list[Quota]:
        """Every quota, by its pattern."""
        return await facts.listed(self._parts.metadata)

    async def apply(self) -> None:
        """Let the facts hold the policy's quotas and no others; count what new ones cover."""
        rules = self._parts.policy.quotas
        wanted = {each.repository: Allowed(each.bytes, each.tags, each.repositories) for each in rules}
        if {each.pattern: each.allowed for each in await self.list()} != wanted:
            await self._parts.metadata.transact(facts.declare, wanted)
        await self._count()

    async def recount(self) -> None:
        """Count everything anew; what is pushed meanwhile is counted too, and refused late."""
        for each in await self.list():
            await self._parts.metadata.transact(facts.forget, each.pattern)
        await self._count()

    async def _count(self) -> None:
        for each in await self.list():
            last: str | None = None if each.counted else ""
            while last is not None:
                last = await self._parts.metadata.transact(facts.enroll, each.pattern, last, _PAGE)


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes a body may have: some bounds, each with the error for more."""

    bounds: tuple[tuple[int, Callable[[int], RegistryError]], ...] = ()

    def check(self, size: int) -> None:
        """Raise what says why ``size`` bytes are too many."""
        for most, error in self.bounds:
            if size > most:
                raise error(size)


async def room(
    parts: Parts, repository: str, received: int, length: int | None, digest: Digest | None = None
) -> Room:
    """What there is for a body, of ``length`` bytes if that is known, after ``received`` ones.

    ``digest`` is that of the blob which is whole with it: where a quota counts it already, it needs no room.
    Raises ``BlobTooLarge``, ``QuotaExceeded``, so that nothing need be sent.
    """
    bounds: list[tuple[int, Callable[[int], RegistryError]]] = []
    if (limit := parts.policy.blob_limit) is not None:
        bounds.append((limit - received, partial(_too_large, limit, received)))
    if parts.policy.has_quota(repository):
        bounds += await _left(parts, repository, length, digest)
    found = Room(tuple(bounds))
    found.check(length or 0)
    return found


async def check_start(parts: Parts, repository: str) -> None:
    """Raise ``QuotaExceeded`` if no byte can be pushed to a repository."""
    if parts.policy.has_quota(repository):
        for each in await facts.covering(parts.metadata, repository):
            each.check(repository, Amount(bytes=1))
            one = Amount(repositories=1)
            if not each.fits(one) and not await repositories.exists(parts.metadata, repository):
                each.check(repository, one)


async def _left(
    parts: Parts, repository: str, length: int | None, digest: Digest | None
) -> list[tuple[int, Callable[[int], RegistryError]]]:
    quotas = await facts.covering(parts.metadata, repository)
    if digest and (length is None or not all(each.fits(Amount(bytes=length)) for each in quotas)):
        counting = await facts.counting(parts.metadata, digest)
        quotas = [each for each in quotas if each.pattern not in counting]
    return [(each.left, partial(each.exceeded, repository, "bytes")) for each in quotas if each.left is not None]


def _too_large(limit: int, received: int, size: int) -> BlobTooLarge:
    return BlobTooLarge(detail={"allowed": limit, "size": received + size})
