"""The past of tags, and how they are set back."""

from dataclasses import dataclass

from moorage.metadata import manifest_changes, quotas, referrers, repositories, tags
from moorage.metadata.base import Metadata, Unit, later, one, run
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import Denied, ManifestBlobUnknown, ManifestUnknown


@dataclass(frozen=True, slots=True)
class TagChange:
    """What happened to a tag: it named ``before`` until ``at`` (seconds since 1970) and ``after`` from then on.

    Either is None where it named nothing. ``seq`` counts all events.
    """

    seq: int
    at: float
    actor: str
    action: str
    tag: str
    before: str | None
    after: str | None
    reason: str | None


async def page(
    metadata: Metadata, repository: str, tag: str | None, before: tuple[float, int], limit: int
) -> list[TagChange]:
    """Up to ``limit`` changes of a tag (None: of all), the latest first, before the one of ``(at, seq)``."""
    if tag is None:
        rows = await metadata.fetch("tags_history", repository, *before, limit)
    else:
        rows = await metadata.fetch("tag_history", repository, tag, *before, limit)
    return [TagChange(*row) for row in rows]


def restore(
    repository: str, tag: str, digest: Digest, change: Change, sparse: frozenset[str], fixed: str | None = None
) -> Unit[None]:
    """Let ``tag`` name ``digest``; if that was deleted it comes back, with all that its going took along.

    ``fixed`` says why a tag that names something else may not be moved, if it may not.
    Raises ``ManifestUnknown`` where neither the repository nor its past has it, ``ManifestBlobUnknown`` where
    something that it needs is gone for good, ``Denied``, ``QuotaExceeded``.
    """
    repository_id = yield from repositories.make(repository, create=change.creates)
    current = yield from one("tag_digest", repository_id, tag)
    if current is None:
        for covering in (yield from run("quotas_of", repository)):
            quotas.quota(covering).check(repository, quotas.Amount(tags=1))
    if fixed and current not in (None, (digest,)):
        raise Denied(fixed, detail={"name": repository, "tag": tag})
    row = yield from one("repository_id", repositories.past(repository))
    yield from bring_back(repository_id, row[0] if row else None, repository, digest, change, sparse)
    before = current[0] if current else None
    yield from tags.move(repository_id, repository, tag, digest, change, before=before)
    yield from referrers.merge_tag(repository_id, repository, tag, change)


def bring_back(
    repository_id: int, past_id: int | None, repository: str, digest: Digest, change: Change, sparse: frozenset[str]
) -> Unit[None]:
    if (yield from one("manifest_type", repository_id, digest)):
        return
    if past_id is None or (yield from one("manifest_type", past_id, digest)) is None:
        raise ManifestUnknown(detail={"name": repository, "reference": digest})
    subject = yield from manifest_changes.move(past_id, repository_id, digest, change.at, None)
    missing = []
    for child, kind, required in (yield from run("children", repository_id, digest)):
        if kind != "manifest" and (yield from one("is_linked", repository_id, child)):
            continue
        if kind in ("manifest", "content") and required:
            try:
                yield from bring_back(repository_id, past_id, repository, Digest(child), change, sparse)
                yield from later("hold_manifest", repository_id, child)
                continue
            except ManifestUnknown:
                pass
        if required and kind not in sparse:
            missing.append({"digest": child, "kind": kind})
    if missing:
        raise ManifestBlobUnknown(details=missing)
    yield from later("hold_referrers", repository_id, digest)
    yield from change.record("manifest.push", repository, digest=digest)
    if subject:
        yield from referrers.merge_subject(repository_id, repository, subject, change)
    for (referrer,) in (yield from run("referrers_of", past_id, digest)):
        yield from bring_back(repository_id, past_id, repository, Digest(referrer), change, sparse)
