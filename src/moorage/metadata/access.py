"""Facts about access: users, API keys, rules. What they mean is written in registry/access.py."""

from dataclasses import dataclass

from moorage.metadata.base import Metadata, Unit, later, one, run
from moorage.metadata.events import Change
from moorage.spec.errors import RegistryError


class AlreadyThere(RegistryError):
    """Nothing is replaced by adding it again."""

    code, status, message = "EXISTS", 409, "this is there already"


class NotThere(RegistryError):
    code, status, message = "NOT_FOUND", 404, "this is not there"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key without its secret. ``scope`` is as it was stored; times are seconds since 1970."""

    name: str
    acts_as: str | None
    scope: str | None
    created_at: float
    expires_at: float | None
    used_at: float | None


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule; ``who``, ``repositories`` and ``actions`` are lists in JSON. ``id`` is 0 before it is stored."""

    id: int
    allow: bool
    who: str
    repositories: str
    actions: str


async def users(metadata: Metadata) -> list[tuple[str, str, float]]:
    """``(name, groups, made at)`` of all users, in bytewise order."""
    return [(name, groups, at) for name, groups, at in await metadata.fetch("users")]


def add_user(name: str, password: str, groups: str, change: Change) -> Unit[None]:
    """Add a user with the hash of a password; raises ``AlreadyThere``."""
    if (yield from one("add_user", name, password, groups, change.at)) is None:
        raise AlreadyThere(f"the user {name} is there already")
    yield from change.record("user.add", "", after=name)


def set_password(name: str, password: str, change: Change) -> Unit[None]:
    """Give a user another password (its hash); raises ``NotThere``."""
    if (yield from one("set_password", name, password)) is None:
        raise _no("user", name)
    yield from change.record("user.password", "", after=name)


def set_groups(name: str, groups: str, change: Change) -> Unit[None]:
    """Let a user be in these groups and no others; raises ``NotThere``."""
    if (yield from one("set_groups", name, groups)) is None:
        raise _no("user", name)
    yield from change.record("user.groups", "", before=name, after=groups)


def remove_user(name: str, change: Change) -> Unit[None]:
    """Remove a user and the API keys that act as him; raises ``NotThere``."""
    if (yield from one("remove_user", name)) is None:
        raise _no("user", name)
    yield from change.record("user.remove", "", before=name)
    for (key,) in (yield from run("remove_api_keys_of", name)):
        yield from change.record("key.revoke", "", before=key)


async def keys(metadata: Metadata) -> list[StoredKey]:
    """All API keys, in bytewise order."""
    return [StoredKey(*row) for row in await metadata.fetch("api_keys")]


def add_key(key: StoredKey, digest: str, change: Change) -> Unit[None]:
    """Add an API key by the digest of its secret; raises ``AlreadyThere``."""
    row = (key.name, digest, key.acts_as, key.scope, key.created_at, key.expires_at)
    if (yield from one("add_api_key", *row)) is None:
        raise AlreadyThere(f"the key {key.name} is there already")
    yield from change.record("key.create", "", after=key.name)


def remove_key(name: str, change: Change) -> Unit[None]:
    """Revoke an API key; raises ``NotThere``."""
    if (yield from one("remove_api_key", name)) is None:
        raise _no("key", name)
    yield from change.record("key.revoke", "", before=name)


def note_uses(uses: dict[str, float]) -> Unit[None]:
    """When each API key was last used; this is no event."""
    for name, at in uses.items():
        yield from later("set_api_key_used", name, at)


async def rules(metadata: Metadata) -> list[StoredRule]:
    """All rules, in the order in which they were made."""
    return [StoredRule(row[0], bool(row[1]), *row[2:]) for row in await metadata.fetch("access_rules")]


def add_rule(rule: StoredRule, words: str, change: Change) -> Unit[int]:
    """Add a rule, which ``words`` describe; its number."""
    ((last,),) = yield from run("last_access_rule")
    number = int(last) + 1
    yield from later("add_access_rule", number, int(rule.allow), rule.who, rule.repositories, rule.actions, change.at)
    yield from later("raise_access_version")
    yield from change.record("rule.add", "", after=words)
    return number


def remove_rule(number: int, change: Change) -> Unit[None]:
    """Remove a rule; raises ``NotThere``."""
    if (yield from one("remove_access_rule", number)) is None:
        raise _no("rule", str(number))
    yield from later("raise_access_version")
    yield from change.record("rule.remove", "", before=str(number))


def _no(what: str, name: str) -> NotThere:
    return NotThere(f"there is no {what} {name}")
