"""Patterns of repository names: ``team-a/**``, ``*/base``."""

import re
from collections.abc import Iterable
from functools import lru_cache

EVERYTHING = "**"
_PART = re.compile(r"\*\*/|\*\*|\*|[^*]+")


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> re.Pattern[str]:
    """What ``pattern`` matches, for ``fullmatch``.

    ``*`` stands for any characters within one component, ``**`` for any characters at all; ``**/`` for any number of
    components, none too. Everything else stands for itself.
    """
    words = {"**/": "(?:.+/)?", "**": ".+", "*": "[^/]*"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in _PART.findall(pattern)))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of ``patterns`` matches ``name`` whole."""
    return any(matcher(each).fullmatch(name) for each in patterns)
