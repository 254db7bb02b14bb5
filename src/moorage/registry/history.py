"""The history of tags: what they named, and setting them back."""

from typing import Final

from moorage.metadata import history as facts
from moorage.metadata.events import Change
from moorage.metadata.history import TagChange
from moorage.metadata.tags import IMMUTABLE
from moorage.registry.parts import ANONYMOUS, Page, Parts, page_size
from moorage.registry.past import Past
from moorage.spec.digest import Digest
from moorage.spec.errors import ManifestUnknown, NameUnknown, PageInvalid
from moorage.spec.names import TAG, check_new, check_tag

_MOST: Final = 1000
_HIGHEST: Final = 2**63 - 1  # number that a database takes
_EVER: Final = 1e12  # seconds since 1970, after everything


class History:
    """What the tags of every repository named."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def list(
        self, repository: str, tag: str | None = None, n: int | None = None, last: str = ""
    ) -> Page[TagChange]:
        """Up to ``n`` changes of a tag (None: of all), the latest first, after the page that ended with ``last``.

        Raises ``ManifestUnknown`` for a tag that never was, ``NameUnknown`` for a repository without any, and
        ``PageInvalid``.
        """
        limit = page_size(n, _MOST)
        before = (_EVER, 0)
        if last:
            at, _, seq = last.partition("_")
            try:
                before = float(at), int(seq)
            except ValueError as error:
                raise PageInvalid(detail={"parameter": "last", "value": last[:64]}) from error
            if not 0 <= before[1] <= _HIGHEST:
                raise PageInvalid(detail={"parameter": "last", "value": last[:64]})
        if tag is not None and not TAG.fullmatch(tag):  # as it is for pulling
            raise ManifestUnknown("not a tag", detail={"reference": tag[:256], "allowed": TAG.pattern})
        found = await facts.page(self._parts.metadata, repository, tag, before, limit + 1)
        if not found and not last and limit:
            if tag is None:
                raise NameUnknown(detail={"name": repository})
            raise ManifestUnknown(detail={"name": repository, "reference": tag})
        end = found[limit - 1] if len(found) > limit > 0 else None
        return Page(found[:limit], f"{end.at!r}_{end.seq}" if end else None)

    async def restore(
        self,
        repository: str,
        tag: str,
        to: float | Digest | None = None,
        *,
        actor: str = ANONYMOUS,
        create: bool = True,
        fixed: str | None = None,
    ) -> Digest:
        """Let a tag name what it named at a moment, or a digest, or (None) what it named before its last change.

        What was deleted comes back, with everything that its deletion took along. ``fixed`` says why a tag that names
        something else may not be moved, if it may not. Returns the digest. Raises
        ``ManifestUnknown`` where it named nothing then or that is gone for good, ``ManifestBlobUnknown``, ``Denied``.
        """
        check_new(repository)
        digest = to if isinstance(to, Digest) else await self._named(repository, check_tag(tag), to)
        change = Change(self._parts.clock(), actor, create, "restored")
        policy = self._parts.policy
        if policy.is_immutable(repository, tag):
            fixed = IMMUTABLE
        sparse = policy.not_needed()
        await self._parts.metadata.transact(facts.restore, repository, tag, digest, change, sparse, fixed)
        return digest

    async def _named(self, repository: str, tag: str, moment: float | None) -> Digest:
        if moment is None:
            rows = await self._parts.metadata.fetch("last_tag_change", repository, tag)
            digest = rows[0][0] if rows else None
        else:
            digest = await Past(self._parts.metadata, moment).tag(repository, tag)
        if digest is None:
            raise ManifestUnknown("the tag named nothing then", detail={"name": repository, "reference": tag})
        return Digest(digest)
