"""Facts about a storage tree of another registry whose content is taken in where it lies."""

from collections.abc import Sequence

from moorage.metadata import blobs, manifest_changes
from moorage.metadata.base import Metadata, Unit, later, one
from moorage.metadata.events import Change
from moorage.metadata.manifest_changes import Push
from moorage.spec.digest import Digest
from moorage.storage.base import Key

Lying = tuple[Digest, int, Key]  # a blob in the tree, its size and its key


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
    wanted: Push, change: Change, *, lying: Sequence[Lying] = (), names: Sequence[tuple[str, str]] = ()
) -> Unit[None]:
    """``push`` what a tree holds, with links to the blobs that are ``lying`` there; ``names`` are remembered as seen.

    Raises as ``push`` does.
    """
    for each in lying:
        yield from blobs.adopt(wanted.repository, *each, change)
    yield from manifest_changes.push(wanted, change)
    yield from saw(wanted.repository, names)


def saw(repository: str, names: Sequence[tuple[str, str]]) -> Unit[None]:
    """Remember as seen tags and what they named, and manifests, which are named by their digest."""
    for name, digest in names:
        yield from later("note_adopted", repository, name, digest)


def take_in(digest: str, key: Key, into: Key, now: float) -> Unit[bool]:
    """Let the verified bytes under ``into`` stand for those under ``key``; False where no fact needs these."""
    if (yield from one("move_bytes", digest, key, into, now)) is None:
        return False
    yield from later("doom", key, now)  # a backup that was restored holds them itself
    return True
