"""The headers that carry rules: ranges, preconditions, links, warnings; RFC 9110, RFC 8288."""

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlencode

from moorage.spec.errors import BlobUploadInvalid, RangeInvalid

# Spec "Pushing a blob in chunks": both ends inclusive, no unit.
_CONTENT_RANGE: Final = re.compile(r"([0-9]{1,18})-([0-9]{1,18})", re.ASCII)
_BYTE_RANGE: Final = re.compile(r"\s*(?:([0-9]{1,99})-([0-9]{0,99})|-([0-9]{1,99}))\s*", re.ASCII)
_ENTITY_TAG: Final = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)')
_MOST_RANGES: Final = 32
# Of two values a proxy in front of us may go by the one, and we by the other.
_ONCE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-range",
        b"content-type",
        b"expect",
        b"host",
        b"if-range",
        b"origin",
        b"range",
        b"sec-fetch-site",
    }
)
# Spec "Warnings": all of them together.
WARNINGS_LONGEST: Final = 4096

Span = tuple[int, int]


def repeat(headers: dict[bytes, bytes], name: bytes, value: bytes) -> bool:
    """Take a further value of a header that is there, as more of one list; False where a header may come only once.

    RFC 9110 section 5.3.
    """
    if name in _ONCE:
        return False
    headers[name] += b", " + value
    return True


def content_range(header: str) -> Span:
    """``(first, stop)`` of a chunk, stop exclusive; raises ``BlobUploadInvalid``."""
    found = _CONTENT_RANGE.fullmatch(header)
    if not found or int(found[1]) > int(found[2]):
        raise BlobUploadInvalid(
            "malformed Content-Range",
            detail={"Content-Range": header[:128], "allowed": "<first>-<last>, both inclusive"},
        )
    return int(found[1]), int(found[2]) + 1


def byte_ranges(header: str, size: int) -> list[Span] | None:
    """The spans ``(start, stop)`` that a ``Range`` asks for, in its order; None to send the whole content.

    RFC 9110 section 14.2. An unknown unit is ignored, as are more ranges than anyone needs and ranges that together
    ask for more than the whole. Raises ``RangeInvalid`` (416) when malformed or when none lies in the content.
    """
    unit, equals, asked = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    spans: list[Span] = []
    parts = [part for part in asked.split(",") if part.strip()]
    for part in parts:
        found = _BYTE_RANGE.fullmatch(part)
        if not found or (found[2] and int(found[1]) > int(found[2])):
            raise _unsatisfiable(header, size, "malformed range")
        if found[3]:
            start, stop = max(0, size - int(found[3])), size
        else:
            start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
        if start < stop:
            spans.append((start, stop))
    if not spans:
        raise _unsatisfiable(header, size, "the range is not in the content")
    if len(parts) > _MOST_RANGES or (len(spans) > 1 and sum(b - a for a, b in spans) > size):
        return None
    return spans


def _unsatisfiable(header: str, size: int, why: str) -> RangeInvalid:
    return RangeInvalid(
        why, detail={"Range": header[:128], "size": size}, headers={"Content-Range": f"bytes */{size}"}
    )


def entity_tags(header: str) -> frozenset[str] | None:
    """The strong entity tags listed, without quotes; None for ``*``. What is malformed matches nothing."""
    if header.strip() == "*":
        return None
    return frozenset(tag for weak, tag in _ENTITY_TAG.findall(header) if not weak)


def weak_entity_tags(header: str) -> frozenset[str] | None:
    """As ``entity_tags``, for the weak comparison that ``If-None-Match`` uses on reads (RFC 9110 section 13.1.2)."""
    if header.strip() == "*":
        return None
    return frozenset(tag for _, tag in _ENTITY_TAG.findall(header))


def next_link(path: str, query: Iterable[tuple[str, str | int]]) -> str:
    """A ``Link`` to the next page; RFC 8288, spec "Listing Tags"."""
    return f'<{path}?{urlencode(list(query))}>; rel="next"'


def warnings(texts: Sequence[str]) -> list[str]:
    """``Warning`` header values, as many as fit into 4,096 bytes; spec "Warnings"."""
    values: list[str] = []
    room = WARNINGS_LONGEST
    for text in texts:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        value = f'299 - "{quoted}"'
        room -= len(value.encode())
        if room < 0:
            break
        values.append(value)
    return values
