"""Scopes of the token flow: ``repository:team/app:pull,push``, ``registry:catalog:*``."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moorage.auth.base import Grant
from moorage.spec.actions import Action
from moorage.spec.names import REPOSITORY
from moorage.spec.patterns import EVERYTHING

Words = Mapping[str, frozenset[Action]]

_REPOSITORY: Final = "repository"
_CATALOG: Final = ("registry", "catalog")
_PUSH: Final = frozenset({Action.PUSH, Action.CREATE, Action.RETAG})
# What clients say. They know no word for making a repository or moving a tag: whoever pushes may ask for both.
ASKED: Final[Words] = {
    "pull": frozenset({Action.PULL}),
    "push": _PUSH,
    "delete": frozenset({Action.DELETE}),
    "*": _PUSH | {Action.PULL, Action.DELETE},
}
# What this registry's own tokens say.
EXACT: Final[Words] = {str(each): frozenset({each}) for each in (*sorted(_PUSH), Action.PULL, Action.DELETE)}


@dataclass(frozen=True, slots=True)
class Scope:
    """Actions on a repository; on the registry's list of repositories where that is None."""

    repository: str | None
    actions: frozenset[Action]

    def entry(self) -> dict[str, Any]:
        """The scope as an entry of a token's ``access``."""
        if self.repository is None:
            return {"type": _CATALOG[0], "name": _CATALOG[1], "actions": ["*"]}
        actions = [str(each) for each in Action if each in self.actions]
        return {"type": _REPOSITORY, "name": self.repository, "actions": actions}

    def __str__(self) -> str:
        entry = self.entry()
        return f"{entry['type']}:{entry['name']}:{','.join(entry['actions'])}"

    def grant(self) -> Grant:
        """What it lets somebody do."""
        return Grant(EVERYTHING if self.repository is None else self.repository, self.actions)


def parse(texts: Iterable[str]) -> list[Scope]:
    """The scopes of a request: several parameters, each with several separated by spaces.

    What this registry knows nothing of is left out: it can grant nothing there.
    """
    return _merged(_read(word) for text in texts for word in text.split())


def of_claim(access: Any, words: Words) -> list[Scope]:
    """The scopes in the ``access`` claim of a verified token; what is not of its form grants nothing."""
    entries = [entry for entry in access if isinstance(entry, dict)] if isinstance(access, list) else []
    return _merged(_scope(entry.get("type"), entry.get("name"), entry.get("actions"), words) for entry in entries)


def _read(text: str) -> Scope | None:
    kind, _, rest = text.partition(":")
    name, _, actions = rest.rpartition(":")
    return _scope(kind.partition("(")[0], name, actions.split(","), ASKED)  # "repository(plugin)" is a repository


def _scope(kind: Any, name: Any, actions: Any, words: Words) -> Scope | None:
    if not isinstance(name, str) or not isinstance(actions, list):
        return None
    if (kind, name) == _CATALOG and "*" in actions:
        return Scope(None, frozenset({Action.CATALOG}))
    if kind != _REPOSITORY or not REPOSITORY.fullmatch(name):
        return None
    return Scope(
        name, frozenset().union(*(words[each] for each in actions if isinstance(each, str) and each in words))
    )


def _merged(scopes: Iterable[Scope | None]) -> list[Scope]:
    """One for each repository, with the actions of all."""
    found: dict[str | None, frozenset[Action]] = {}
    for scope in scopes:
        if scope is not None and scope.actions:
            found[scope.repository] = found.get(scope.repository, frozenset()) | scope.actions
    return [Scope(repository, actions) for repository, actions in found.items()]
