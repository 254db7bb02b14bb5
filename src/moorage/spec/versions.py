"""The order of tags that are versions; https://semver.org/spec/v2.0.0.html section 11.

Tags are freer than that: a ``v`` may stand before, and minor and patch may be missing (``v1.2``), which then count
as 0.
"""

import re
from typing import Final

_VERSION: Final = re.compile(
    r"v?(0|[1-9]\d*)(?:\.(0|[1-9]\d*))?(?:\.(0|[1-9]\d*))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)
# Whole numbers before words, each among themselves; what has a prerelease before what has none.
Precedence = tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]


def precedence(tag: str) -> Precedence | None:
    """What sorts versions by their precedence, the lowest first; None for a tag that is no version."""
    found = _VERSION.fullmatch(tag)
    if found is None:
        return None
    major, minor, patch = (int(part or 0) for part in found.groups()[:3])
    words = found[4].split(".") if found[4] else []
    numbers = tuple((False, int(word), "") if word.isdigit() else (True, 0, word) for word in words)
    return (major, minor, patch), not words, numbers
