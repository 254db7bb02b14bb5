"""Facts about manifests."""

from dataclasses import dataclass

import msgspec

from moorage.metadata.base import Metadata, Query, Unit, later, one, run
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import ManifestUnknown
from moorage.spec.manifest import Facts


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest exactly as pushed. ``content`` is None where only its description was asked for.

    ``unheld_since`` is None unless it is to go, since the index or subject that it belonged to went.
    """

    digest: Digest
    media_type: str
    size: int
    content: bytes | None
    unheld_since: float | None = None


def question(repository: str, tag: str | None, digest: Digest | None, *, content: bool = True) -> Query:
    """What ``find`` asks."""
    query = "manifest_by_" if content else "describe_by_"
    return (f"{query}tag", (repository, tag)) if tag is not None else (f"{query}digest", (repository, digest))


async def find(
    metadata: Metadata, repository: str, tag: str | None, digest: Digest | None, *, content: bool = True
) -> StoredManifest:
    """The manifest that a tag or a digest names; raises ``ManifestUnknown``."""
    query, parameters = question(repository, tag, digest, content=content)
    rows = await metadata.fetch(query, *parameters)
    if not rows:
        raise ManifestUnknown(detail={"name": repository, "reference": tag or digest})
    found, media_type, size, *rest = rows[0]
    return StoredManifest(Digest(found), media_type, size, rest[0] if content else None, rest[-1])


def media_type(repository_id: int, digest: str) -> Unit[str | None]:
    """The media type of a manifest that is stored, or None."""
    row = yield from one("manifest_type", repository_id, digest)
    return row[0] if row else None


def store(
    repository_id: int,
    repository: str,
    digest: Digest,
    content: bytes,
    facts: Facts,
    change: Change,
    *,
    known: str | None,
    only_a_list: bool = False,
) -> Unit[None]:
    """Store a manifest and what it references; ``only_a_list`` where it only serves fallback tags.

    ``known`` is the media type under which it is stored already, None if it is not.
    The same bytes under another Content-Type are from now on what that makes of them.
    """
    annotations = msgspec.json.encode(facts.annotations).decode() if facts.annotations else None
    described = (facts.subject, facts.artifact_type, annotations)
    needed: set[str] = set()
    before: set[str] = set()
    if known is None:
        row = (facts.media_type, len(content), *described, change.at, content)
        yield from later("add_manifest", repository_id, digest, *row)
        yield from later("count", repository, len(content), 0, 0)
        if only_a_list:
            yield from later("mark_list", repository_id, digest)
        yield from later("hold_referrers", repository_id, digest)
        yield from change.record("manifest.push", repository, digest=digest)
    elif known != facts.media_type:
        yield from later("set_manifest_facts", repository_id, digest, facts.media_type, *described)
        for child, _, required in (yield from run("children", repository_id, digest)):
            before.add(child)
            if required:
                needed.add(child)
        yield from later("delete_references", repository_id, digest)
        yield from change.record("manifest.push", repository, digest=digest)
    if known and not only_a_list:
        yield from later("keep_manifest", repository_id, digest)
    for each in facts.references:
        required = int(each.required or each.digest in needed)
        yield from later("add_reference", repository_id, digest, each.digest, each.kind, required)
        if each.kind != "manifest":
            yield from later("mark_referenced", repository_id, each.digest)
        if required and each.kind in ("manifest", "content"):
            yield from later("hold_manifest", repository_id, each.digest)
    for child in before:
        yield from later("mark_unreferenced", repository_id, child, change.at)


def let_go(repository_id: int, digest: str, because: str, now: float) -> Unit[None]:
    """A manifest is to go unless a tag, an index or a living subject holds it; ``because`` of what it lost."""
    if (yield from one("holders", repository_id, digest, 1)) is None:
        yield from later("set_unheld", repository_id, digest, now, because)


def renew(repository: str, digest: Digest, now: float) -> Unit[None]:
    """Let the grace of a manifest that is to go start again; raises ``ManifestUnknown`` if it went meanwhile."""
    row = yield from one("repository_id", repository)
    if row is None or (yield from one("manifest_type", row[0], digest)) is None:
        raise ManifestUnknown(detail={"name": repository, "reference": digest})
    yield from later("renew_unheld", row[0], digest, now)
