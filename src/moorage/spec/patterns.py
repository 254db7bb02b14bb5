"""Patterns of repository names: ``team-a/**``, ``*/base``."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

EVERYTHING = "**"
_PART = re.compile(r"\*\*/|\*\*|\*|[^*]+")


@lru_cache(maxsize=4096)
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(_PART.findall(pattern))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of ``patterns`` matches ``name`` whole.

    ``*`` stands for any characters within one component, ``**`` for one or more characters of any kind; ``**/`` for
    any number of components, none too. Everything else stands for itself.
    """
    return any(name == each or _matches(name, _parts(each)) for each in patterns)


def _matches(name: str, parts: Sequence[str]) -> bool:
    # All places that a part may end are followed at once: a regular expression would try one after the other, which
    # takes for ever with a dozen asterisks.
    ends = {0}
    for part in parts:
        if part == "**":
            ends = set(range(min(ends) + 1, len(name) + 1))
        elif part == "**/":
            first = min(ends)
            ends |= {at for at in range(first + 2, len(name) + 1) if name[at - 1] == "/"}
        elif part == "*":
            ends = {at for end in ends for at in range(end, _component_end(name, end) + 1)}
        else:
            ends = {end + len(part) for end in ends if name.startswith(part, end)}
        if not ends:
            return False
    return len(name) in ends


def _component_end(name: str, start: int) -> int:
    end = name.find("/", start)
    return len(name) if end < 0 else end
