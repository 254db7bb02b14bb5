"""Tokens of other issuers through the door: a real OpenID provider, and a token service that decides by itself."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from moorage import Registry, Settings, create_app, open_registry
from moorage.auth import issuers
from moorage.auth.issuers import IssuerKeys, IssuerOptions
from moorage.auth.rules import Rule, Rules
from moorage.fetching import Fetcher
from moorage.issuer_settings import IdentityRule, IssuerSetting
from moorage.spec.actions import Action
from moorage.spec.errors import IssuerUnavailable
from tests.issuer import AUDIENCE, Issuer, IssuerKey, issuing
from tests.support import Repository, served
from tests.tokens import TOKEN, bearer, hmac_signed
from tests.web.test_access import allow, deny

PIPELINE = IdentityRule({"repository": "acme/*", "ref": "refs/heads/main"}, "ci:{repository}", ["release", "{ref}"])
PUSHES = (allow("@release", "acme/**"), allow("ci:other/app", "other/**", Action.PULL))
MINE = "/v2/acme/app/tags/list"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as found:
        yield found


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as found:
        yield found


async def door(
    registry: Registry, stack: AsyncExitStack, setting: IssuerSetting, *rules: Rule, tokens: bool = False
) -> httpx.AsyncClient:
    authentication = ["issuers", *["tokens"] * tokens]
    settings = Settings(storage="memory", authentication=authentication, issuers=[setting])
    app = create_app(registry, settings=settings, authorizer=Rules(rules or PUSHES))
    stack.push_async_callback(app.aclose)
    return await stack.enter_async_context(served(app, checked=False))


def setting_of(issuer: Issuer, **more: Any) -> IssuerSetting:
    identities = more.pop("identities", [PIPELINE])
    return IssuerSetting(issuer.url, [AUDIENCE], identities=identities, **more)


async def test_id_token_as_password_and_as_bearer(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """An id token is taken under any name as a password, and as a bearer token; the rules decide by what it says."""
    client = await door(registry, stack, setting_of(issuer))
    token = issuer.token()
    for headers, auth in ((bearer(token), None), ({}, httpx.BasicAuth("anyone", token))):
        client.headers, client.auth = httpx.Headers(headers), auth or httpx.Auth()
        await Repository(client, "acme/app").push_image("v1")
        assert (await client.post("/v2/other/app/blobs/uploads/")).status_code == 403
    assert issuer.asked.count("/jwks") == 1
    events = registry.metadata._reader.execute("SELECT DISTINCT actor FROM events").fetchall()  # type: ignore[attr-defined]
    assert events == [("ci:acme/app",)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repository": "evil/app"}, "nobody whom this registry knows"),
        ({"repository": "acme/app/more"}, "nobody whom this registry knows"),
        ({"repository": None}, "nobody whom this registry knows"),
        ({"repository": {"x": "acme/app"}}, "nobody whom this registry knows"),
        ({"ref": "refs/heads/main2"}, "nobody whom this registry knows"),
        ({"repository": ["acme/app", "acme/b"]}, "identity is made of"),
        ({"aud": "https://elsewhere.test"}, "another audience"),
        ({"aud": ["https://elsewhere.test", "x"]}, "another audience"),
        ({"aud": None}, "lacks a claim"),
        ({"exp": int(time.time()) - 60}, "expired"),
        ({"exp": None}, "lacks a claim"),
        ({"nbf": int(time.time()) + 3600}, "not valid yet"),
        ({"iss": "https://elsewhere.test"}, ""),
        ({"iss": None}, ""),
    ],
    ids=str,
)
async def test_refused(
    registry: Registry, stack: AsyncExitStack, issuer: Issuer, changes: dict[str, Any], said: str
) -> None:
    """What no rule maps, and what is not for this registry, is nobody's; and it is said why."""
    client = await door(registry, stack, setting_of(issuer))
    assert (await client.get("/v2/", headers=bearer(issuer.token()))).status_code == 200
    response = await client.get("/v2/", headers=bearer(issuer.token(**changes)))
    assert response.status_code == 401
    assert said in response.json()["errors"][0]["message"]
    assert (await client.get("/v2/", auth=("x", issuer.token(**changes)))).status_code == 401


async def test_tampered(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """Only the issuer's own keys, with their own algorithm, are taken."""
    client = await door(registry, stack, setting_of(issuer))
    key = issuer.keys[0]
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = issuer.token().split(".")
    for wrong in (
        issuer.token(key=IssuerKey(key.kid)),
        issuer.token(key=IssuerKey("unknown")),
        issuer.token(algorithm="PS256"),
        issuer.token(algorithm="RS512"),
        hmac_signed(pem, claims, kid=key.kid),
        f"{parts[0]}.{parts[1]}.",
        ".".join([jwt.utils.base64url_encode(b'{"alg":"none","kid":"one"}').decode(), parts[1], ""]),
    ):
        assert (await client.get("/v2/", headers=bearer(wrong))).status_code == 401
        assert (await client.get("/v2/", auth=("x", wrong))).status_code == 401


async def test_first_rule_that_matches(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """Rules are looked through in their order; claims within claims, lists, numbers and truth values are matched."""
    identities = [
        IdentityRule({"kubernetes.io/namespace": "build"}, "k8s:{kubernetes.io/serviceaccount/name}"),
        IdentityRule({"groups": ["ops", "dev*"], "verified": "true", "project": "42"}, "p{project}", ["{ref}"]),
        IdentityRule({"sub": "**"}, "rest"),
    ]
    rules = [
        allow("k8s:robot", "k/**"),
        allow("p42", "p/**"),
        allow("@refs/heads/main", "g/**"),
        allow("rest", "r/**"),
    ]
    client = await door(registry, stack, setting_of(issuer, identities=identities), *rules)
    pod = {"kubernetes.io": {"namespace": "build", "serviceaccount": {"name": "robot"}}}
    for claims, granted in (
        (pod, {"k"}),
        ({"groups": ["x", "dev-1"], "verified": True, "project": 42}, {"p", "g"}),
        ({"groups": ["x"], "verified": True, "project": 42}, {"r"}),
        ({"groups": ["ops"], "verified": False, "project": 42}, {"r"}),
        ({"kubernetes.io": "build"}, {"r"}),
    ):
        headers = bearer(issuer.token(**claims))
        statuses = {
            name: (await client.post(f"/v2/{name}/x/blobs/uploads/", headers=headers)).status_code for name in "kpgr"
        }
        assert statuses == {name: 202 if name in granted else 403 for name in "kpgr"}, claims


@pytest.mark.parametrize(
    "name", ["anonymous", "local", "*", "@release", "key:ci", "a b", "a*", "{user}", "x" * 300, "", "a\n"]
)
async def test_names_that_cannot_be(registry: Registry, stack: AsyncExitStack, issuer: Issuer, name: str) -> None:
    """A claim cannot make a name that means something else to the rules."""
    identities = [IdentityRule({"iss": "**"}, "{name}")]
    rules = [allow("*", "**"), allow("local", "**"), allow("anonymous", "**", Action.PULL)]
    client = await door(registry, stack, setting_of(issuer, identities=identities), *rules)
    assert (await client.get("/v2/", headers=bearer(issuer.token(name="good")))).status_code == 200
    assert (await client.get("/v2/", headers=bearer(issuer.token(name=name)))).status_code == 401


async def test_exchange(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """An id token is exchanged for one of the registry's, which ends no later and has no refresh token."""
    client = await door(registry, stack, setting_of(issuer), tokens=True)
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": issuer.token(exp=int(time.time()) + 90),
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "scope": "repository:acme/app:pull,push repository:other/app:push",
        "access_type": "offline",
    }
    body = (await client.post(TOKEN, data=form)).json()
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert body["token_type"] == "Bearer"
    assert body["scope"].startswith("repository:acme/app:pull,push")
    assert "other" not in body["scope"]
    assert "refresh_token" not in body
    assert 80 < body["expires_in"] <= 90
    client.headers = httpx.Headers(bearer(body["access_token"]))
    await Repository(client, "acme/app").push_image("v1")
    client.headers = httpx.Headers()
    # docker sends it as a password, and asks for a refresh token.
    login = await client.get(TOKEN, params={"offline_token": "true"}, auth=("ci", issuer.token()))
    assert login.status_code == 200
    assert "refresh_token" not in login.json()
    assert (await client.post(TOKEN, data=form | {"subject_token": "x"})).status_code == 401
    refused = await client.post(TOKEN, data=form | {"subject_token": issuer.token(repository="evil/app")})
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_grant")


def access(*entries: tuple[str, str, list[str]]) -> list[dict[str, Any]]:
    return [{"type": kind, "name": name, "actions": actions} for kind, name, actions in entries]


async def test_token_decides(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """A token service's ``access`` decides by itself, but for a rule that denies; a 401 names its realm."""
    realm = "https://gitlab.test/jwt/auth"
    setting = setting_of(issuer, identities=[], access="token", realm=realm, service="reg")
    client = await door(registry, stack, setting, deny("*", "acme/secret"), deny("anonymous", "acme/secret"))
    challenge = f'Bearer realm="{realm}",service="reg"'
    assert (await client.get("/v2/")).headers["www-authenticate"] == challenge
    asked = (await client.get(MINE)).headers["www-authenticate"]
    assert asked == f'{challenge},scope="repository:acme/app:pull"'
    client.headers = httpx.Headers(
        bearer(
            issuer.token(
                access=access(("repository", "acme/app", ["pull", "push"]), ("repository", "acme/secret", ["*"]))
            )
        )
    )
    await Repository(client, "acme/app").push_image("v1")
    for method, path in (
        ("DELETE", "/v2/acme/app/manifests/v1"),
        ("GET", "/v2/acme/b/tags/list"),
        ("GET", "/v2/_catalog"),
    ):
        refused = await client.request(method, path)
        assert refused.status_code == 401
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    assert (await client.get("/v2/acme/secret/tags/list")).status_code == 404
    assert (await client.post("/v2/acme/secret/blobs/uploads/")).status_code == 403
    for sub in ("", None):  # whoever has not logged in at the service
        headers = bearer(issuer.token(sub=sub, access=access(("repository", "acme/app", ["pull", "push"]))))
        assert (await client.get(MINE, headers=headers)).status_code == 200
        assert (await client.post("/v2/acme/app/blobs/uploads/", headers=headers)).status_code in (401, 403)
    for wrong in (None, "x", [], [1], {"a": 1}, access(("repository", "acme/*", ["pull"])), [{"type": "repository"}]):
        refused = await client.get(MINE, headers=bearer(issuer.token(access=wrong)))
        assert refused.status_code == 401, wrong
    good = issuer.token(access=access(("repository", "acme/app", ["pull"])))
    assert (await client.get(MINE, headers=bearer(good))).status_code == 200
    del client.headers["authorization"]
    assert (await client.get(MINE, auth=("x", good))).status_code == 401  # it is no password


async def test_keys_from_a_file(registry: Registry, stack: AsyncExitStack, tmp_path: Path) -> None:
    """Keys may stand in a file: PEM, or a JWK set. Without kid each key is tried, with its own algorithm only."""
    issuer, other = Issuer("harbor-token-issuer"), ec.generate_private_key(ec.SECP256R1())
    pem = b"".join(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in (other, issuer.keys[0].private)
    )
    for name, content in (("keys.pem", pem), ("keys.json", json.dumps(issuer.answer("/jwks")).encode())):
        (tmp_path / name).write_bytes(content)
        client = await door(registry, stack, setting_of(issuer, keys=str(tmp_path / name)))
        assert (await client.get("/v2/", headers=bearer(issuer.token()))).status_code == 200
        secret = hmac_signed(pem, jwt.decode(issuer.token(), options={"verify_signature": False}))
        assert (await client.get("/v2/", headers=bearer(secret))).status_code == 401


async def test_keys_that_are_left_out(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """Secrets, keys for encryption, short keys and keys whose algorithm does not fit verify nothing."""
    good = issuer.keys[0]
    short = IssuerKey("short", rsa.generate_private_key(65537, 1024))

    def answer(path: str) -> dict[str, Any]:
        if path != "/jwks":
            return {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks"}
        secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}
        return {
            "keys": [
                secret,
                {**good.jwk(), "kid": "enc", "use": "enc"},
                {**good.jwk(), "kid": "none", "alg": "none"},
                {**good.jwk(), "kid": "hs", "alg": "HS256"},
                short.jwk(),
                {"kty": "what"},
                {},
                good.jwk(),
            ]
        }

    issuer.answer = answer  # type: ignore[method-assign]
    client = await door(registry, stack, setting_of(issuer))
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    assert (await client.get("/v2/", headers=bearer(issuer.token()))).status_code == 200
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        weak = issuer.token(key=short)
    for wrong in (
        weak,
        hmac_signed(b"secret", claims, kid="oct"),
        *(issuer.token(key=IssuerKey(kid, good.private)) for kid in ("enc", "none", "hs")),
    ):
        assert (await client.get("/v2/", headers=bearer(wrong))).status_code == 401


async def test_issuer_that_is_down(
    registry: Registry, stack: AsyncExitStack, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys 503; with those fetched before, all goes on; new ones are found without a restart."""
    monkeypatch.setattr(issuers, "_PAUSE", 0.0)
    client = await door(registry, stack, setting_of(issuer))
    issuer.down = True
    refused = await client.get("/v2/", headers=bearer(issuer.token()))
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    issuer.down = False
    assert (await client.get("/v2/", headers=bearer(issuer.token()))).status_code == 200
    issuer.down = True
    assert (await client.get("/v2/", headers=bearer(issuer.token(jti="another")))).status_code == 200
    new = IssuerKey("two")
    assert (await client.get("/v2/", headers=bearer(issuer.token(key=new)))).status_code == 401
    issuer.down = False
    issuer.keys.append(new)
    assert (await client.get("/v2/", headers=bearer(issuer.token(key=new)))).status_code == 200


async def test_unknown_keys_are_looked_for_seldom(registry: Registry, stack: AsyncExitStack, issuer: Issuer) -> None:
    """Tokens with keys that are made up do not make the registry ask the issuer each time."""
    client = await door(registry, stack, setting_of(issuer))
    for n in range(20):
        token = issuer.token(key=IssuerKey(f"made-up-{n}", issuer.keys[0].private))
        assert (await client.get("/v2/", headers=bearer(token))).status_code == 401
    assert issuer.asked.count("/jwks") == 1


async def test_old_keys_are_renewed_beside_the_requests(issuer: Issuer) -> None:
    """Keys are fetched anew after an hour, and nobody waits for it; a key that is withdrawn is good no more then."""
    now = 0.0
    options = IssuerOptions(issuer=issuer.url, audience=[AUDIENCE])
    keys = IssuerKeys(options, Fetcher(), lambda: now)
    assert [key.kid for key in await keys.candidates("one")] == ["one"]
    now += 3500
    await keys.candidates("one")
    assert issuer.asked.count("/jwks") == 1
    issuer.keys = [IssuerKey("two")]
    now += 200
    assert [key.kid for key in await keys.candidates("one")] == ["one"]
    assert keys._renewing is not None
    await keys._renewing
    assert await keys.candidates("one") == []
    await keys.close()


@pytest.mark.parametrize("fault", ["named", "http", "no keys", "not JSON", "redirect"])
async def test_what_an_issuer_may_not_say(issuer: Issuer, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """A discovery document of somebody else, and keys that others could change on the way, are not believed."""
    options = IssuerOptions(issuer=issuer.url, audience=[AUDIENCE])

    async def fetch(location: str) -> bytes:
        named = "https://elsewhere.test" if fault == "named" else options.issuer
        if location.endswith("openid-configuration"):
            where = "http://elsewhere.test/jwks" if fault == "http" else f"{options.issuer}/jwks"
            return json.dumps({"issuer": named, "jwks_uri": where}).encode()
        return b'{"keys": []}' if fault == "no keys" else b"<html>"

    if fault == "http":
        options = IssuerOptions(issuer="https://issuer.test", audience=[AUDIENCE])
    keys = IssuerKeys(options, fetch)
    with caplog.at_level(logging.ERROR), pytest.raises(IssuerUnavailable):
        await keys.candidates("one")
    assert options.issuer in caplog.text


async def test_token_for_the_keys(issuer: Issuer, tmp_path: Path) -> None:
    """The keys of a cluster are asked for with the token of a file, which is read anew each time."""
    file = tmp_path / "token"
    file.write_text("first\n")
    fetch = Fetcher(token_file=str(file))
    await fetch(f"{issuer.url}/jwks")
    file.write_text("second")
    await fetch(f"{issuer.url}/jwks")
    assert issuer.authorization == ["Bearer first", "Bearer second"]
    for location, error in (("ftp://a.test/x", ValueError), (f"{issuer.url}/none", OSError), ("/no/file", OSError)):
        with pytest.raises(error):
            await fetch(location)
