"""Users, API keys and rules of the metadata, without HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from moorage import Registry, open_registry
from moorage.auth.base import ANONYMOUS, Authenticator, Credentials, Identity
from moorage.auth.keys import digest_of_key, make_key
from moorage.auth.passwords import Passwords, verify_password
from moorage.metadata.access import AlreadyThere, NotThere
from moorage.spec.actions import Action
from moorage.spec.errors import Unauthorized
from moorage.storage.memory import MemoryBlobStore
from moorage.testing import memory_registry
from tests.registry.conftest import Away


class Time:
    """A clock of the test's own."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def registry(time: Time) -> AsyncIterator[Registry]:
    async with memory_registry(clock=time) as opened:
        yield opened


async def rows(registry: Registry, text: str) -> list[tuple[Any, ...]]:
    """What a question to the database gives, whatever it is."""
    return list(registry._parts.metadata._reader.execute(text).fetchall())  # type: ignore[attr-defined]


async def test_users(registry: Registry) -> None:
    """Users are added, changed, listed and removed; what is wrong is told."""
    access = registry.access
    await access.add_user("bob", "one", ["ops", "dev", "dev"], actor="root")
    await access.add_user("alice", "two")
    assert [(each.name, sorted(each.groups)) for each in await access.users()] == [
        ("alice", []),
        ("bob", ["dev", "ops"]),
    ]
    with pytest.raises(AlreadyThere, match="bob"):
        await access.add_user("bob", "three")
    await access.set_groups("bob", [])
    await access.set_password("bob", "three")
    found = await access.passwords().entry("bob")
    assert found is not None
    assert found.groups == frozenset()
    assert verify_password(found.hash, "three")
    assert not verify_password(found.hash, "one")
    await access.remove_user("bob")
    assert await access.passwords().entry("bob") is None
    for doing in (access.remove_user("bob"), access.set_groups("bob", []), access.set_password("bob", "x")):
        with pytest.raises(NotThere, match="there is no user bob"):
            await doing


@pytest.mark.parametrize(
    "name", ["anonymous", "local", "*", "@dev", "a:b", "", "a b", "-x", "é", "x" * 129, "key:ci"]
)
async def test_names_that_cannot_be(registry: Registry, name: str) -> None:
    """Neither user nor group nor key bears a name that means something else in a rule or in Basic."""
    with pytest.raises(ValueError, match="name"):
        await registry.access.add_user(name, "x")
    with pytest.raises(ValueError, match="name"):
        await registry.access.add_user("fine", "x", [name])
    with pytest.raises(ValueError, match="name"):
        await registry.access.create_key(name, ["**:pull"])
    assert await registry.access.users() == []


async def test_empty_password(registry: Registry) -> None:
    with pytest.raises(ValueError, match="one character"):
        await registry.access.add_user("alice", "")


async def test_changes_are_events_without_secrets(registry: Registry) -> None:
    """Every change has an event with the name of whoever made it; no secret stands in the database."""
    access = registry.access
    await access.add_user("alice", "sesame", ["dev"], actor="root")
    await access.set_password("alice", "sesame2", actor="root")
    await access.set_groups("alice", ["ops"], actor="root")
    secret = await access.create_key("ci", acts_as="alice", actor="root")
    number = await access.add_rule(["alice"], ["pull"], ["a/**"], actor="root")
    await access.remove_rule(number, actor="root")
    await access.remove_user("alice", actor="root")
    found = await rows(registry, "SELECT actor, action, before, after FROM events ORDER BY seq")
    assert {actor for actor, *_ in found} == {"root"}
    assert [action for _, action, *_ in found] == [
        "user.add", "user.password", "user.groups", "key.create",
        "rule.add", "rule.remove", "user.remove", "key.revoke",
    ]  # fmt: skip
    assert ("root", "rule.add", None, "allow alice pull a/**") in found
    tables = [await rows(registry, f"SELECT * FROM {each}") for each in ("events", "users", "api_keys")]
    everything = str(tables)
    assert "sesame" not in everything
    assert secret not in everything


def keys_of(registry: Registry) -> Any:
    return registry.access.key_authenticator([registry.access.passwords()])


async def test_key_of_its_own(registry: Registry, time: Time) -> None:
    """A key is taken as a token and as the password of any name, until it is revoked."""
    secret = await registry.access.create_key("ci", ["team/**:pull,push", "**:catalog"])
    keys = keys_of(registry)
    for shown in (Credentials(token=secret), Credentials("whoever", secret), Credentials("", secret)):
        identity = await keys.authenticate(shown)
        assert (identity.name, identity.method, identity.local) == ("key:ci", "key", False)
        rules = registry.access.authorizer()
        assert (await rules.authorize(identity, Action.PUSH, "team/x")).allowed
        assert not (await rules.authorize(identity, Action.DELETE, "team/x")).allowed
        assert not (await rules.authorize(identity, Action.PUSH, "other/x")).allowed
    await registry.access.revoke_key("ci")
    with pytest.raises(Unauthorized, match="revoked"):
        await keys.authenticate(Credentials(token=secret))
    with pytest.raises(NotThere):
        await registry.access.revoke_key("ci")


async def test_key_expires(registry: Registry, time: Time) -> None:
    """From its last second on a key is refused, and told so."""
    secret = await registry.access.create_key("ci", ["**:pull"], expires_at=time.now + 60)
    keys = keys_of(registry)
    time.now += 59.9
    assert (await keys.authenticate(Credentials(token=secret))).expires_at == 1_000_060.0
    time.now += 0.1
    with pytest.raises(Unauthorized, match="the API key expired at 1970-01-12 13:47 UTC"):
        await keys.authenticate(Credentials(token=secret))


async def test_key_that_acts_as_a_user(registry: Registry) -> None:
    """It has the user's name and groups as of now, within its scope, and goes with the user."""
    await registry.access.add_user("alice", "x", ["dev"])
    secret = await registry.access.create_key("laptop", ["a/**:pull"], acts_as="alice")
    keys = keys_of(registry)
    identity = await keys.authenticate(Credentials(token=secret))
    assert (identity.name, identity.groups, identity.local) == ("alice", {"dev"}, True)
    rules = registry.access.authorizer()
    assert (await rules.authorize(identity, Action.PULL, "a/x")).allowed
    assert not (await rules.authorize(identity, Action.PUSH, "a/x")).allowed
    assert not (await rules.authorize(identity, Action.PULL, "b/x")).allowed
    await registry.access.set_groups("alice", ["ops"])
    assert (await keys.authenticate(Credentials(token=secret))).groups == {"ops"}
    await registry.access.remove_user("alice")
    assert await registry.access.keys() == []
    await registry.access.add_user("alice", "x")
    with pytest.raises(Unauthorized):
        await keys.authenticate(Credentials(token=secret))


async def test_key_of_a_user_who_is_nowhere(registry: Registry) -> None:
    """A key whose user is not there any more is good for nothing."""
    secret = await registry.access.create_key("laptop", acts_as="gone")
    with pytest.raises(Unauthorized, match="user of this API key"):
        await keys_of(registry).authenticate(Credentials(token=secret))


async def test_what_is_no_key(registry: Registry) -> None:
    """What has not the form of a key is somebody else's business; what has, and is none, is refused."""
    keys: Authenticator = keys_of(registry)
    await registry.access.create_key("ci", ["**:pull"])
    for shown in (
        Credentials(),
        Credentials("alice", "sesame"),
        Credentials(token="eyJ"),
        Credentials("moorage_", "x"),
    ):
        assert await keys.authenticate(shown) is None
    with pytest.raises(Unauthorized, match="mistyped"):
        await keys.authenticate(Credentials(token="moorage_x"))
    with pytest.raises(Unauthorized, match="revoked"):
        await keys.authenticate(Credentials(token=make_key()))


async def test_last_use_is_written_by_and_by(registry: Registry, time: Time) -> None:
    """A use costs no write; the last one is stated later, and at the end."""
    secret = await registry.access.create_key("ci", ["**:pull"])
    keys = keys_of(registry)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(keys)
        for _ in range(5):
            time.now += 1
            await keys.authenticate(Credentials(token=secret))
        assert [each.used_at for each in await registry.access.keys()] == [None]
        await keys.write_uses()
        assert [each.used_at for each in await registry.access.keys()] == [1_000_005.0]
        time.now += 1
        await keys.authenticate(Credentials(token=secret))
    assert [each.used_at for each in await registry.access.keys()] == [1_000_006.0]


async def test_last_use_outlasts_the_database(monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    """A database that is away for a while costs no use, and does not end the writing of them, nor the end itself."""
    monkeypatch.setattr("moorage.registry.access._USES_WRITTEN", 0.01)
    metadata = Away()
    async with Registry(MemoryBlobStore(), metadata, clock=time, housekeeping=False) as registry:
        secret = await registry.access.create_key("ci", ["**:pull"])
        async with AsyncExitStack() as stack:
            keys = keys_of(registry)
            await stack.enter_async_context(keys)
            metadata.away = True
            await keys.authenticate(Credentials(token=secret))
            await asyncio.sleep(0.1)
            metadata.away = False
            async with asyncio.timeout(10):
                while [each.used_at for each in await registry.access.keys()] == [None]:
                    await asyncio.sleep(0.01)
            await keys.authenticate(Credentials(token=secret))
            metadata.away = True


async def test_only_the_digest_is_kept(registry: Registry) -> None:
    secret = await registry.access.create_key("ci", ["**:pull"])
    ((digest,),) = await rows(registry, "SELECT digest FROM api_keys")
    assert digest == digest_of_key(secret)


@pytest.mark.parametrize("scope", [None, [], ["a"], ["a:"], ["a:fly"], ["A:pull"], [":pull"]])
async def test_scope_that_cannot_be(registry: Registry, scope: list[str] | None) -> None:
    with pytest.raises(ValueError, match=r"scope|action|repositories"):
        await registry.access.create_key("ci", scope)
    assert await registry.access.keys() == []


async def test_rules_take_effect_at_once(registry: Registry) -> None:
    """The next question is answered by the rules as they are then."""
    rules = registry.access.authorizer()
    alice = Identity("alice", method="users", local=True)

    async def may(identity: Identity, action: Action) -> bool:
        return (await rules.authorize(identity, action, "team/x")).allowed

    assert await may(alice, Action.DELETE)
    assert not await may(ANONYMOUS, Action.PULL)
    first = await registry.access.add_rule(["anonymous", "bob"], ["*"], ["team/**"])
    assert not await may(alice, Action.DELETE)
    assert await may(ANONYMOUS, Action.PULL)
    assert not await may(ANONYMOUS, Action.PUSH)
    second = await registry.access.add_rule(["*"], ["pull", "push"], ["team/**"])
    assert await may(alice, Action.PUSH)
    third = await registry.access.add_rule(["alice"], ["push"], ["team/x"], allow=False)
    assert not await may(alice, Action.PUSH)
    assert [first, second, third] == [1, 2, 3] == list(await registry.access.rules())
    await registry.access.remove_rule(third)
    assert await may(alice, Action.PUSH)
    for number in (first, second):
        await registry.access.remove_rule(number)
    assert await may(alice, Action.DELETE)
    with pytest.raises(NotThere, match="there is no rule 7"):
        await registry.access.remove_rule(7)


async def test_rules_of_settings_count_too(registry: Registry) -> None:
    """Rules of both places hold together, and each says where it stands."""
    from moorage.auth.words import make_rule

    rules = registry.access.authorizer([make_rule(["alice"], ["a/**"], ["pull"], allow=True, source="settings")])
    await registry.access.add_rule(["alice"], ["pull"], ["a/secret"], allow=False)
    alice = Identity("alice", method="users", local=True)
    assert (await rules.authorize(alice, Action.PULL, "a/x")).why == "allow alice pull a/** (settings)"
    assert (await rules.authorize(alice, Action.PULL, "a/secret")).why == "deny alice pull a/secret (rule 1)"


async def test_everything_outlives_the_process(tmp_path: Any) -> None:
    """Users, keys and rules are there when the registry is opened again, by whoever opens it."""
    async with open_registry(tmp_path) as one, open_registry(tmp_path) as other:
        await one.access.add_user("alice", "sesame")
        secret = await one.access.create_key("ci", ["**:pull"])
        rules, keys, passwords = other.access.authorizer(), keys_of(other), Passwords([other.access.passwords()])
        alice = await passwords.authenticate(Credentials("alice", "sesame"))
        assert alice is not None
        assert (await rules.authorize(alice, Action.PULL, "a")).allowed
        await one.access.add_rule(["bob"], ["pull"], ["**"])
        assert not (await rules.authorize(alice, Action.PULL, "a")).allowed
        assert await keys.authenticate(Credentials(token=secret))
        await one.access.revoke_key("ci")
        with pytest.raises(Unauthorized):
            await keys.authenticate(Credentials(token=secret))
        await one.access.set_password("alice", "another")
        with pytest.raises(Unauthorized):
            await passwords.authenticate(Credentials("alice", "sesame"))
        await one.access.remove_user("alice")
        assert await passwords.authenticate(Credentials("alice", "another")) is None
    async with open_registry(tmp_path) as again:
        assert [str(each) for each in (await again.access.rules()).values()] == ["allow bob pull ** (rule 1)"]
        assert json.dumps([each.name for each in await again.access.users()]) == "[]"
