"""Repository names, tags, and the tags that stand in for a referrers list."""

import re
from typing import Final

from moorage.spec.digest import Digest
from moorage.spec.errors import Denied, ManifestUnknown, NameInvalid, TagInvalid
from moorage.spec.moments import as_of

# Spec "Pulling manifests": both expressions, and the length that clients take.
REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
REPOSITORY_LONGEST: Final = 255

# Spec "Referrers Tag Schema": the algorithm, a dash, and at most 64 characters of the encoded part.
FALLBACK_TAG: Final = re.compile(r"(sha256|sha512|blake3)-([a-f0-9]{64})")
_FALLBACK_ALGORITHM, _FALLBACK_ENCODED = 32, 64


def check_repository(name: str) -> str:
    """``name`` if it is a repository name; raises ``NameInvalid``."""
    if len(name) > REPOSITORY_LONGEST or not REPOSITORY.fullmatch(name):
        raise NameInvalid(
            detail={
                "name": name[: REPOSITORY_LONGEST + 1],
                "allowed": f"at most {REPOSITORY_LONGEST} characters, {REPOSITORY.pattern}",
            }
        )
    return name


def check_new(name: str) -> str:
    """``name`` if a repository may bear it; raises ``NameInvalid``, or ``Denied`` for one that asks for the past."""
    if as_of(check_repository(name)):
        raise Denied("names that begin with a moment are for pulling what stood then", detail={"name": name})
    return name


def check_tag(tag: str) -> str:
    """``tag`` if it is a tag; raises ``TagInvalid``."""
    if not TAG.fullmatch(tag):
        raise TagInvalid(detail={"tag": tag[:256], "allowed": TAG.pattern})
    return tag


def parse_reference(reference: str) -> tuple[str | None, Digest | None]:
    """``(tag, None)`` or ``(None, digest)``; raises ``DigestInvalid``, or ``ManifestUnknown`` for a malformed tag.

    A malformed tag names nothing that could be there, and the specification wants 404 for what is not there.
    """
    if ":" in reference:
        return None, Digest.parse(reference)
    if not TAG.fullmatch(reference):
        raise ManifestUnknown("not a tag or digest", detail={"reference": reference[:256], "allowed": TAG.pattern})
    return reference, None


def fallback_tag(digest: str) -> str:
    """The tag under which clients keep the referrers list of ``digest``; spec "Referrers Tag Schema"."""
    algorithm, _, encoded = digest.partition(":")
    tag = f"{algorithm[:_FALLBACK_ALGORITHM]}-{encoded[:_FALLBACK_ENCODED]}"
    return re.sub(r"[^a-zA-Z0-9._-]", "-", tag)


def fallback_subject_prefix(tag: str) -> str | None:
    """What the digest of the subject of a fallback tag starts with, or None for any other tag."""
    found = FALLBACK_TAG.fullmatch(tag)
    return f"{found[1]}:{found[2]}" if found else None
