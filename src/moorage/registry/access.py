"""Who there is and what they may do, as the metadata say it: users, API keys, rules."""

import asyncio
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from moorage.auth.base import Challenge, Credentials, Decision, Grant, Identity
from moorage.auth.keys import PREFIX, digest_of_key, is_key, make_key
from moorage.auth.passwords import ARGON2_DUMMY, BASIC, Entry, PasswordSource, hash_password
from moorage.auth.rules import Rule, Rules
from moorage.auth.words import KEY_IDENTITY, check_name, make_rule, read_scope, write_scope
from moorage.metadata import access as facts
from moorage.metadata.access import StoredKey, StoredRule
from moorage.registry.parts import ANONYMOUS, Parts
from moorage.registry.tasks import end
from moorage.spec.actions import Action
from moorage.spec.errors import RegistryError, Unauthorized

_LATEST: Final = 253_402_300_799.0  # seconds since 1970; the last that a date can tell
_USES_WRITTEN: Final = 60.0  # seconds between two writings of when keys were last used
_log = logging.getLogger("moorage.access")


@dataclass(frozen=True, slots=True)
class User:
    """A user that is kept in the metadata; times are seconds since 1970."""

    name: str
    groups: frozenset[str]
    created_at: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret.

    With ``acts_as`` it has the rights of that user, within ``scope`` where there is one; without, ``scope`` is what
    it may do.
    """

    name: str
    acts_as: str | None
    scope: tuple[Grant, ...] | None
    created_at: float
    expires_at: float | None
    used_at: float | None


class Access:
    """Users, API keys and rules. Names and words that cannot be raise ``ValueError``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def users(self) -> list[User]:
        """All users, in the order of their names."""
        found = await facts.users(self._parts.metadata)
        return [User(name, frozenset(json.loads(groups)), at) for name, groups, at in found]

    async def add_user(self, name: str, password: str, groups: Sequence[str] = (), *, actor: str = ANONYMOUS) -> None:
        """Add a user; raises ``AlreadyThere``."""
        members = _groups(groups)
        hashed = await asyncio.to_thread(hash_password, _password(password))
        change = self._parts.change(actor)
        await self._parts.metadata.transact(facts.add_user, check_name(name), hashed, members, change)

    async def set_password(self, name: str, password: str, *, actor: str = ANONYMOUS) -> None:
        """Give a user another password, from now on; raises ``NotThere``."""
        hashed = await asyncio.to_thread(hash_password, _password(password))
        await self._parts.metadata.transact(facts.set_password, name, hashed, self._parts.change(actor))

    async def set_groups(self, name: str, groups: Sequence[str], *, actor: str = ANONYMOUS) -> None:
        """Let a user be in these groups and no others; raises ``NotThere``."""
        await self._parts.metadata.transact(facts.set_groups, name, _groups(groups), self._parts.change(actor))

    async def remove_user(self, name: str, *, actor: str = ANONYMOUS) -> None:
        """Remove a user and the keys that act as him; raises ``NotThere``."""
        await self._parts.metadata.transact(facts.remove_user, name, self._parts.change(actor))

    async def keys(self) -> list[ApiKey]:
        """All API keys, in the order of their names."""
        return [
            ApiKey(each.name, each.acts_as, _scope(each.scope), each.created_at, each.expires_at, each.used_at)
            for each in await facts.keys(self._parts.metadata)
        ]

    async def create_key(
        self,
        name: str,
        scope: Sequence[str] | None = None,
        *,
        acts_as: str | None = None,
        expires_at: float | None = None,
        actor: str = ANONYMOUS,
    ) -> str:
        """Make an API key; its secret, which is told this once. Raises ``AlreadyThere``.

        ``scope`` are words like ``team-a/**:pull,push``. A key that acts as nobody needs one.
        """
        if acts_as is None and not scope:
            raise ValueError("a key needs a scope, or a user as whom it acts")
        if expires_at is not None and expires_at > _LATEST:
            raise ValueError("a key ends before the year 10000; allowed: no end at all")
        words = None if scope is None else json.dumps(write_scope(read_scope(scope)))
        secret, now = make_key(), self._parts.clock()
        if expires_at is not None and expires_at <= now:
            raise ValueError("a key ends after it was made")
        key = StoredKey(check_name(name), acts_as and check_name(acts_as), words, now, expires_at, None)
        await self._parts.metadata.transact(facts.add_key, key, digest_of_key(secret), self._parts.change(actor))
        return secret

    async def revoke_key(self, name: str, *, actor: str = ANONYMOUS) -> None:
        """Revoke an API key, from now on; raises ``NotThere``."""
        await self._parts.metadata.transact(facts.remove_key, name, self._parts.change(actor))

    async def rules(self) -> dict[int, Rule]:
        """The rules of the metadata by their numbers."""
        return {each.id: _rule(each) for each in await facts.rules(self._parts.metadata)}

    async def add_rule(
        self,
        who: Sequence[str],
        actions: Sequence[str],
        repositories: Sequence[str],
        *,
        allow: bool = True,
        actor: str = ANONYMOUS,
    ) -> int:
        """Add a rule; its number. The words are those of ``moorage.auth.words``."""
        rule = make_rule(who, repositories, actions, allow=allow)
        lists = (json.dumps(list(who)), json.dumps(list(repositories)), json.dumps(list(actions)))
        stored, change = StoredRule(0, allow, *lists), self._parts.change(actor)
        return await self._parts.metadata.transact(facts.add_rule, stored, str(rule), change)

    async def remove_rule(self, number: int, *, actor: str = ANONYMOUS) -> None:
        """Remove a rule; raises ``NotThere``."""
        await self._parts.metadata.transact(facts.remove_rule, number, self._parts.change(actor))

    def passwords(self) -> "UserPasswords":
        """The users as a source of passwords."""
        return UserPasswords(self._parts)

    def key_authenticator(self, sources: Sequence[PasswordSource]) -> "Keys":
        """What knows API keys; ``sources`` know the users as whom keys act."""
        return Keys(self._parts, sources)

    def authorizer(self, settled: Sequence[Rule] = ()) -> "StoredRules":
        """What decides by the rules of the metadata and those that are ``settled`` besides."""
        return StoredRules(self._parts, settled)


class UserPasswords:
    """The users of the metadata as a ``PasswordSource``."""

    method = "users"
    dummy = ARGON2_DUMMY

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def entry(self, name: str) -> Entry | None:
        """The user of that name, as of now."""
        for hashed, groups in await self._parts.metadata.fetch("user", name):
            return _entry(hashed, groups)
        return None


class Keys:
    """An ``Authenticator`` by API keys, as a bearer token or as the password of any name."""

    challenges: tuple[Challenge, ...] = (BASIC,)

    def __init__(self, parts: Parts, sources: Sequence[PasswordSource]) -> None:
        self._parts = parts
        self._sources = tuple(sources)
        self._uses: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._writing = asyncio.create_task(self._keep_writing(), name="moorage-key-uses")

    async def __aexit__(self, *exception: object) -> None:
        if self._writing is not None:
            await end(self._writing)
        await self._write_uses_if_possible()

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Whose key it is; None for what has not the form of a key."""
        secret = credentials.token or credentials.password
        if secret is None or not secret.startswith(PREFIX):
            return None
        if not is_key(secret):
            raise Unauthorized("the API key is incomplete or mistyped")
        return await self._known(digest_of_key(secret))

    @property
    def methods(self) -> Collection[str]:
        """The one method of keys."""
        return ("key",)

    async def recall(self, identity: Identity) -> Identity | None:
        """What the key is good for now, None where it was revoked or has expired, or its user is gone."""
        try:
            return await self._known(identity.proof)
        except Unauthorized:
            return None

    async def _known(self, digest: str) -> Identity:
        rows = await self._parts.metadata.fetch("api_key", digest)
        if not rows:
            raise Unauthorized("the API key was revoked, or is of another registry")
        name, acts_as, words, expires_at = rows[0]
        now = self._parts.clock()
        if expires_at is not None and now >= expires_at:
            raise Unauthorized(f"the API key expired at {datetime.fromtimestamp(expires_at, UTC):%Y-%m-%d %H:%M} UTC")
        self._uses[name] = now
        if acts_as is None:
            return _own(name, _scope(words), expires_at, digest)
        for source in self._sources:
            if (entry := await source.entry(acts_as)) is not None:
                return _acting(acts_as, entry.groups, _scope(words), expires_at, digest)
        raise Unauthorized("the user of this API key is not there any more")

    async def write_uses(self) -> None:
        """State when each key was last used since the last time."""
        uses, self._uses = self._uses, {}
        if uses:
            try:
                await self._parts.metadata.transact(facts.note_uses, uses)
            except BaseException:
                self._uses = uses | self._uses
                raise

    async def _write_uses_if_possible(self) -> None:
        try:
            await self.write_uses()
        except RegistryError as error:
            _log.warning("when keys were last used cannot be written: %s", error)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(_USES_WRITTEN)
            await self._write_uses_if_possible()


class StoredRules:
    """An ``Authorizer`` by the rules of the metadata, as of now, and others that do not change."""

    def __init__(self, parts: Parts, settled: Sequence[Rule]) -> None:
        self._parts = parts
        self._settled = tuple(settled)
        self._version: int | None = None
        self._rules = Rules()

    async def authorize(
        self,
        identity: Identity,
        action: Action,
        repository: str | None,
        tag: str | None = None,  # noqa: ARG002  rules are about repositories
    ) -> Decision:
        """Whether ``identity`` may do that, and which rule says so."""
        version = (await self._parts.metadata.fetch("access_version"))[0][0]
        if version != self._version:
            # The version first: rules that change meanwhile are read again by whoever asks next.
            stored = [_rule(each) for each in await facts.rules(self._parts.metadata)]
            self._rules, self._version = Rules([*self._settled, *stored]), version
        return self._rules.decide(identity, action, repository)


def _rule(stored: StoredRule) -> Rule:
    who, repositories, actions = (json.loads(each) for each in (stored.who, stored.repositories, stored.actions))
    return make_rule(who, repositories, actions, allow=stored.allow, source=f"rule {stored.id}")


@lru_cache(maxsize=10_000)
def _entry(hashed: str, groups: str) -> Entry:
    """What a user's row says; it is asked for with each request."""
    return Entry(hashed, frozenset(json.loads(groups)))


@lru_cache(maxsize=10_000)
def _own(name: str, scope: tuple[Grant, ...] | None, expires_at: float | None, digest: str) -> Identity:
    """A key that acts as nobody else."""
    return Identity(
        f"{KEY_IDENTITY}{name}", method="key", scope=scope, scope_grants=True, expires_at=expires_at, proof=digest
    )


@lru_cache(maxsize=10_000)
def _acting(
    user: str, groups: frozenset[str], scope: tuple[Grant, ...] | None, expires_at: float | None, digest: str
) -> Identity:
    """A key that acts as a user, within its scope."""
    return Identity(user, groups, "key", local=True, scope=scope, expires_at=expires_at, proof=digest)


@lru_cache(maxsize=10_000)
def _scope(words: str | None) -> tuple[Grant, ...] | None:
    return None if words is None else read_scope(json.loads(words))


def _groups(groups: Sequence[str]) -> str:
    return json.dumps(sorted({check_name(each) for each in groups}))


def _password(password: str) -> str:
    if not password:
        raise ValueError("a password has one character at least")
    return password
