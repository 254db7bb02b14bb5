"""The one transaction that pushes a manifest, and the one that deletes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moorage.metadata import blobs, manifests, quotas, referrers, repositories, tags
from moorage.metadata.base import Query, Unit, later, one, run, together
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import Denied, ManifestBlobUnknown, ManifestUnknown
from moorage.spec.manifest import Facts, Reference
from moorage.spec.preconditions import Precondition


@dataclass(frozen=True, slots=True)
class Push:
    """A manifest on its way in. ``sparse`` holds the kinds of reference that need not be there.

    ``fixed`` says why, of each tag that may not be moved once it names something.
    """

    repository: str
    digest: Digest
    content: bytes
    facts: Facts
    tags: Sequence[str]
    precondition: Precondition
    sparse: frozenset[str]
    fixed: Mapping[str, str] = field(default_factory=dict)


def push(wanted: Push, change: Change) -> Unit[None]:
    """Store a manifest and its tags, all or nothing.

    Raises ``PreconditionFailed``, ``Denied``, ``QuotaExceeded``, and ``ManifestBlobUnknown`` with each missing
    reference.
    """
    repository_id = yield from repositories.make(wanted.repository, create=change.creates)
    only_a_list = referrers.is_list(wanted.facts, wanted.tags)
    facts = referrers.without_duties(wanted.facts) if only_a_list else wanted.facts
    needed = [each for each in facts.references if each.required and each.kind not in wanted.sparse]
    covering, known, *answers = yield from together(
        [
            ("quotas_of", (wanted.repository,)),
            ("manifest_type", (repository_id, wanted.digest)),
            *(("tag_digest", (repository_id, tag)) for tag in wanted.tags),
            *(_presence(repository_id, each) for each in needed),
        ]
    )
    named = {tag: rows[0][0] if rows else None for tag, rows in zip(wanted.tags, answers, strict=False)}
    for reference, current in (named or {wanted.digest: wanted.digest if known else None}).items():
        wanted.precondition.check(reference, current)
        if reference in wanted.fixed and current not in (None, wanted.digest):
            raise Denied(wanted.fixed[reference], detail={"name": wanted.repository, "tag": reference})
    missing = [each for each, rows in zip(needed, answers[len(named) :], strict=True) if not rows]
    if missing:
        details = [{"digest": each.digest, "kind": each.kind, "path": each.path} for each in missing]
        raise ManifestBlobUnknown(details=details)
    asked = quotas.Amount(
        bytes=0 if known else len(wanted.content), tags=sum(before is None for before in named.values())
    )
    for row in covering:
        quotas.quota(row).check(wanted.repository, asked)
    yield from manifests.store(
        repository_id,
        wanted.repository,
        wanted.digest,
        wanted.content,
        facts,
        change,
        known=known[0][0] if known else None,
        only_a_list=only_a_list,
    )
    for tag, before in named.items():
        yield from tags.move(repository_id, wanted.repository, tag, wanted.digest, change, before=before)
        yield from referrers.merge_tag(repository_id, wanted.repository, tag, change)
    if wanted.facts.subject:
        yield from referrers.merge_subject(repository_id, wanted.repository, wanted.facts.subject, change)


def delete(
    repository: str,
    digest: Digest,
    precondition: Precondition,
    change: Change,
    *,
    referenced: bool,
    cascade: bool = True,
    kept: tags.Kept = lambda _: False,
    bury: bool = False,
) -> Unit[None]:
    """Delete a manifest and every tag that names it; see ``discard`` for ``cascade`` and ``bury``.

    Raises ``NameUnknown``, ``ManifestUnknown``, ``PreconditionFailed``, ``Denied`` where a tag that names it is
    ``kept``, and ``InUse`` where an index needs it unless ``referenced`` manifests may go too.
    """
    repository_id = yield from repositories.find(repository)
    known = yield from manifests.media_type(repository_id, digest)
    precondition.check(digest, digest if known else None)
    if known is None:
        raise ManifestUnknown(detail={"name": repository, "reference": digest})
    if not referenced:
        yield from blobs.refuse_if_needed(repository_id, digest)
    yield from discard(repository_id, repository, digest, change, cascade=cascade, bury=bury, kept=kept)


def discard(
    repository_id: int,
    repository: str,
    digest: str,
    change: Change,
    *,
    cascade: bool,
    bury: bool,
    kept: tags.Kept = lambda _: False,
) -> Unit[None]:
    """Delete a manifest that is there, whatever needs it.

    What it was the last to reference may be collected from now on; with ``cascade`` also the untagged manifests that
    were there for its sake: its children and its referrers. With ``bury`` it is kept for the history
    of its repository.
    """
    children, size = (yield from run("children", repository_id, digest)), 0
    if bury:
        subject = yield from _bury(repository_id, repository, digest, change)
    else:
        ((subject, size),) = yield from run("delete_manifest", repository_id, digest)
        yield from later("delete_references", repository_id, digest)
    named = yield from run("delete_tags_of", repository_id, digest)
    yield from later("count", repository, -size, -len(named), 0)
    for (tag,) in named:
        if kept(tag):
            raise tags.immutable(repository, tag)
        yield from change.record("tag.delete", repository, tag=tag, before=digest)
    yield from change.record("manifest.delete", repository, digest=digest)
    if subject:
        yield from referrers.merge_subject(repository_id, repository, subject, change, removed=digest)
    for child, kind, required in children:
        if kind != "manifest" and not bury:
            yield from later("mark_unreferenced", repository_id, child, change.at)
        if cascade and required and kind in ("manifest", "content"):
            yield from manifests.let_go(repository_id, child, "index", change.at)
    if cascade:
        for (referrer,) in (yield from run("referrers_of", repository_id, digest)):
            yield from manifests.let_go(repository_id, referrer, "subject", change.at)


def forget(past_id: int, past: str, digest: str, now: float) -> Unit[None]:
    """Drop a manifest that was kept for the history; its blobs may be collected from now on."""
    children, gone = yield from together([("children", (past_id, digest)), ("delete_manifest", (past_id, digest))])
    for _, size in gone:
        yield from later("count", past, -size, 0, 0)
    yield from later("delete_references", past_id, digest)
    for child, _, _ in children:
        yield from later("mark_unreferenced", past_id, child, now)


def _bury(repository_id: int, repository: str, digest: str, change: Change) -> Unit[str | None]:
    """Move a manifest to the past of its repository, which from now on holds its blobs too; returns its subject."""
    past = repositories.past(repository)
    past_id = yield from repositories.make(past)
    yield from forget(past_id, past, digest, change.at)
    return (yield from move(repository_id, past_id, digest, change.at, "past"))


def move(source: int, target: int, digest: str, now: float, because: str | None) -> Unit[str | None]:
    """Move a manifest between a repository and its past, with links to those of its blobs that the source holds.

    Returns its subject.
    """
    since = now if because else None
    subject: str | None = (yield from run("move_manifest", source, digest, target, since, because))[0][0]
    yield from later("move_references", source, digest, target)
    for child, kind, _ in (yield from run("children", target, digest)):
        if kind != "manifest":
            if (yield from one("has_link", source, child)):
                yield from later("link_blob", target, child, now)
            yield from later("mark_referenced", target, child)
            yield from later("mark_unreferenced", source, child, now)
    return subject


def _presence(repository_id: int, reference: Reference) -> Query:
    """What has rows if the repository holds what is referenced."""
    query = {"manifest": "manifest_type", "content": "is_held"}.get(reference.kind, "is_linked")
    return query, (repository_id, reference.digest)
