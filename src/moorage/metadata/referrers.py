"""Facts about referrers, and the fallback tags (``sha256-…``) that stay true by them.

Clients that do not trust the referrers API keep an index under a fallback tag, by read, change, write: two of them
at once lose one's entry. Here the tag is moved on, in the same transaction, to an index that also lists what the
registry knows; the bytes as pushed stay under their digest.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from moorage.metadata import manifests, tags
from moorage.metadata.base import Metadata, Row, Unit, made, one, run
from moorage.metadata.events import Change
from moorage.spec import digest as digests
from moorage.spec.descriptor import Descriptor
from moorage.spec.digest import Digest
from moorage.spec.manifest import OCI_INDEX, Facts, parse
from moorage.spec.names import fallback_subject_prefix, fallback_tag

_AFTER_HEX = "g"
_LARGEST = 3 * 1024 * 1024  # bytes of annotations in a page: clients take an index of 4 MiB


class _Entry(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """A ``Descriptor`` whose annotations are JSON already."""

    media_type: str
    digest: str
    size: int
    annotations: msgspec.Raw | None = None
    artifact_type: str | None = None


class _Index(msgspec.Struct):
    """What ``page`` gives, read again."""

    manifests: list[Descriptor]


async def page(
    metadata: Metadata, repository: str, subject: Digest, artifact_type: str | None, last: str, limit: int
) -> tuple[bytes, str | None]:
    """An OCI index, as JSON, of up to ``limit`` referrers of ``subject`` whose digest comes after ``last``.

    With it comes the digest after which there are more, None if there are none.
    """
    tag = fallback_tag(subject)
    index, more = await made(
        metadata, _index, "page_referrers", repository, subject, tag, last, artifact_type, limit + 1
    )
    return index, more


def listed(index: bytes) -> list[Descriptor]:
    """The referrers that are in what ``page`` gave."""
    return msgspec.json.decode(index, type=_Index).manifests


def _index(rows: Sequence[Row], parameters: tuple[Any, ...]) -> Row:
    """A page of the rows of one more than are asked for, which tells whether there are more."""
    entries: list[_Entry] = []
    room = _LARGEST
    for digest, media_type, size, artifact_type, annotations in rows[: parameters[-1] - 1]:
        notes = annotations.encode() if annotations else b""
        room -= len(notes)
        if room < 0 and entries:
            break
        entries.append(_Entry(media_type, digest, size, msgspec.Raw(notes) if notes else None, artifact_type))
    more = entries[-1].digest if len(rows) > len(entries) > 0 else None
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), more


def is_list(facts: Facts, pushed_tags: Sequence[str]) -> bool:
    """Whether this is a referrers list: an index that only fallback tags name."""
    return facts.media_type == OCI_INDEX and bool(pushed_tags) and all(map(fallback_subject_prefix, pushed_tags))


def without_duties(facts: Facts) -> Facts:
    """The facts of a referrers list, whose references need not be there: it mentions, it does not need."""
    loose = tuple(msgspec.structs.replace(each, required=False) for each in facts.references)
    return msgspec.structs.replace(facts, references=loose)


def merge_subject(
    repository_id: int, repository: str, subject: str, change: Change, *, removed: str | None = None
) -> Unit[None]:
    """Bring the fallback tag of ``subject``, if it has one, up to date."""
    yield from merge_tag(repository_id, repository, fallback_tag(subject), change, removed=removed)


def merge_tag(
    repository_id: int, repository: str, tag: str, change: Change, *, removed: str | None = None
) -> Unit[None]:
    """Let a fallback tag name an index that lists its own entries but ``removed``, and every known referrer."""
    prefix = fallback_subject_prefix(tag)
    if prefix is None:
        return
    row = yield from one("tag_digest", repository_id, tag)
    if row is None or (yield from one("manifest_type", repository_id, row[0])) != (OCI_INDEX,):
        return
    (content,) = (yield from run("manifest_content", repository_id, row[0]))[0]
    document: dict[str, Any] = msgspec.json.decode(content)
    listed: list[dict[str, Any]] = document.get("manifests") or []
    kept = [each for each in listed if each["digest"] != removed]
    seen = {each["digest"] for each in kept}
    known = yield from run("known_referrers", repository_id, prefix, prefix + _AFTER_HEX)
    added = [msgspec.to_builtins(_descriptor(row)) for row in known if row[0] not in seen]
    if not added and len(kept) == len(listed):
        return
    merged = msgspec.json.encode(document | {"manifests": kept + added})
    digest = digests.compute(merged)
    facts = without_duties(parse(merged, OCI_INDEX))
    known_as = yield from manifests.media_type(repository_id, digest)
    yield from manifests.store(
        repository_id, repository, digest, merged, facts, change, known=known_as, only_a_list=True
    )
    yield from tags.move(repository_id, repository, tag, digest, change, before=row[0])


def _descriptor(row: Row) -> Descriptor:
    digest, media_type, size, artifact_type, annotations = row
    return Descriptor(
        media_type=media_type,
        digest=digest,
        size=size,
        artifact_type=artifact_type,
        annotations=msgspec.json.decode(annotations) if annotations else None,
    )
