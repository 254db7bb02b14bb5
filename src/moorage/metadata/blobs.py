"""Facts about blobs: what is stored, and which repositories hold it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moorage.metadata import quotas, repositories
from moorage.metadata.base import Metadata, Query, Row, Unit, later, one, run, together
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobUnknown, InUse
from moorage.storage.base import Key


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob of a repository: its size in bytes and where its bytes are.

    ``unreferenced_since`` is None while a manifest of the repository references it.
    """

    digest: Digest
    size: int
    key: Key
    unreferenced_since: float | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Content of ``size`` bytes whose bytes are damaged, ``since`` when that is known, and how."""

    digest: str
    size: int
    since: float
    reason: str


async def quarantined(metadata: Metadata, last: str) -> list[Quarantined]:
    """Some of what is quarantined, by digest, after ``last``."""
    return [Quarantined(*row) for row in await metadata.fetch("page_quarantined", last, 500)]


def question(repository: str, digest: Digest) -> Query:
    """What ``find`` asks first."""
    return "blob_of_repository", (repository, digest)


async def find(metadata: Metadata, repository: str, digest: Digest) -> StoredBlob:
    """The blob as ``repository`` holds it; raises ``BlobUnknown``."""
    query, parameters = question(repository, digest)
    rows = await metadata.fetch(query, *parameters)
    if not rows:
        where = {"name": repository, "digest": digest}
        for reason, _ in await metadata.fetch("quarantined_of_repository", repository, digest):
            raise BlobUnknown("the blob was found damaged; push it again", detail={**where, "damage": reason})
        raise BlobUnknown(detail=where)
    return StoredBlob(digest, *rows[0])


async def holders(metadata: Metadata, digest: Digest, last: str, limit: int) -> list[str]:
    """Up to ``limit`` names after ``last`` of repositories that hold a blob, in bytewise order."""
    return [name for (name,) in await metadata.fetch("repositories_of_blob", digest, last, limit)]


def add(repository: str, digest: Digest, size: int, key: Key, change: Change) -> Unit[bool]:
    """Store a blob and link it. True if any bytes are doomed: the new ones, where the content is stored already.

    Content that was quarantined is repaired by the new bytes, for every repository that holds it.
    Raises ``QuotaExceeded``.
    """
    answers = yield from together(to_add(repository, digest, size, key, change))
    return (yield from added(answers, repository, digest, size, key, change))


def to_add(repository: str, digest: Digest, size: int, key: Key, change: Change) -> list[Query]:
    """What ``add`` asks; ``added`` goes on from the answers."""
    return [
        ("add_blob", (digest, size, key, change.at)),
        ("forget_quarantined", (digest,)),
        *_to_link(repository, digest, change),
    ]


def added(
    answers: Sequence[Sequence[Row]],
    repository: str,
    digest: Digest,
    size: int,
    key: Key,
    change: Change,
    *,
    received: int = 0,
) -> Unit[bool]:
    """The second half of ``add``; ``received`` bytes of it counted as those of a session until now."""
    again = not answers[0]
    if again:
        yield from later("doom", key, change.at)
        # PostgreSQL counts the conflict of an INSERT as no read; unread, a collection could delete it beside us.
        yield from later("blob_of_digest", digest)
    for (damaged,) in answers[1]:
        yield from later("doom", damaged, change.at)
        yield from change.record("blob.repair", repository, digest=digest)
    yield from _linked(answers[2:], repository, digest, size, change, "blob.push", received=received)
    return again or bool(answers[1])


def mount(repository: str, digest: Digest, source: str | None, change: Change) -> Unit[bool]:
    """Link a blob that ``source`` (None: any repository) holds; False if it does not hold it.

    Raises ``QuotaExceeded``.
    """
    if source is None:
        found = yield from one("blob_linked_somewhere", digest)
    else:
        found = yield from one("blob_of_repository", source, digest)
    if found is None:
        return False
    answers = yield from together(_to_link(repository, digest, change))
    yield from _linked(answers, repository, digest, found[0], change, "blob.mount")
    return True


def adopt(repository: str, digest: Digest, size: int, key: Key, change: Change) -> Unit[None]:
    """Link a blob whose bytes lie in the tree of another registry, under ``key`` unless others stand for it already.

    Raises ``QuotaExceeded``.
    """
    adding: list[Query] = [("add_blob_in_tree", (digest, size, key, change.at)), ("blob_of_digest", (digest,))]
    _, known, *answers = yield from together([*adding, *_to_link(repository, digest, change)])
    yield from _linked(answers, repository, digest, known[0][0] if known else size, change, "blob.mount")


def unlink(repository: str, digest: Digest, change: Change, *, referenced: bool) -> Unit[None]:
    """Take a blob out of a repository.

    Raises ``BlobUnknown``, and ``InUse`` where a manifest needs it unless ``referenced`` blobs may go too.
    """
    row = yield from one("repository_id", repository)
    gone = row and (yield from one("unlink_blob", row[0], digest))
    if not row or not gone:
        raise BlobUnknown(detail={"name": repository, "digest": digest})
    if not referenced:
        yield from refuse_if_needed(row[0], digest)
    yield from later("uncount_blob", repository, digest)
    yield from doom_if_unlinked(digest, change.at)
    yield from change.record("blob.delete", repository, digest=digest)


def renew(repository: str, digest: Digest, now: float) -> Unit[None]:
    """Let the grace of a blob that nothing references start again; raises ``BlobUnknown`` if it went meanwhile."""
    row = yield from one("repository_id", repository)
    if row is None or (yield from one("is_linked", row[0], digest)) is None:
        raise BlobUnknown(detail={"name": repository, "digest": digest})
    yield from later("mark_unreferenced", row[0], digest, now)


def quarantine(digest: str, key: Key, reason: str, change: Change) -> Unit[bool]:
    """Let content whose bytes under ``key`` are damaged not be there until it is pushed again.

    False, and nothing is changed, where other bytes stand for it by now.
    """
    row = yield from one("quarantine", digest, key)
    if row is None:
        return False
    yield from later("add_quarantined", digest, row[0], key, change.at, reason)
    yield from replace(change, reason=reason).record("blob.quarantine", "", digest=digest)
    return True


def release(digest: str, size: int, key: Key, change: Change) -> Unit[None]:
    """Let content that was quarantined be there again: the bytes under ``key`` turned out to be right."""
    if (yield from one("forget_quarantined", digest)):
        yield from later("add_blob", digest, size, key, change.at)
        yield from replace(change, reason="its bytes are right again").record("blob.repair", "", digest=digest)


def verified(checked: Sequence[tuple[str, Key]], now: float) -> Unit[None]:
    """Remember that the bytes of each ``(digest, key)`` were right."""
    for digest, key in checked:
        yield from later("set_verified", digest, key, now)


def doom_if_unlinked(digest: str, now: float) -> Unit[bool]:
    """Forget a blob that no repository holds and doom its bytes; whether that was so."""
    gone = yield from one("forget_blob", digest)
    if gone is None and (yield from one("is_orphaned", digest)):
        gone = yield from one("forget_quarantined", digest)
    if gone:
        yield from later("doom", gone[0], now)
    return gone is not None


def refuse_if_needed(repository_id: int, digest: Digest) -> Unit[None]:
    """Raise ``InUse`` naming the manifests (at most ten) that need ``digest``."""
    parents = yield from run("parents", repository_id, digest)
    if parents:
        raise InUse(detail={"digest": digest, "referenced_by": [parent for (parent,) in parents]})


def _to_link(repository: str, digest: Digest, change: Change) -> list[Query]:
    """What a link asks; ``_linked`` goes on from the answers."""
    return [
        *repositories.to_make(repository, create=change.creates),
        ("quotas_without_blob", (repository, digest)),
        ("link_blob_by_name", (repository, digest, change.at)),
    ]


def _linked(
    answers: Sequence[Sequence[Row]],
    repository: str,
    digest: Digest,
    size: int,
    change: Change,
    action: str,
    *,
    received: int = 0,
) -> Unit[None]:
    *making, lacking, linked = answers
    repository_id = yield from repositories.made(making, repository)
    if linked:
        yield from quotas.hold(repository, lacking, size, received)
        yield from change.record(action, repository, digest=digest)
    yield from later("mark_unreferenced", repository_id, digest, change.at)
