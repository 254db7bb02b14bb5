"""Releases: tags of several repositories that go live together, as clients describe them."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from moorage.spec.digest import Digest
from moorage.spec.errors import RegistryError, ReleaseInvalid
from moorage.spec.names import TAG, check_new, check_tag, fallback_subject_prefix

ABSENT: Final = "absent"  # what a tag names that is not there
MOST_CHANGES: Final = 256  # one transaction makes them all while every other push waits
LARGEST: Final = 256 * 1024  # bytes of a description; 256 changes of the longest names and SHA-256 take 200 KiB
NAME: Final = TAG


class TagMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A tag that is to name ``digest``, or to go (``ABSENT``).

    ``expected`` is what it must name before, or ``ABSENT``; None leaves that open.
    """

    repository: str
    tag: str
    digest: str
    expected: str | None = None


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A release as it is asked for; a ``draft`` only holds its manifests."""

    changes: list[TagMove]
    name: str | None = None
    draft: bool = False


def check_name(name: str) -> str:
    """``name`` if a release can bear it; raises ``ReleaseInvalid``."""
    if not NAME.fullmatch(name):
        raise ReleaseInvalid("a release is named as a tag is", detail={"name": name[:256], "allowed": NAME.pattern})
    return name


def parse(content: bytes, name: str | None = None, *, toml: bool = False) -> tuple[str, Wanted]:
    """The name and the content of a release that is described in JSON, or in TOML.

    It may bear its name itself, which must be ``name`` where that is given. Raises ``ReleaseInvalid``.
    """
    try:
        found = msgspec.toml.decode(content, type=Wanted) if toml else msgspec.json.decode(content, type=Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why, _, path = str(error).partition(" - at `")
        raise _invalid(path.rstrip("`") or "$", why) from error
    if name is None and found.name is None:
        raise _invalid("$.name", "the release needs a name")
    if None not in (name, found.name) and name != found.name:
        raise _invalid("$.name", "it is asked for under another name", name=str(found.name)[:256])
    return check_name(name or found.name or ""), msgspec.structs.replace(found, changes=checked(found.changes))


def checked(changes: Sequence[TagMove]) -> list[TagMove]:
    """The changes in the order of their tags; raises ``ReleaseInvalid`` that says which cannot be, and why."""
    if not 1 <= len(changes) <= MOST_CHANGES:
        raise _invalid("$.changes", f"allowed: 1 to {MOST_CHANGES} changes", given=len(changes))
    seen = set()
    for n, each in enumerate(changes):
        try:
            check_new(each.repository)
            check_tag(each.tag)
            for digest in (each.digest, each.expected):
                if digest not in (None, ABSENT):
                    Digest.parse(digest or "")
        except RegistryError as error:
            raise _invalid(f"$.changes[{n}]", error.text, **(error.details[0] or {})) from error
        if fallback_subject_prefix(each.tag):
            raise _invalid(f"$.changes[{n}]", "the registry itself moves this tag", tag=each.tag)
        if (each.repository, each.tag) in seen:
            raise _invalid(f"$.changes[{n}]", "the tag is changed twice", name=each.repository, tag=each.tag)
        seen.add((each.repository, each.tag))
    return sorted(changes, key=lambda each: (each.repository, each.tag))


def _invalid(path: str, why: str, **more: Any) -> ReleaseInvalid:
    return ReleaseInvalid(detail={"path": path, "reason": why, **more})
