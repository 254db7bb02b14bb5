"""Managing access over HTTP: API keys and rules."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from moorage import Policy, Registry, Settings, create_app
from moorage.auth.keys import is_key
from moorage.registry.policy import QuotaRule
from moorage.testing import memory_registry
from tests.login import basic
from tests.support import LAYER, detail, digest_of, errors, pieces, served

ROOT = basic("root", "toor")
ALICE = basic("alice", "sesame")


class Time:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def registry(time: Time) -> AsyncIterator[Registry]:
    """With ``root``, who manages it, and ``alice``, who may do everything else."""
    async with memory_registry(clock=time) as opened:
        await opened.access.add_user("root", "toor")
        await opened.access.add_user("alice", "sesame")
        await opened.access.add_rule(["root"], ["admin"], ["**"])
        await opened.access.add_rule(["alice"], ["*"], ["**"])
        yield opened


@pytest.fixture
async def client(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    async with AsyncExitStack() as stack:
        app = create_app(registry, settings=Settings(storage="memory", authentication=["users", "keys"]))
        stack.push_async_callback(app.aclose)
        yield await stack.enter_async_context(served(app))


@pytest.mark.parametrize("path", ["/api/keys", "/api/rules", "/api/quotas"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
async def test_only_who_manages(client: httpx.AsyncClient, registry: Registry, path: str, method: str) -> None:
    """Nobody else sees or changes anything, not even what the method is for."""
    for headers, status, code in (
        ({}, 401, "UNAUTHORIZED"), (ALICE, 403, "DENIED"), (basic("root", "x"), 401, "UNAUTHORIZED"),
    ):  # fmt: skip
        wanted = {"name": "ci", "scope": ["**:pull"]}
        response = await client.request(method, f"{path}?name=ci&number=1", headers=headers, json=wanted)
        errors(response, status, code)
        assert ("www-authenticate" in response.headers) is (status == 401)
    assert len(await registry.access.rules()) == 2
    assert await registry.access.keys() == []


async def test_keys(client: httpx.AsyncClient, registry: Registry, time: Time) -> None:
    """A key is made, told once, good for what it says, listed and revoked."""
    wanted = {"name": "ci", "scope": ["team/**:pull", "**:catalog"], "expires_in": 60}
    response = await client.post("/api/keys", json=wanted, headers=ROOT)
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    key = response.json()["key"]
    assert response.json() == {"name": "ci", "key": key}
    assert is_key(key)
    assert (await client.get("/v2/_catalog", headers={"authorization": f"Bearer {key}"})).status_code == 200
    await client.post("/api/keys", json={"name": "laptop", "acts_as": "alice"}, headers=ROOT)
    response = await client.get("/api/keys", headers=ROOT)
    assert key not in response.text
    assert response.json()["keys"] == [
        {
            "name": "ci", "acts_as": None, "scope": ["team/**:pull", "**:catalog"],
            "created_at": 1_000_000.0, "expires_at": 1_000_060.0, "used_at": None,
        },
        {
            "name": "laptop", "acts_as": "alice", "scope": None,
            "created_at": 1_000_000.0, "expires_at": None, "used_at": None,
        },
    ]  # fmt: skip
    assert (await client.delete("/api/keys", params={"name": "ci"}, headers=ROOT)).status_code == 204
    assert (await client.get("/v2/", headers={"authorization": f"Bearer {key}"})).status_code == 401
    errors(await client.delete("/api/keys", params={"name": "ci"}, headers=ROOT), 404, "NOT_FOUND")
    errors(await client.post("/api/keys", json={"name": "laptop", "acts_as": "bob"}, headers=ROOT), 409, "EXISTS")


async def test_a_key_can_manage_and_no_other_can(client: httpx.AsyncClient) -> None:
    """A key whose scope has ``admin`` on everything manages; one that has it on less does not."""
    for name, scope, status in (("all", "**:admin", 200), ("some", "team/**:admin", 403), ("none", "**:*", 403)):
        made = await client.post("/api/keys", json={"name": name, "scope": [scope]}, headers=ROOT)
        bearer = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/api/keys", headers=bearer)).status_code == status


async def test_rules(client: httpx.AsyncClient) -> None:
    """A rule takes effect with the next request, is listed by its number, and is gone when it is removed."""
    assert (await client.get("/v2/_catalog", headers=ALICE)).status_code == 200
    wanted = {"who": ["alice"], "repositories": ["**"], "deny": ["catalog"]}
    response = await client.post("/api/rules", json=wanted, headers=ROOT)
    assert (response.status_code, response.json()) == (201, {"number": 3})
    errors(await client.get("/v2/_catalog", headers=ALICE), 403, "DENIED")
    listed = (await client.get("/api/rules", headers=ROOT)).json()["rules"]
    assert listed[0] == {"number": 1, "who": ["root"], "repositories": ["**"], "allow": ["admin"]}
    assert listed[2] == {"number": 3, **wanted}
    assert (await client.delete("/api/rules?number=3", headers=ROOT)).status_code == 204
    assert (await client.get("/v2/_catalog", headers=ALICE)).status_code == 200
    errors(await client.delete("/api/rules?number=3", headers=ROOT), 404, "NOT_FOUND")


WRONG = {
    "no JSON": ("POST", "/api/keys", b"{", "JSON"),
    "a field too many": ("POST", "/api/keys", b'{"name": "ci", "colour": "red"}', "colour"),
    "no name": ("POST", "/api/keys", b"{}", "name"),
    "a wrong name": ("POST", "/api/keys", b'{"name": "a:b", "scope": ["**:pull"]}', "'a:b'"),
    "no scope": ("POST", "/api/keys", b'{"name": "ci"}', "scope"),
    "a wrong scope": ("POST", "/api/keys", b'{"name": "ci", "scope": ["x"]}', "'x'"),
    "an early end": ("POST", "/api/keys", b'{"name": "ci", "scope": ["a:pull"], "expires_in": 0}', "ends"),
    "too much": ("POST", "/api/keys", b" " * 70_000, "65536"),
    "no parameter": ("DELETE", "/api/keys", b"", "parameter name"),
    "neither": ("POST", "/api/rules", b'{"who": ["a"], "repositories": ["**"]}', "either allow or deny"),
    "an action": ("POST", "/api/rules", b'{"who": ["a"], "repositories": ["**"], "allow": ["fly"]}', "'fly'"),
    "no number": ("DELETE", "/api/rules?number=x", b"", "'x'"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_wrong(client: httpx.AsyncClient, registry: Registry, what: str) -> None:
    """A request that cannot be is told what is wrong with it, and changes nothing."""
    method, path, content, word = WRONG[what]
    (error,) = errors(await client.request(method, path, content=content, headers=ROOT), 400, "UNSUPPORTED")
    assert word in error["message"]
    assert await registry.access.keys() == []
    assert len(await registry.access.rules()) == 2


async def test_other_methods(client: httpx.AsyncClient) -> None:
    response = await client.put("/api/keys", headers=ROOT)
    assert detail(response, 405, "UNSUPPORTED") == {"method": "PUT"}
    assert response.headers["allow"] == "GET, POST, DELETE"


async def test_nothing_of_it_in_an_open_registry(registry: Registry) -> None:
    """Where everyone may do everything there is nothing to manage."""
    async with served(create_app(registry)) as open_to_all:
        errors(await open_to_all.get("/api/keys"), 404, "UNSUPPORTED")


async def test_an_end_that_no_calendar_has(client: httpx.AsyncClient) -> None:
    """A key that would outlast every date is refused, since nothing could list it."""
    body = {"name": "ci", "scope": ["a:pull"], "expires_in": 1e300}
    refused = await client.post("/api/keys", headers=ROOT, json=body)
    errors(refused, 400, "UNSUPPORTED")
    assert (await client.get("/api/keys", headers=ROOT)).json() == {"keys": []}


async def test_quotas(client: httpx.AsyncClient, registry: Registry) -> None:
    """What each quota allows, and what is used of it."""
    assert (await client.get("/api/quotas", headers=ROOT)).json() == {"quotas": []}
    rule = QuotaRule(repository="team/**", bytes=1000, repositories=2)
    other = Registry(registry._parts.store, registry.metadata, Policy(quotas=(rule,)), housekeeping=False)
    await other.quotas.apply()
    await registry.uploads.push("team/app", digest_of(LAYER), pieces(LAYER))
    assert (await client.get("/api/quotas", headers=ROOT)).json()["quotas"] == [
        {
            "repository": "team/**",
            "counted": True,
            "bytes": {"used": len(LAYER), "allowed": 1000},
            "tags": {"used": 0, "allowed": None},
            "repositories": {"used": 1, "allowed": 2},
        }
    ]
    errors(await client.post("/api/quotas", headers=ROOT), 405, "UNSUPPORTED")
