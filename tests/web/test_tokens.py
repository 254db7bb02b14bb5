"""The token flow through the door: what is given to whom, and what it is good for."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest

from moorage import open_registry
from moorage.auth.rules import Rule, Rules
from moorage.registry.tokens import Tokens
from moorage.spec.actions import Action
from moorage.spec.errors import TokenInvalid
from moorage.spec.routes import ENDPOINTS, Endpoint
from tests.support import HOST, LAYER, digest_of, encode, errors, image, served
from tests.tokens import (
    SERVICE,
    TAMPERED,
    TOKEN,
    Staff,
    app_with_tokens,
    bearer,
    claims,
    fetch,
    signed,
    signing_key,
    token_of,
)
from tests.web.test_access import CASES, HELD, Guarded, allow, ask, deny

ROWS = pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: f"{row.method} {row.path}")
EVERYTHING = (allow("alice", "**"),)


@dataclass
class Desk(Guarded):
    """A registry that gives tokens to its staff, and who they are."""

    staff: Staff

    async def open(self, *rules: Rule, **settings: Any) -> httpx.AsyncClient:
        app = app_with_tokens(self.registry, self.staff, Rules(rules), **settings)
        self.stack.push_async_callback(app.aclose)
        client = await self.stack.enter_async_context(served(app))
        await client.get("/healthz")  # it opens with the first request
        return client


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry())
        found = Desk(registry, stack, Staff())
        await found.push(HELD)
        yield found


def challenge(response: httpx.Response) -> dict[str, str]:
    """The parameters of the one challenge of a 401, which is that of the token flow."""
    (header,) = response.headers.get_list("www-authenticate")
    scheme, _, parameters = header.partition(" ")
    assert scheme == "Bearer"
    return dict(part.partition("=")[::2] for part in parameters[:-1].replace('="', "=").split('",'))


@ROWS
async def test_what_is_asked_for_is_enough(desk: Desk, row: Endpoint) -> None:
    """Each endpoint says which scope it wants, and a token with it, and nothing but it, is let in."""
    client = await desk.open(*EVERYTHING)
    refused = await ask(desk, client, row, HELD)
    assert refused.status_code == 401
    asked = challenge(refused)
    assert asked["realm"] == f"{HOST}{TOKEN}"
    assert asked["service"] == SERVICE
    assert "error" not in asked
    scopes = [asked["scope"]] if "scope" in asked else []
    assert bool(scopes) == (row.access is not None)
    token = await token_of(client, *scopes)
    response = await ask(desk, client, row, HELD, bearer(token))
    assert response.status_code == CASES[row.name, row.method].status, response.text


@ROWS
@pytest.mark.parametrize("kind", TAMPERED)
async def test_tampered(desk: Desk, row: Endpoint, kind: str) -> None:
    """Whatever is done to a token that would let one do everything, it lets one do nothing, without a 5xx."""
    client = await desk.open(allow("*", "**"))
    token = TAMPERED[kind](await signing_key(desk.registry), claims(HELD))
    response = await ask(desk, client, row, HELD, bearer(token))
    assert response.status_code == 401
    assert challenge(response)["error"] == "invalid_token"
    if row.method != "HEAD":
        errors(response, 401, "UNAUTHORIZED")
    assert (await desk.registry.manifests.get(HELD, "v1")).digest == digest_of(encode(image()))


async def test_beyond_ascii(desk: Desk) -> None:
    """Bytes that no token has are refused like any other."""
    client = await desk.open(allow("*", "**"))
    token = signed(await signing_key(desk.registry), claims(HELD)).encode()
    for wrong in (token + "é".encode(), token + b"\xff", b"\xff" * 100):
        response = await client.get("/v2/", headers=httpx.Headers([(b"authorization", b"Bearer " + wrong)]))
        assert challenge(response)["error"] == "invalid_token"


@ROWS
async def test_untampered(desk: Desk, row: Endpoint) -> None:
    """The very token that is tampered with above is let in as it is: nothing but the tampering is refused."""
    client = await desk.open(allow("*", "**"))
    token = signed(await signing_key(desk.registry), claims(HELD))
    response = await ask(desk, client, row, HELD, bearer(token))
    assert response.status_code == CASES[row.name, row.method].status


@ROWS
@pytest.mark.parametrize("scopes", [[], ["repository:other/thing:pull,push,delete"], ["other"]], ids=str)
async def test_wrong_scope(desk: Desk, row: Endpoint, scopes: list[str]) -> None:
    """A token for nothing, for another repository or for other actions is refused, and the right one is named."""
    client = await desk.open(*EVERYTHING)
    if scopes == ["other"]:
        other = {Action.PULL: "push,delete", Action.PUSH: "pull,delete", Action.DELETE: "pull,push"}
        scopes = [f"repository:{HELD}:{other[row.access]}"] if row.access in other else []
    token = await token_of(client, *scopes)
    response = await ask(desk, client, row, HELD, bearer(token))
    if row.access is None:
        assert response.status_code == CASES[row.name, row.method].status
        return
    assert response.status_code == 401
    asked = challenge(response)
    assert asked["error"] == "insufficient_scope"
    again = await ask(desk, client, row, HELD, bearer(await token_of(client, asked["scope"])))
    assert again.status_code == CASES[row.name, row.method].status


@ROWS
async def test_scope_is_no_right(desk: Desk, row: Endpoint) -> None:
    """A token that says it may, where the rules say not, is refused like its bearer is: 403, or nothing there."""
    client = await desk.open(allow("bob", "**"), allow("alice", "mine/**"))
    token = signed(await signing_key(desk.registry), claims(HELD))
    response = await ask(desk, client, row, HELD, bearer(token))
    if row.access is Action.PULL:
        assert response.status_code in (404, 200)
        assert digest_of(LAYER) not in response.text or response.status_code == 404
    else:
        open_to_all = row.access in (None, Action.CATALOG)
        assert response.status_code == (CASES[row.name, row.method].status if open_to_all else 403)


async def test_scopes_are_cut_to_what_is_granted(desk: Desk) -> None:
    """A token holds what the rules grant of what was asked for; what is unknown grants nothing and is no error."""
    client = await desk.open(
        allow("alice", "team/**", Action.PULL, Action.PUSH), deny("alice", "team/secret"), allow("bob", "**")
    )
    response = await fetch(
        client,
        "repository:team/app:pull,push,delete repository:team/secret:pull",
        "repository:library/x:*",
        "repository(plugin):team/plug:*",
        "registry:catalog:*",
        "registry:catalog:read",
        "repository:team/app:admin",
        "repository:*:pull",
        "repository:**:pull",
        "repository:Team/App:pull",
        "repository::pull",
        "what:ever:pull",
        "nothing",
        "",
    )
    body = response.json()
    assert body["token"] == body["access_token"]
    assert body["expires_in"] == 300
    assert body["issued_at"].endswith("Z")
    assert response.headers["cache-control"] == "no-store"
    said = jwt.decode(body["token"], options={"verify_signature": False})
    assert said["access"] == [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "team/plug", "actions": ["pull", "push"]},
    ]
    assert body["scope"] == "repository:team/app:pull,push repository:team/plug:pull,push"
    assert (said["sub"], said["iss"], said["aud"]) == ("alice", SERVICE, SERVICE)
    assert said["exp"] - said["iat"] == 300
    absent = await fetch(client, "repository:team/app:pull", "repository:absent/x:pull")
    assert absent.json()["scope"] == "repository:team/app:pull"


async def test_docker_login(desk: Desk) -> None:
    """A login asks for no scope: it gets a token that is good for the base, and learns that a password is wrong."""
    client = await desk.open(allow("nobody", "**"))
    response = await client.get(
        TOKEN,
        params={"account": "alice", "client_id": "docker", "offline_token": "true", "service": SERVICE},
        auth=("alice", "right"),
    )
    assert response.status_code == 200
    assert (await client.get("/v2/", headers=bearer(response.json()["token"]))).status_code == 200
    for name, password in (("alice", "wrong"), ("eve", "right"), ("alice", "")):
        refused = await client.get(TOKEN, params={"service": SERVICE}, auth=(name, password))
        assert refused.status_code == 401
        body = refused.json()
        assert body["errors"] == [{"code": "UNAUTHORIZED", "message": "wrong name or password"}]
        assert (body["error"], body["error_description"]) == ("invalid_grant", "wrong name or password")
        assert refused.headers["www-authenticate"].startswith("Basic ")


async def test_anonymous(desk: Desk) -> None:
    """Without credentials there is a token for what everybody may pull, and one for nothing otherwise."""
    client = await desk.open(allow("anonymous", "team/**", Action.PULL), allow("alice", "**"))
    token = await token_of(client, f"repository:{HELD}:pull,push", name="")
    assert (await client.get(f"/v2/{HELD}/tags/list", headers=bearer(token))).status_code == 200
    refused = await client.post(f"/v2/{HELD}/blobs/uploads/", headers=bearer(token))
    assert refused.status_code == 401
    assert challenge(refused)["scope"] == f"repository:{HELD}:pull,push"
    nothing = await token_of(client, "repository:private/x:pull", name="")
    for path in ("/v2/private/x/tags/list", f"/v2/{HELD}/tags/list", "/v2/", "/v2/_catalog"):
        assert (await client.get(path, headers=bearer(nothing))).status_code == 401


async def test_rules_are_asked_at_each_request(desk: Desk) -> None:
    """A rule that changes after a token was given holds for that token, too."""
    rules = Rules(EVERYTHING)
    app = app_with_tokens(desk.registry, desk.staff, rules)
    client = await desk.stack.enter_async_context(served(app))
    token = await token_of(client, f"repository:{HELD}:pull")
    path = f"/v2/{HELD}/tags/list"
    assert (await client.get(path, headers=bearer(token))).status_code == 200
    rules.rules = (deny("alice", "team/**"),)
    rules._known.clear()
    assert (await client.get(path, headers=bearer(token))).status_code == 404


async def test_whoever_is_gone_is_not_let_in(desk: Desk) -> None:
    """A removed user and a changed password end tokens and refresh tokens at once; groups are as they are now."""
    desk.staff.groups["alice"] = frozenset({"ops"})
    client = await desk.open(allow("@ops", "**"))
    response = await fetch(client, f"repository:{HELD}:pull", offline_token="true")
    token, refresh = response.json()["token"], response.json()["refresh_token"]
    path = f"/v2/{HELD}/tags/list"
    assert (await client.get(path, headers=bearer(token))).status_code == 200
    desk.staff.groups["alice"] = frozenset()
    assert (await client.get(path, headers=bearer(token))).status_code == 404
    desk.staff.groups["alice"] = frozenset({"ops"})
    assert (await client.get(path, headers=bearer(token))).status_code == 200
    desk.staff.passwords["alice"] = "another"
    refused = await client.get(path, headers=bearer(token))
    assert challenge(refused)["error"] == "invalid_token"
    errors(refused, 401, "UNAUTHORIZED")
    form = {"grant_type": "refresh_token", "refresh_token": refresh}
    assert (await client.post(TOKEN, data=form)).status_code == 401
    desk.staff.passwords["alice"] = "right"  # what was revoked stays so
    assert (await client.post(TOKEN, data=form)).status_code == 401


class TestOAuth:
    """``POST``, as OAuth 2 asks."""

    async def test_password(self, desk: Desk) -> None:
        """A password gives a token, and a refresh token where it is asked for."""
        client = await desk.open(*EVERYTHING)
        form = {"grant_type": "password", "username": "alice", "password": "right", "service": SERVICE}
        form |= {"scope": f"repository:{HELD}:pull registry:catalog:*", "client_id": "test"}
        body = (await client.post(TOKEN, data=form)).json()
        assert "refresh_token" not in body
        assert body["scope"] == f"repository:{HELD}:pull registry:catalog:*"
        assert (await client.get("/v2/_catalog", headers=bearer(body["access_token"]))).json() == {
            "repositories": [HELD]
        }
        assert (await client.post(TOKEN, data=form | {"access_type": "offline"})).json()["refresh_token"]
        refused = await client.post(TOKEN, data=form | {"password": "wrong"})
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_grant")

    async def test_refresh_token_is_kept(self, desk: Desk) -> None:
        """One that docker keeps is good as often as it is used, for any scope."""
        client = await desk.open(*EVERYTHING)
        refresh = (await fetch(client, offline_token="true")).json()["refresh_token"]
        for scope in (f"repository:{HELD}:pull", "registry:catalog:*", f"repository:{HELD}:pull"):
            form = {"grant_type": "refresh_token", "refresh_token": refresh, "service": SERVICE, "scope": scope}
            body = (await client.post(TOKEN, data=form)).json()
            assert body["scope"] == scope
            assert "refresh_token" not in body
        assert (await client.get("/v2/", headers=bearer(refresh))).status_code == 401

    @pytest.mark.parametrize(
        "wrong", [{"service": "other"}, {"scope": " ".join(f"repository:r{n}:pull" for n in range(101))}]
    )
    async def test_what_is_refused_uses_nothing_up(self, desk: Desk, wrong: dict[str, str]) -> None:
        """Who asks for a successor and is refused for another reason comes again with the token that he has."""
        client = await desk.open(*EVERYTHING)
        refresh = (await fetch(client, offline_token="true")).json()["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh, "access_type": "offline"}
        assert (await client.post(TOKEN, data=form | wrong)).status_code == 400
        response = await client.post(TOKEN, data=form)
        assert response.status_code == 200
        assert response.json()["refresh_token"] != refresh

    @pytest.mark.parametrize("replayed", [{}, {"access_type": "offline"}], ids=["used", "rotated"])
    async def test_replay(self, desk: Desk, replayed: dict[str, str]) -> None:
        """One that was used up and comes again ends all that came from its login, and nothing of another login."""
        client = await desk.open(*EVERYTHING)
        first = (await fetch(client, offline_token="true")).json()["refresh_token"]
        other = (await fetch(client, offline_token="true")).json()["refresh_token"]

        async def use(token: str, **more: str) -> httpx.Response:
            return await client.post(TOKEN, data={"grant_type": "refresh_token", "refresh_token": token, **more})

        second = (await use(first, access_type="offline")).json()["refresh_token"]
        third = (await use(second, access_type="offline")).json()["refresh_token"]
        assert len({first, second, third, other}) == 4
        assert (await use(third)).status_code == 200
        refused = await use(first, **replayed)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_grant")
        assert "used before" in refused.json()["error_description"]
        for token in (first, second, third):
            assert (await use(token)).status_code == 401
        assert (await use(other)).status_code == 200

    async def test_revocation(self, desk: Desk) -> None:
        """A refresh token can be ended by whoever has it; one that is not there is no error."""
        client = await desk.open(*EVERYTHING)
        refresh = (await fetch(client, offline_token="true")).json()["refresh_token"]
        for _ in range(2):
            assert (await client.post(f"{TOKEN}/revoke", data={"token": refresh})).status_code == 200
        form = {"grant_type": "refresh_token", "refresh_token": refresh}
        assert (await client.post(TOKEN, data=form)).status_code == 401

    async def test_what_is_no_request(self, desk: Desk) -> None:
        """What is wrong is named, in the form that OAuth clients and registry clients read."""
        client = await desk.open(*EVERYTHING)
        form = "application/x-www-form-urlencoded"
        exchange = "urn:ietf:params:oauth:grant-type:token-exchange"
        for body, kind, problem, named in (
            ("", form, "invalid_request", "grant_type"),
            ("grant_type=magic", form, "unsupported_grant_type", "magic"),
            ("grant_type=password&username=a", form, "invalid_request", "password"),
            ("grant_type=password&grant_type=password", form, "invalid_request", "grant_type"),
            ("grant_type=refresh_token", form, "invalid_request", "refresh_token"),
            (f"grant_type={exchange}&subject_token_type=saml", form, "invalid_request", "subject_token_type"),
            ('{"grant_type": "password"}', "application/json", "invalid_request", "Content-Type"),
            ("x=1&" * 200, form, "invalid_request", "form"),
            ("x=" + "y" * 70000, form, "invalid_request", "longer"),
            (b"x=\xff", form, "invalid_request", "form"),
            ("grant_type=password&username=alice&password=right&service=other", form, "invalid_request", SERVICE),
        ):
            response = await client.post(TOKEN, content=body, headers={"content-type": kind})
            assert response.status_code == 400, body
            said = response.json()
            assert said["error"] == problem
            assert named in said["error_description"]
            assert said["errors"][0]["message"] == said["error_description"]
        many = " ".join(f"repository:r{n}:pull" for n in range(101))
        assert (await fetch(client, many)).json()["error"] == "invalid_scope"
        assert (await fetch(client, service="other")).status_code == 400

    async def test_token_gives_no_token(self, desk: Desk) -> None:
        """A token is not exchanged for another, or it would never end."""
        client = await desk.open(*EVERYTHING)
        token = await token_of(client, "registry:catalog:*")
        assert (await client.get(TOKEN, headers=bearer(token))).status_code == 401
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        refused = await client.post(TOKEN, data=form)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_grant")

    @pytest.mark.parametrize("path", [TOKEN, f"{TOKEN}/revoke", f"{TOKEN}/keys"])
    async def test_methods(self, desk: Desk, path: str) -> None:
        """Other methods are told what is allowed."""
        client = await desk.open(*EVERYTHING)
        response = await client.delete(path)
        assert response.headers["allow"]
        errors(response, 405, "UNSUPPORTED")


async def test_keys_verify_elsewhere(desk: Desk) -> None:
    """Anybody can verify a token with the published keys."""
    for algorithm in ("EdDSA", "ES256"):
        client = await desk.open(*EVERYTHING, token_algorithm=algorithm, token_service="reg.test")
        response = await client.get(TOKEN, auth=("alice", "right"))
        keys = jwt.PyJWKSet.from_dict((await client.get(f"{TOKEN}/keys")).json())
        kid = jwt.get_unverified_header(response.json()["token"])["kid"]
        said = jwt.decode(
            response.json()["token"], keys[kid].key, algorithms=[algorithm], audience="reg.test", issuer="reg.test"
        )
        assert said["sub"] == "alice"
        assert "d" not in (await client.get(f"{TOKEN}/keys")).json()["keys"][0]


async def test_rotation(desk: Desk) -> None:
    """After a rotation new tokens have a new key, and old ones are good till their end; or not, if it is at once."""
    client = await desk.open(*EVERYTHING)
    path = f"/v2/{HELD}/tags/list"
    scope = f"repository:{HELD}:pull"
    tokens = [await token_of(client, scope)]
    tools = Tokens(desk.registry.metadata)  # as another process has it
    kids = [jwt.get_unverified_header(tokens[0])["kid"]]
    for _ in range(2):
        kids.append(await tools.rotate_key())
        tokens.append(await token_of(client, scope))
        assert jwt.get_unverified_header(tokens[-1])["kid"] == kids[-1]
        assert {each["kid"] for each in (await client.get(f"{TOKEN}/keys")).json()["keys"]} == set(kids)
        for token in tokens:
            assert (await client.get(path, headers=bearer(token))).status_code == 200
    kids = [await tools.rotate_key(at_once=True)]
    fresh = await token_of(client, scope)
    assert (await client.get(path, headers=bearer(fresh))).status_code == 200
    for token in tokens:
        assert challenge(await client.get(path, headers=bearer(token)))["error"] == "invalid_token"
    assert {each["kid"] for each in (await client.get(f"{TOKEN}/keys")).json()["keys"]} == set(kids)


async def test_time(desk: Desk) -> None:
    """Tokens and keys end by the clock: a token after its lifetime, the key before when its last token has ended."""
    now = 1_000_000.0

    def clock() -> float:
        return now

    tokens = Tokens(desk.registry.metadata, clock=clock)
    async with tokens:
        tokens.know([desk.staff])
        identity = desk.staff._identity("alice", "right")
        refresh = await tokens.refresh_token(identity)
        await tokens.rotate_key()
        assert len(await tokens.keys()) == 2
        now += 311
        assert len(await tokens.keys()) == 1
        assert (await tokens.renew(refresh)).name == "alice"
        now += 30 * 86400
        with pytest.raises(TokenInvalid):
            await tokens.renew(refresh)


async def test_realm_behind_a_proxy(desk: Desk) -> None:
    """The realm is the address that clients know."""
    client = await desk.open(*EVERYTHING, public_url="https://reg.example/sub")
    asked = challenge(await client.get("/v2/"))
    assert asked == {"realm": "https://reg.example/sub/v2/token", "service": "reg.example"}
    proxied = await desk.open(*EVERYTHING, trusted_proxies=["127.0.0.1"])
    headers = {"x-forwarded-proto": "https", "x-forwarded-host": "p.example"}
    assert challenge(await proxied.get("/v2/", headers=headers))["realm"] == "https://p.example/v2/token"


async def test_mount_asks_for_both(desk: Desk) -> None:
    """A mount needs the right to pull from where it takes, and says so."""
    client = await desk.open(*EVERYTHING)
    path = f"/v2/mine/app/blobs/uploads/?mount={digest_of(LAYER)}&from={HELD}"
    asked = challenge(await client.post(path))["scope"]
    assert asked == f"repository:mine/app:pull,push repository:{HELD}:pull"
    assert (await client.post(path, headers=bearer(await token_of(client, asked)))).status_code == 201
    alone = await token_of(client, "repository:mine/other:pull,push")
    other = path.replace("mine/app", "mine/other")
    response = await client.post(other, headers=bearer(alone))
    assert challenge(response)["error"] == "insufficient_scope"
    assert challenge(response)["scope"] == f"repository:mine/other:pull,push repository:{HELD}:pull"
    # Without a source only what the token may pull is looked at.
    assert (await client.post(other.partition("&")[0], headers=bearer(alone))).status_code == 202


async def test_mount_from_what_is_hidden(desk: Desk) -> None:
    """No token helps to mount from where one may not pull, so none is asked for, whether or not it is there."""
    client = await desk.open(allow("alice", "mine/**"))
    token = await token_of(client, f"repository:mine/app:pull,push repository:{HELD}:pull")
    for source in (HELD, "not/there"):
        path = f"/v2/mine/app/blobs/uploads/?mount={digest_of(LAYER)}&from={source}"
        assert (await client.post(path, headers=bearer(token))).status_code == 202


async def test_basic_is_still_taken(desk: Desk) -> None:
    """Where tokens are on, a password with each request is good as well, and not asked for."""
    client = await desk.open(*EVERYTHING)
    assert (await client.get(f"/v2/{HELD}/tags/list", auth=("alice", "right"))).status_code == 200
    refused = await client.get(f"/v2/{HELD}/tags/list", auth=("alice", "wrong"))
    assert challenge(refused)["scope"] == f"repository:{HELD}:pull"


async def test_secrets_stay_out_of_the_database(desk: Desk) -> None:
    """Of a refresh token only a digest is kept."""
    client = await desk.open(*EVERYTHING)
    refresh = (await fetch(client, offline_token="true")).json()["refresh_token"]
    connection = desk.registry.metadata._reader  # type: ignore[attr-defined]
    dump = "\n".join(connection.iterdump())
    assert "alice" in dump
    assert refresh not in dump
    assert refresh.removeprefix("mrt_") not in dump
