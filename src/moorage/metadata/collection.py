"""What goes by itself: blobs that nothing references, manifests that nothing holds, repositories that are empty.

Each fact about what may go is kept in the transaction that makes it true, so a step here finds its work in an index.
Everything is looked at once more where it is removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moorage.metadata import blobs, manifest_changes, repositories
from moorage.metadata.base import Metadata, Unit, later, one, run
from moorage.metadata.events import Change
from moorage.storage.base import Key

TURN: Final = 600.0  # seconds that who took on a duty may be silent until another process takes it on


@dataclass(slots=True)
class Collected:
    """How much went: manifests, links of blobs to repositories, and blobs whose bytes are doomed."""

    manifests: int = 0
    links: int = 0
    blobs: int = 0

    def add(self, other: "Collected") -> None:
        self.manifests += other.manifests
        self.links += other.links
        self.blobs += other.blobs

    def __bool__(self) -> bool:
        return bool(self.manifests or self.links)


def collect_blobs(before: float, most: int, change: Change) -> Unit[tuple[int, Collected]]:
    """Take up to ``most`` blobs out of repositories in which nothing has referenced them since ``before``.

    Returns how many were looked at, and what went.
    """
    went = Collected()
    due = yield from run("due_blobs", before, most)
    for repository_id, repository, digest in due:
        if (yield from one("collect_link", repository_id, digest)) is None:  # the fact was wrong
            yield from later("mark_referenced", repository_id, digest)
            continue
        went.links += 1
        yield from later("uncount_blob", repository, digest)
        went.blobs += yield from blobs.doom_if_unlinked(digest, change.at)
        if not repositories.is_past(repository):
            yield from change.record("blob.delete", repository, digest=digest)
    for repository_id in dict.fromkeys(row[0] for row in due):
        yield from repositories.forget(repository_id)
    return len(due), went


def collect_manifests(
    because: str, before: float, most: int, change: Change, *, cascade: bool, bury: bool
) -> Unit[tuple[int, Collected]]:
    """Delete up to ``most`` manifests that have been unheld since ``before`` ``because`` of that; see above."""
    went = Collected()
    due = yield from run("due_manifests", because, before, most)
    for repository_id, repository, digest in due:
        if because == "past":
            yield from manifest_changes.forget(repository_id, repository, digest, change.at)
            yield from repositories.forget(repository_id)
            went.manifests += 1
            continue
        if (yield from one("holders", repository_id, digest, 1)):  # the fact was wrong
            yield from later("hold_manifest", repository_id, digest)
            continue
        if (yield from one("manifest_type", repository_id, digest)):
            yield from manifest_changes.discard(repository_id, repository, digest, change, cascade=cascade, bury=bury)
            went.manifests += 1
    return len(due), went


def sweep_repositories(after: tuple[int, str], most: int, change: Change) -> Unit[tuple[int, str] | None]:
    """Mend what is known wrongly of the links after ``(repository_id, digest)``, and drop empty repositories.

    About ``most`` links are looked at; returns where to go on, None at the end.
    """
    repository_id, last = after
    left = most
    while left > 0:
        rows = yield from run("sweep_links", repository_id, last, left)
        for digest, since, referenced in rows:
            if referenced and since is not None:
                yield from later("mark_referenced", repository_id, digest)
            elif not referenced and since is None:
                yield from later("mark_unreferenced", repository_id, digest, change.at)
        if len(rows) == left:
            return repository_id, rows[-1][0]
        left -= len(rows) + 1
        yield from repositories.forget(repository_id)
        following = yield from one("next_repository", repository_id)
        if following is None:
            return None
        repository_id, last = following[0], ""
    return repository_id, last


def sweep_blobs(after: str, most: int, change: Change) -> Unit[str | None]:
    """Doom the bytes of blobs after ``after`` that no repository holds; returns where to go on, None at the end."""
    rows = yield from run("sweep_blobs", after, most)
    for digest, linked in rows:
        if not linked:
            yield from blobs.doom_if_unlinked(digest, change.at)
    return rows[-1][0] if len(rows) == most else None


def note_unnamed(prefix: str, keys: Sequence[Key], before: float, now: float) -> Unit[int]:
    """Remember the keys below ``prefix`` that storage lists and no fact names.

    Dooms, and counts, those of them that were seen so before ``before`` already.
    """
    doomed = 0
    unnamed = set()
    for key in keys:
        if (yield from one("is_named", key)) is None:
            unnamed.add(key)
    for (key,) in (yield from run("unnamed_between", prefix, prefix + "~")):
        if key not in unnamed:
            yield from later("forget_unnamed", key)
    for key in unnamed:
        since = (yield from run("note_unnamed", key, now))[0][0]
        if since <= before:
            yield from later("doom", key, now)
            yield from later("forget_unnamed", key)
            doomed += 1
    return doomed


async def is_named(metadata: Metadata, key: Key) -> bool:
    """Whether any fact names the bytes under ``key``."""
    return bool(await metadata.fetch("is_named", key))


async def any_unnamed(metadata: Metadata, prefix: str) -> bool:
    """Whether any key below ``prefix`` is remembered as one that no fact names."""
    return bool(await metadata.fetch("unnamed_between", prefix, prefix + "~"))


def claim(duty: str, now: float, interval: float) -> Unit[tuple[str | None] | None]:
    """Take on a duty that is due each ``interval`` seconds; ``(progress,)`` that was made, or None where it is not.

    What is due later than it could be was noted by a clock that was ahead.
    """
    row = yield from one("claim_duty", duty, now + TURN, now, now + interval + TURN)
    return (row[0],) if row else None


def progress(duty: str, made: str | None, due: float) -> Unit[None]:
    """Note how far a duty came (None: it is done) and when it is due again unless more is noted until then."""
    yield from later("move_duty", duty, made, due)
