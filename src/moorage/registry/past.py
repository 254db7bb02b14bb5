"""The facts as they stood at a moment: what lets an unmodified client pull what a tag named then.

Tags are told by the first change after the moment, or by what they name now if there was none. Manifests and blobs
are found by their digests, among what is there and among what was deleted since.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from moorage.metadata.base import Arguments, Metadata, Result, Row, Unit
from moorage.metadata.repositories import past
from moorage.spec.errors import Denied, Unsupported
from moorage.spec.moments import as_of

_OF_TAGS: Final = {"manifest_by_tag": "manifest_by_digest", "describe_by_tag": "describe_by_digest"}
_OF_CONTENT: Final = frozenset({"manifest_by_digest", "describe_by_digest", "blob_of_repository"})


class Past:
    """``Metadata`` that answers as of ``moment`` what pulling asks, and cannot be changed.

    Repositories may be named with the moment before them.
    """

    def __init__(self, metadata: Metadata, moment: float) -> None:
        self._metadata = metadata
        self._moment = moment

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        repository, *rest = parameters
        if found := as_of(repository):
            repository = found[1]
        if query in _OF_TAGS:
            digest = await self.tag(repository, *rest)
            return await self._content(_OF_TAGS[query], repository, digest) if digest else ()
        if query in _OF_CONTENT:
            return await self._content(query, repository, *rest)
        if query == "page_tags":
            last, limit = rest
            return await self._metadata.fetch("page_tags_at", repository, last, self._moment, limit)
        if query == "page_referrers":
            subject, _, last, kind, limit = rest
            return await self._metadata.fetch(
                "page_referrers_at", repository, past(repository), subject, last, kind, self._moment, limit
            )
        if query == "repository_id":
            return await self._metadata.fetch(query, repository) or await self._metadata.fetch(
                query, past(repository)
            )
        raise Unsupported("this is not asked of the past", detail={"name": parameters[0]})

    async def ahead(self) -> float:
        return 0.0

    async def transact(
        self,
        unit: Callable[Arguments, Unit[Result]],  # noqa: ARG002  nothing can be changed
        *arguments: Arguments.args,  # noqa: ARG002
        **named: Arguments.kwargs,  # noqa: ARG002
    ) -> Result:
        raise Denied("the past cannot be changed")

    async def tag(self, repository: str, tag: str) -> str | None:
        """The digest that a tag named then."""
        rows = await self._metadata.fetch("tag_change_after", repository, tag, self._moment)
        if not rows:
            rows = await self._metadata.fetch("describe_by_tag", repository, tag)
        return rows[0][0] if rows else None

    async def _content(self, query: str, repository: str, digest: str) -> Sequence[Row]:
        rows = await self._metadata.fetch(query, repository, digest)
        if not rows:
            rows = await self._metadata.fetch(query, past(repository), digest)
        return [(*row[:-1], None) for row in rows]  # who looks at the past lets nothing stay longer
