"""The words in which rules and scopes are written, checked."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from moorage.auth.base import Grant
from moorage.auth.rules import ANONYMOUS_ACTIONS, NOBODY, RESERVED, USER, Rule
from moorage.spec.actions import Action

KEY_IDENTITY: Final = "key:"
ALL: Final = "*"
_ALL: Final = frozenset(Action) - {Action.ADMIN}
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,127}")
_WHO: Final = re.compile(r"@?[A-Za-z0-9_][^\s,]{0,254}|\*")
_PATTERN: Final = re.compile(r"(?:[a-z0-9._/*-]|\{user\})+")
_NAME_ALLOWED: Final = "up to 128 letters, digits and . _ @ + -, with a letter, a digit or _ first"


def check_name(name: str) -> str:
    """``name`` if a user, a group or a key may be called so; raises ``ValueError``."""
    if name in RESERVED:
        raise ValueError(f"the name {name!r} has a meaning of its own in rules")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:128]!r} is no name; allowed: {_NAME_ALLOWED}")
    return name


def is_word(name: str) -> bool:
    """Whether rules mean somebody else by ``name`` than an identity that is called so."""
    return name in RESERVED or name.startswith(("@", KEY_IDENTITY))


def make_rule(
    who: Sequence[str], repositories: Sequence[str], actions: Sequence[str], *, allow: bool, source: str = ""
) -> Rule:
    """The rule of these words; raises ``ValueError`` naming the word that is wrong, and what is allowed."""
    for each in who:
        if not _WHO.fullmatch(each):
            raise ValueError(f"who = {each!r}: allowed: a name, @group, * (whoever is known), local, anonymous")
    wanted = read_actions(actions)
    if allow and NOBODY in who and ALL not in actions and (more := wanted - ANONYMOUS_ACTIONS):
        raise ValueError(f"{NOBODY} may not be granted {', '.join(sorted(more))}; allowed: pull, catalog")
    if not (who and repositories and wanted):
        raise ValueError("allowed: a rule names who, repositories and actions")
    return Rule(tuple(who), tuple(_check_pattern(each) for each in repositories), wanted, allow, source)


def read_actions(words: Iterable[str]) -> frozenset[Action]:
    """The actions of these names, ``*`` being all but ``admin``; raises ``ValueError``."""
    found: set[Action] = set()
    for word in words:
        try:
            found |= _ALL if word == ALL else {Action(word)}
        except ValueError:
            raise ValueError(f"action {word!r}: allowed: {', '.join(Action)}, * (all but admin)") from None
    return frozenset(found)


def read_scope(words: Iterable[str]) -> tuple[Grant, ...]:
    """The grants of ``PATTERN:ACTION,ACTION…`` each; raises ``ValueError``."""
    grants = []
    for word in words:
        pattern, colon, actions = word.partition(":")
        if not colon or not actions:
            raise ValueError(f"scope {word!r}: allowed: PATTERN:ACTION,ACTION, like team-a/**:pull,push")
        grants.append(Grant(_check_pattern(pattern), read_actions(actions.split(","))))
    return tuple(grants)


def write_scope(scope: Iterable[Grant]) -> list[str]:
    """The words that ``read_scope`` reads."""
    return [f"{each.repositories}:{','.join(a for a in Action if a in each.actions)}" for each in scope]


def _check_pattern(pattern: str) -> str:
    if not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"repositories {pattern!r}: allowed: names with * and **, and {USER}, like team-a/** or {USER}/*"
        )
    return pattern
