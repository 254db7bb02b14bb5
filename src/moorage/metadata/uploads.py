"""Facts about upload sessions: a list of immutable segments, moved on by compare-and-swap."""

from collections.abc import Sequence
from dataclasses import dataclass

from moorage.metadata import blobs, quotas
from moorage.metadata.base import Metadata, Unit, later, one, run, together
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobUploadRangeInvalid, BlobUploadUnknown
from moorage.storage.base import Key


@dataclass(frozen=True, slots=True)
class UploadSession:
    """``received`` bytes so far; ``digest`` is theirs where it is known."""

    repository: str
    id: str
    algorithm: str
    received: int
    digest: Digest | None

    def unknown(self) -> BlobUploadUnknown:
        return unknown(self.repository, self.id)


def unknown(repository: str, identifier: str) -> BlobUploadUnknown:
    """The error for a session that is not there."""
    return BlobUploadUnknown(detail={"name": repository, "upload": identifier[:64]})


def out_of_order(received: int, first: int) -> BlobUploadRangeInvalid:
    """The error for a chunk that starts elsewhere than the session ends."""
    return BlobUploadRangeInvalid(detail={"received": received, "first": first})


def start(repository: str, identifier: str, algorithm: str, now: float, expires: float) -> Unit[None]:
    """Open a session."""
    yield from later("add_upload", identifier, repository, algorithm, now, expires)


async def find(metadata: Metadata, repository: str, identifier: str, now: float) -> UploadSession:
    """The session as of now; raises ``BlobUploadUnknown``."""
    rows = await metadata.fetch("upload", identifier, repository, now)
    if not rows:
        raise unknown(repository, identifier)
    algorithm, received, digest = rows[0]
    return UploadSession(repository, identifier, algorithm, received, Digest(digest) if digest else None)


async def find_whole(
    metadata: Metadata, repository: str, identifier: str, now: float
) -> tuple[UploadSession, list[Key]]:
    """The session as of now, and the keys of what it received, in order; raises ``BlobUploadUnknown``."""
    rows = await metadata.fetch("upload_with_segments", identifier, repository, now)
    if not rows:
        raise unknown(repository, identifier)
    algorithm, received, digest, _ = rows[0]
    session = UploadSession(repository, identifier, algorithm, received, Digest(digest) if digest else None)
    return session, [key for *_, key in rows if key is not None]


async def segments(metadata: Metadata, identifier: str) -> list[tuple[Key, int]]:
    """``(key, size)`` of what a session received, in order."""
    return [(key, size) for key, size in await metadata.fetch("segments", identifier)]


def append(session: UploadSession, key: Key | None, size: int, digest: Digest | None, expires: float) -> Unit[None]:
    """Move a session on by one segment (none for an empty chunk).

    Raises ``BlobUploadRangeInvalid`` if another request moved it first, ``BlobUploadUnknown`` if it is closed,
    ``QuotaExceeded``.
    """
    received = session.received + size
    members, new, moved = yield from together(
        [
            ("quotas_of", (session.repository,)),
            ("quotas_of_new", (session.repository,)),
            (
                "advance_upload",
                (session.id, session.repository, session.received, received, digest, expires),
            ),
        ]
    )
    if not moved:
        yield from _lost(session)
    if key is not None:
        yield from quotas.receive(session.repository, members, new, size)
        yield from later("add_segment", session.id, session.received, size, key)


def finish(
    session: UploadSession, digest: Digest, size: int, key: Key, spare: Sequence[Key], change: Change
) -> Unit[bool]:
    """Turn a session into a blob of ``size`` bytes under ``key``; ``spare`` keys are doomed. True if any bytes were.

    Raises as ``append`` does.
    """
    closed, *answers = yield from together(
        [
            ("close_upload", (session.id, session.repository, session.received)),
            *blobs.to_add(session.repository, digest, size, key, change),
        ]
    )
    if not closed:
        yield from _lost(session)
    yield from later("delete_segments", session.id)
    for each in spare:
        yield from later("doom", each, change.at)
    yield from quotas.drop(session.repository, session.received)
    again = yield from blobs.added(answers, session.repository, digest, size, key, change, received=session.received)
    return again or bool(spare)


def cancel(repository: str, identifier: str, now: float) -> Unit[None]:
    """Close a session and doom what it received; raises ``BlobUploadUnknown``."""
    row = yield from one("cancel_upload", identifier, repository)
    if row is None:
        raise unknown(repository, identifier)
    yield from quotas.drop(repository, row[0])
    yield from later("leave_quotas", repository)
    for (key,) in (yield from run("delete_segments", identifier)):
        yield from later("doom", key, now)


def expire(now: float, most: int) -> Unit[int]:
    """Cancel up to ``most`` sessions whose time is over; returns how many."""
    expired = yield from run("expired_uploads", now, most)
    for identifier, repository in expired:
        yield from cancel(repository, identifier, now)
    return len(expired)


def _lost(session: UploadSession) -> Unit[None]:
    row = yield from one("upload", session.id, session.repository, 0.0)
    if row is None:
        raise session.unknown()
    raise out_of_order(row[1], session.received)
