"""Facts about tags."""

from collections.abc import Callable
from typing import Final

from moorage.metadata import repositories
from moorage.metadata.base import Metadata, Unit, later, one
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import Denied, ManifestUnknown
from moorage.spec.names import fallback_subject_prefix
from moorage.spec.preconditions import Precondition

IMMUTABLE: Final = "the tag is immutable"
Kept = Callable[[str], bool]  # whether a tag is to stay


async def page(metadata: Metadata, repository: str, last: str, limit: int) -> list[str]:
    """Up to ``limit`` tags after ``last``, in bytewise order."""
    return [name for (name,) in await metadata.fetch("page_tags", repository, last, limit)]


def immutable(repository: str, tag: str) -> Denied:
    """The error for a tag that is to stay."""
    return Denied(IMMUTABLE, detail={"name": repository, "tag": tag})


def move(
    repository_id: int, repository: str, tag: str, digest: Digest, change: Change, *, before: str | None
) -> Unit[None]:
    """Let ``tag`` name ``digest`` rather than what it named ``before``."""
    yield from later("set_tag", repository_id, tag, digest, change.at)
    yield from later("hold_manifest", repository_id, digest)
    if before is None:
        yield from later("count", repository, 0, 1, 0)
    if before != digest:
        yield from change.record("tag.push", repository, tag=tag, digest=digest, before=before, after=digest)
        if before and fallback_subject_prefix(tag):
            yield from later("supersede_list", repository_id, before, change.at)


def delete(
    repository: str, tag: str, precondition: Precondition, change: Change, *, kept: Kept = lambda _: False
) -> Unit[None]:
    """Delete a tag, unless it is ``kept``.

    Raises ``NameUnknown``, ``ManifestUnknown``, ``PreconditionFailed``, ``Denied``.
    """
    repository_id = yield from repositories.find(repository)
    row = yield from one("delete_tag", repository_id, tag)
    precondition.check(tag, row[0] if row else None)
    if row is None:
        raise ManifestUnknown(detail={"name": repository, "reference": tag})
    if kept(tag):
        raise immutable(repository, tag)
    yield from later("count", repository, 0, -1, 0)
    yield from change.record("tag.delete", repository, tag=tag, before=row[0])
