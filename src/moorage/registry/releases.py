"""Releases: tags of several repositories go live in one transaction or not at all, and back."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from types import MappingProxyType
from typing import Final

from moorage.metadata import releases as facts
from moorage.metadata.releases import Fixed, Release, TagMoved
from moorage.registry.parts import ANONYMOUS, Page, Parts, page_size
from moorage.spec.errors import PageInvalid
from moorage.spec.releases import ABSENT, TagMove, check_name, checked

_MOST: Final = 100
_EVER: Final = 1e12  # seconds since 1970, after everything
_NONE: Final[Fixed] = MappingProxyType({})
Seen = Callable[[str], Awaitable[bool]]


class Releases:
    """The releases of a registry. ``fixed`` says why, of each tag that may not be moved once it names something."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def make(
        self,
        name: str,
        moves: Sequence[TagMove],
        *,
        draft: bool = False,
        actor: str = ANONYMOUS,
        fixed: Fixed = _NONE,
    ) -> bool:
        """Let each tag name what its move says, all or none; a ``draft`` holds the manifests until it is published.

        Returns whether anything was done: what is there already may be asked for again. Raises ``ReleaseInvalid``,
        ``ReleaseConflict``, ``PreconditionFailed``, ``Denied``, ``MethodNotAllowed``, and ``ManifestUnknown`` with
        each manifest that is not in its repository.
        """
        moves = checked(moves)
        self._check_deletion(moves)
        return await self._parts.metadata.transact(
            facts.make, check_name(name), moves, self._parts.change(actor), draft=draft, fixed=fixed, kept=self._kept
        )

    async def publish(self, name: str, *, actor: str = ANONYMOUS, fixed: Fixed = _NONE) -> bool:
        """Let a draft go live; returns whether it was one still. Raises ``ReleaseUnknown``, and as ``make`` does."""
        _, moved = await self.get(name)
        moves = [each.move for each in moved]
        self._check_deletion(moves)
        change = self._parts.change(actor)
        return await self._parts.metadata.transact(facts.publish, name, moves, change, fixed=fixed, kept=self._kept)

    async def discard(self, name: str, *, actor: str = ANONYMOUS) -> None:
        """Drop a draft, which then holds nothing. Raises ``ReleaseUnknown``, ``ReleaseConflict``."""
        await self._parts.metadata.transact(facts.discard, name, self._parts.change(actor))

    async def roll_back(
        self,
        name: str,
        *,
        force: bool = False,
        actor: str = ANONYMOUS,
        fixed: Fixed = _NONE,
        uncreated: Collection[str] = (),
    ) -> list[TagMoved]:
        """Let each tag of a release name again what it named before, all or none.

        Returns those that stay by the policy: immutable ones, and new ones where deletion is turned off. Tags that
        were changed since raise ``PreconditionFailed`` unless ``force`` is given. What collection took comes back
        as far as the history reaches, else ``ManifestUnknown``, and its repository, unless that may not be created.
        Raises also ``ReleaseUnknown``, ``ReleaseConflict``, ``Denied``, ``QuotaExceeded``.
        """
        sparse = self._parts.policy.not_needed()
        return await self._parts.metadata.transact(
            facts.roll_back,
            name,
            self._parts.change(actor),
            sparse,
            fixed=fixed,
            kept=self._kept,
            uncreated=uncreated,
            force=force,
        )

    async def get(self, name: str) -> tuple[Release, list[TagMoved]]:
        """A release and its changes, in the order of their tags; raises ``ReleaseUnknown``."""
        return await facts.find(self._parts.metadata, check_name(name))

    async def list(self, n: int | None = None, last: str = "", *, seen: Seen | None = None) -> Page[Release]:
        """Up to ``n`` releases, the latest first, after the page that ended with ``last``.

        Of those whose repositories are all ``seen``, if given. Raises ``PageInvalid``.
        """
        limit = page_size(n, _MOST)
        at, _, name = last.partition("_")
        try:
            before = (float(at), name) if last else (_EVER, "")
        except ValueError as error:
            raise PageInvalid(detail={"parameter": "last", "value": last[:64]}) from error
        found: list[Release] = []
        while len(found) <= limit:
            page = await facts.page(self._parts.metadata, before, limit + 1)
            found += [each for each in page if seen is None or await self._all(each.name, seen)]
            if len(page) <= limit:
                break
            before = page[-1].created_at, page[-1].name
        end = found[limit - 1] if len(found) > limit > 0 else None
        return Page(found[:limit], f"{end.created_at!r}_{end.name}" if end else None)

    async def _all(self, name: str, seen: Seen) -> bool:
        for repository in await facts.repositories_of(self._parts.metadata, name):
            if not await seen(repository):
                return False
        return True

    def _check_deletion(self, moves: Sequence[TagMove]) -> None:
        if any(each.digest == ABSENT for each in moves):
            self._parts.require_deletion()

    def _kept(self, move: TagMove, digest: str) -> bool:
        policy = self._parts.policy
        return policy.is_immutable(move.repository, move.tag) or (digest == ABSENT and not policy.deletion)
