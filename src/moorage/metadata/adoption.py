"""Facts about a storage tree of another registry whose content is taken in where it lies."""

from collections.abc import Sequence

from moorage.metadata import manifest_changes, repositories
from moorage.metadata.base import Metadata, Query, Unit, later, one, together
from moorage.metadata.events import Change
from moorage.metadata.manifest_changes import Push
from moorage.storage.base import Key

Seen = tuple[str, str]  # a tag and what it named, or a manifest's digest twice


async def seen(metadata: Metadata, repository: str) -> dict[str, str]:
    """What was seen in ``repository`` of the tree, whatever became of it here: each name with its digest."""
    return dict(await metadata.fetch("adopted", repository))


async def tree(metadata: Metadata) -> str | None:
    """Where the tree is that bytes are read from, if there is one."""
    rows = await metadata.fetch("adopted_trees")
    return rows[0][0] if rows else None


def begin(place: str, now: float) -> Unit[None]:
    """State where the tree is, before any fact needs it."""
    yield from later("forget_adopted_trees")
    yield from later("add_adopted_tree", place, now)


def adopt(
    wanted: Push, change: Change, *, blobs: Sequence[tuple[str, int, Key]] = (), names: Sequence[Seen] = ()
) -> Unit[None]:
    """``push`` what a tree holds, with links to ``blobs`` (digest, size, key) whose bytes stay there.

    ``names`` are remembered as seen. Raises as ``push`` does.
    """
    repository_id = yield from repositories.make(wanted.repository)
    asked: list[Query] = []
    for digest, size, key in blobs:
        asked.append(("add_blob_in_tree", (digest, size, key, change.at)))
        asked.append(("link_blob", (repository_id, digest, change.at)))
    answers = (yield from together(asked)) if asked else []
    for (digest, *_), linked in zip(blobs, answers[1::2], strict=True):
        if linked:
            yield from change.record("blob.mount", wanted.repository, digest=digest)
    yield from manifest_changes.push(wanted, change)
    yield from saw(wanted.repository, names)


def saw(repository: str, names: Sequence[Seen]) -> Unit[None]:
    """Remember ``names`` as seen."""
    for name, digest in names:
        yield from later("note_adopted", repository, name, digest)


def take_in(digest: str, key: Key, into: Key, now: float) -> Unit[bool]:
    """Let the verified bytes under ``into`` stand for those under ``key``; False where no fact needs these."""
    if (yield from one("move_bytes", digest, key, into, now)) is None:
        return False
    yield from later("doom", key, now)  # a backup that was restored holds them itself
    return True
