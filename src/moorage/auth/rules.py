"""Rules: who x repositories x actions. A rule that denies wins; what no rule allows is denied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moorage.auth.base import Decision, Identity
from moorage.spec.actions import Action
from moorage.spec.names import REPOSITORY
from moorage.spec.patterns import EVERYTHING, matches

EVERYBODY: Final = "*"
LOCAL: Final = "local"
NOBODY: Final = "anonymous"
RESERVED: Final = frozenset({EVERYBODY, LOCAL, NOBODY})
USER: Final = "{user}"
ANONYMOUS_ACTIONS: Final = frozenset({Action.PULL, Action.CATALOG})
_MOST: Final = 20_000  # decisions remembered

Decisions = dict[Action, Decision]
_UNRULED: Final = Decision(False, "no rule allows it")


@dataclass(frozen=True, slots=True)
class Rule:
    """``who`` are names of identities, ``@group``, ``*`` (whoever has shown who he is), ``local`` or ``anonymous``.

    In ``repositories`` (patterns) ``{user}`` is the identity's name, where that can be a component of a repository's.
    ``source`` says where the rule stands.
    """

    who: tuple[str, ...]
    repositories: tuple[str, ...]
    actions: frozenset[Action]
    allow: bool = True
    source: str = ""

    def __str__(self) -> str:
        actions = ",".join(each for each in Action if each in self.actions)
        words = f"{'allow' if self.allow else 'deny'} {','.join(self.who)} {actions} {','.join(self.repositories)}"
        return f"{words} ({self.source})" if self.source else words

    def concerns(self, identity: Identity) -> bool:
        """Whether ``identity`` is among ``who``."""
        if identity.name in self.who or any(f"@{group}" in self.who for group in identity.groups):
            return True
        return identity.name != NOBODY and (EVERYBODY in self.who or (identity.local and LOCAL in self.who))


DEFAULT: Final = Rule(
    (LOCAL,),
    (EVERYTHING,),
    frozenset({Action.PULL, Action.PUSH, Action.CREATE, Action.RETAG, Action.DELETE, Action.CATALOG}),
    source="default",
)


class Rules:
    """An ``Authorizer`` that never changes; without any rule ``DEFAULT`` holds."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules) or (DEFAULT,)
        self._known: dict[tuple[Identity, str | None], Decisions] = {}

    async def authorize(
        self,
        identity: Identity,
        action: Action,
        repository: str | None,
        tag: str | None = None,  # noqa: ARG002  rules are about repositories
    ) -> Decision:
        return self.decide(identity, action, repository)

    def decide(self, identity: Identity, action: Action, repository: str | None) -> Decision:
        """``authorize``, without waiting."""
        known = self._known.get((identity, repository))
        if known is None:
            known = self._decide(identity, repository)
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[identity, repository] = known
        return known[action]

    def _decide(self, identity: Identity, repository: str | None) -> Decisions:
        concerned = [each for each in self.rules if each.concerns(identity)]
        found = {action: _by_rules(concerned, identity, action, repository) for action in Action}
        if repository is not None:
            _list_only_what_is_pulled(found)
        if identity.scope is not None:
            found = {action: _by_scope(each, identity, action, repository) for action, each in found.items()}
            if repository is not None and identity.scope_grants:
                _list_only_what_is_pulled(found)
        return found


def _list_only_what_is_pulled(found: Decisions) -> None:
    if found[Action.CATALOG].allowed and not found[Action.PULL].allowed:
        found[Action.CATALOG] = found[Action.PULL]


def _by_rules(rules: Sequence[Rule], identity: Identity, action: Action, repository: str | None) -> Decision:
    if identity.name == NOBODY and action not in ANONYMOUS_ACTIONS:
        return Decision(False, "anonymous may pull and list at most")
    allowing = None
    for rule in rules:
        if action not in rule.actions or not _covers(rule, identity, action, repository):
            continue
        if not rule.allow:
            return Decision(False, str(rule))
        allowing = allowing or rule
    if allowing:
        return Decision(True, str(allowing))
    return _UNRULED


def _covers(rule: Rule, identity: Identity, action: Action, repository: str | None) -> bool:
    if repository is not None:
        return matches(repository, _patterns(rule.repositories, identity.name))
    # The catalog may be asked for by whoever may find anything in it; what concerns all needs a rule about all.
    return EVERYTHING in rule.repositories or (action is Action.CATALOG and rule.allow)


def _patterns(patterns: Sequence[str], name: str) -> list[str]:
    fits = bool(REPOSITORY.fullmatch(name)) and "/" not in name
    return [each.replace(USER, name) for each in patterns if fits or USER not in each]


def _by_scope(ruled: Decision, identity: Identity, action: Action, repository: str | None) -> Decision:
    assert identity.scope is not None  # noqa: S101  the caller looked
    for grant in identity.scope:
        if action not in grant.actions:
            continue
        everywhere = grant.repositories == EVERYTHING or action is Action.CATALOG
        if everywhere if repository is None else matches(repository, (grant.repositories,)):
            if identity.scope_grants and ruled is _UNRULED:
                return Decision(True, f"granted by the {identity.method} itself")
            return ruled
    return Decision(False, f"outside the scope of the {identity.method}")
