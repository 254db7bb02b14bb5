"""What a retention rule does not keep goes, unless it changed since it was looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from moorage.metadata import manifests
from moorage.metadata.base import Metadata, Unit, later, one, run
from moorage.metadata.events import Change


@dataclass(frozen=True, slots=True)
class TagFacts:
    """A tag, what it names, and when (seconds since 1970) it was pushed and that was pulled."""

    name: str
    digest: str
    pushed_at: float
    pulled_at: float | None


@dataclass(frozen=True, slots=True)
class Removal:
    """A tag, or without one an untagged manifest, that no rule keeps, and why; ``pushed_at`` is the tag's."""

    repository: str
    tag: str | None
    digest: str
    pushed_at: float
    reason: str


async def tags_of(metadata: Metadata, repository: str) -> list[TagFacts]:
    """Every tag of a repository."""
    return [TagFacts(*row) for row in await metadata.fetch("retention_tags", repository)]


def remove(removals: Sequence[Removal], change: Change) -> Unit[int]:
    """Take tags away, and let manifests go that nothing holds then; returns how many of the removals still stood."""
    done = 0
    for each in removals:
        row = yield from one("repository_id", each.repository)
        if row is None:
            continue
        why = replace(change, reason=each.reason)
        if each.tag is not None:
            if (yield from one("tag_as_seen", row[0], each.tag, each.digest, each.pushed_at)) is None:
                continue
            yield from later("delete_tag", row[0], each.tag)
            yield from later("count", each.repository, 0, -1, 0)
            yield from why.record("tag.delete", each.repository, tag=each.tag, before=each.digest)
        yield from manifests.let_go(row[0], each.digest, "retention", change.at)
        done += 1
    return done


def note_pulls(pulls: Sequence[tuple[str, str, float]]) -> Unit[None]:
    """Remember when manifests were last pulled: ``(repository, digest, seconds since 1970)``."""
    for repository, digest, at in pulls:
        yield from run("note_pull", repository, digest, at)
