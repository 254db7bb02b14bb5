"""What there is; spec "Listing Tags", "Listing Referrers", and the catalog."""

import asyncio
from collections.abc import Awaitable, Callable

from moorage.metadata import referrers, repositories, tags
from moorage.registry.parts import Page, Parts, as_digest, page_size
from moorage.spec.descriptor import Descriptor
from moorage.spec.digest import Digest
from moorage.spec.errors import NameUnknown

Seen = Callable[[str], Awaitable[bool]]
_SCANNED = 256  # names looked at in one go


class Tags:
    """The tags of every repository."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list(self, repository: str, n: int | None = None, last: str = "") -> Page[str]:
        """Up to ``n`` tags after ``last``, in bytewise order; raises ``NameUnknown``."""
        limit = page_size(n, self._parts.policy.tags_page)
        found = await tags.page(self._parts.metadata, repository, last, limit + 1)
        if not found and not await repositories.exists(self._parts.metadata, repository):
            raise NameUnknown(detail={"name": repository})
        return _cut(found, limit)


class Repositories:
    """The catalog."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list(self, n: int | None = None, last: str = "", *, seen: Seen | None = None) -> Page[str]:
        """Up to ``n`` repository names after ``last``, in bytewise order; of those that are ``seen``, if given."""
        limit = page_size(n, self._parts.policy.repositories_page)
        if seen is None:
            return _cut(await repositories.page(self._parts.metadata, last, limit + 1), limit)
        found: list[str] = []
        while len(found) <= limit:
            names = await repositories.page(self._parts.metadata, last, _SCANNED)
            found += [name for name in names if await seen(name)]
            if len(names) < _SCANNED:
                break
            last = names[-1]
            await asyncio.sleep(0)  # a large registry of which little is seen: others get their turn
        return _cut(found[: limit + 1], limit)

    async def require(self, repository: str) -> None:
        """Return if anything was ever stored under that name, for whom may not make it; raises ``Denied``."""
        if not await repositories.exists(self._parts.metadata, repository):
            raise repositories.not_created(repository)


class Referrers:
    """What names a manifest as its subject."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list(
        self,
        repository: str,
        subject: Digest | str,
        artifact_type: str | None = None,
        *,
        n: int | None = None,
        last: str = "",
    ) -> Page[Descriptor]:
        """Up to ``n`` referrers after the one whose digest is ``last``; an unknown subject or repository has none."""
        index, more = await self.index(repository, subject, artifact_type, n=n, last=last)
        return Page(referrers.listed(index), more)

    async def index(
        self,
        repository: str,
        subject: Digest | str,
        artifact_type: str | None = None,
        *,
        n: int | None = None,
        last: str = "",
    ) -> tuple[bytes, str | None]:
        """The same as an OCI index in JSON, and where the next page starts."""
        limit = page_size(n, self._parts.policy.referrers_page)
        return await referrers.page(self._parts.metadata, repository, as_digest(subject), artifact_type, last, limit)


def _cut(found: list[str], limit: int) -> Page[str]:
    """The first ``limit`` of one more than were asked for, which tells whether there is more."""
    return Page(found[:limit], found[limit - 1] if len(found) > limit > 0 else None)
