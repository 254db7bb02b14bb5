"""What a pull with credentials asks of PostgreSQL: one round trip, after which nothing is remembered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from moorage import Registry, Settings, create_app
from moorage.build import registry_of
from tests.login import basic
from tests.relay import Relay, relay
from tests.support import CONFIG, LAYER, OCI_MANIFEST, digest_of, encode, errors, image, pieces, served

Headers = dict[str, str]
Log = Callable[[Registry, httpx.AsyncClient], Awaitable[Headers]]


def settings(url: str, root: Path) -> Settings:
    return Settings(
        metadata=url,
        root=str(root),
        authentication=["tokens", "users", "keys"],
        metadata_connections=1,
        housekeeping_interval=3600.0,
        open_access=True,
    )


@asynccontextmanager
async def node(url: str, root: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Registry]]:
    """A node that does nothing by itself; and another over the same facts, with which to change them."""
    made, other = (registry_of(settings(url, root), housekeeping=False) for _ in range(2))
    async with made, other:
        app = create_app(made, settings=settings(url, root))
        try:
            async with served(app) as client:
                yield client, other
        finally:
            await app.aclose()


async def password(registry: Registry, client: httpx.AsyncClient) -> Headers:
    return basic("alice", "sesame")


async def own_key(registry: Registry, client: httpx.AsyncClient) -> Headers:
    return basic("any", await registry.access.create_key("robot", ["a:pull"]))


async def key_of_alice(registry: Registry, client: httpx.AsyncClient) -> Headers:
    return basic("any", await registry.access.create_key("hers", acts_as="alice"))


async def token(registry: Registry, client: httpx.AsyncClient) -> Headers:
    scope = {"scope": "repository:a:pull", "service": "moorage"}
    answer = await client.get("/v2/token", params=scope, headers=basic("alice", "sesame"))
    return {"authorization": f"Bearer {answer.json()['token']}"}


@pytest.fixture
async def filled(database: str, tmp_path: Path) -> tuple[str, Path]:
    """The URL of a database with an image in ``a``, which alice may pull; and the root that has the bytes."""
    async with registry_of(settings(database, tmp_path), housekeeping=False) as registry:
        for content in (CONFIG, LAYER):
            await registry.uploads.push("a", digest_of(content), pieces(content))
        await registry.manifests.put("a", "v1", encode(image()), OCI_MANIFEST)
        await registry.access.add_user("alice", "sesame")
        await registry.access.add_rule(["alice"], ["pull"], ["a"])
        await registry.access.add_rule(["carol"], ["pull"], ["b"])
    return database, tmp_path


async def trips(counted: Relay, ask: Callable[[], Awaitable[httpx.Response]]) -> int:
    before = counted.trips
    assert (await ask()).status_code == 200
    return counted.trips - before


@pytest.mark.parametrize("log_in", [password, own_key, key_of_alice, token])
async def test_a_pull_is_one_round_trip(filled: tuple[str, Path], log_in: Log) -> None:
    """Counted on the wire, for whoever pulled anything before; of content that nobody asked for before."""
    url, root = filled
    async with relay(url) as (counted, through), node(through, root) as (client, registry):
        headers = await log_in(registry, client)
        paths = [
            "manifests/v1",
            f"manifests/{digest_of(encode(image()))}",
            f"blobs/{digest_of(LAYER)}",
        ]
        for path in paths:  # statements are prepared
            await client.head(f"/v2/a/{path}", headers=headers)
            await client.get(f"/v2/a/{path}", headers=headers)
        for path in paths:
            for ask in (client.head, client.get):
                pull = partial(ask, f"/v2/a/{path}", headers=headers)
                counts = [await trips(counted, pull) for _ in range(3)]
                # Once a second a process looks which keys sign tokens.
                assert counts.count(1) >= (2 if log_in is token else 3), (path, counts)


async def _user_goes(registry: Registry) -> None:
    await registry.access.remove_user("alice")


async def _password_changes(registry: Registry) -> None:
    await registry.access.set_password("alice", "another")


async def _rule_goes(registry: Registry) -> None:
    number, _ = await registry.access.rules()
    await registry.access.remove_rule(number)


@pytest.mark.parametrize("revoke", [_user_goes, _password_changes, _rule_goes])
@pytest.mark.parametrize("log_in", [password, token, key_of_alice])
async def test_what_is_revoked_is_over_at_once(
    filled: tuple[str, Path], log_in: Log, revoke: Callable[[Registry], Awaitable[None]]
) -> None:
    """By another process, between two requests of which the second is foreseen."""
    async with node(*filled) as (client, registry):
        headers = await log_in(registry, client)
        for _ in range(3):
            assert (await client.get("/v2/a/manifests/v1", headers=headers)).status_code == 200
        await revoke(registry)
        refused = await client.get("/v2/a/manifests/v1", headers=headers)
        if log_in is key_of_alice and revoke is _password_changes:
            assert refused.status_code == 200  # a key outlives a password
            return
        errors(refused, *((404, "MANIFEST_UNKNOWN") if revoke is _rule_goes else (401, "UNAUTHORIZED")))


async def test_a_key_is_over_at_once(filled: tuple[str, Path]) -> None:
    async with node(*filled) as (client, registry):
        headers = await own_key(registry, client)
        for _ in range(3):
            assert (await client.get("/v2/a/manifests/v1", headers=headers)).status_code == 200
        await registry.access.revoke_key("robot")
        errors(await client.get("/v2/a/manifests/v1", headers=headers), 401, "UNAUTHORIZED")


async def test_each_sees_what_he_may(filled: tuple[str, Path]) -> None:
    """What was read ahead for somebody who may not have it is not told."""
    async with node(*filled) as (client, registry):
        await registry.access.add_user("bob", "sesame")
        for _ in range(3):
            found = await client.get("/v2/a/manifests/v1", headers=basic("alice", "sesame"))
            assert found.content == encode(image())
            errors(await client.get("/v2/a/manifests/v1"), 401, "UNAUTHORIZED")
            errors(await client.get("/v2/a/manifests/v1", headers=basic("alice", "wrong")), 401, "UNAUTHORIZED")
            nothing = await client.get("/v2/a/manifests/v1", headers=basic("bob", "sesame"))
            errors(nothing, 404, "MANIFEST_UNKNOWN")


async def test_a_tag_that_moves(filled: tuple[str, Path]) -> None:
    """What another process pushed is pulled by the next request."""
    async with node(*filled) as (client, registry):
        headers = await password(registry, client)
        for n in range(3):
            content = encode(image() | {"annotations": {"n": str(n)}})
            await registry.manifests.put("a", "v1", content, OCI_MANIFEST)
            assert (await client.get("/v2/a/manifests/v1", headers=headers)).content == content
