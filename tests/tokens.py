"""Users with passwords, a registry that gives them tokens, and tokens that were tampered with."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from moorage import Registry, Settings, create_app
from moorage.auth.base import Authorizer, Challenge, Credentials, Identity
from moorage.auth.signing import SigningKey
from moorage.metadata import tokens as facts
from moorage.spec.errors import Unauthorized

SERVICE = "moorage"
TOKEN = "/v2/token"


@dataclass
class Staff:
    """Users by name and password. Whoever has another password now, or is no longer there, is not known again."""

    passwords: dict[str, str] = field(default_factory=lambda: {"alice": "right", "bob": "right"})
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    methods: tuple[str, ...] = ("staff",)
    challenges: tuple[Challenge, ...] = (Challenge("Basic", (("realm", "staff"),)),)

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if credentials.name is None:
            return None
        found = self.passwords.get(credentials.name)
        if found is None or found != credentials.password:
            raise Unauthorized("wrong name or password")
        return self._identity(credentials.name, found)

    async def recall(self, identity: Identity) -> Identity | None:
        found = self.passwords.get(identity.name)
        if found is None or identity.proof != hashlib.sha256(found.encode()).hexdigest():
            return None
        return self._identity(identity.name, found)

    def _identity(self, name: str, password: str) -> Identity:
        proof = hashlib.sha256(password.encode()).hexdigest()
        return Identity(name, self.groups.get(name, frozenset()), method="staff", local=True, proof=proof)


def app_with_tokens(registry: Registry, staff: Staff, authorizer: Authorizer | None, **settings: Any) -> Any:
    """An application that gives ``staff`` tokens."""
    described = Settings(storage="memory", authentication=["tokens"], **settings)
    return create_app(registry, settings=described, authenticators=[staff], authorizer=authorizer)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def fetch(client: httpx.AsyncClient, *scopes: str, name: str = "alice", **more: str) -> httpx.Response:
    """``GET /v2/token`` as docker asks."""
    parameters: list[tuple[str, str | int | float | bool | None]] = [
        ("service", SERVICE),
        *(("scope", scope) for scope in scopes),
        *more.items(),
    ]
    return await client.get(TOKEN, params=parameters, auth=(name, "right") if name else None)


async def token_of(client: httpx.AsyncClient, *scopes: str, name: str = "alice") -> str:
    """A token with these scopes."""
    response = await fetch(client, *scopes, name=name)
    assert response.status_code == 200, response.text
    token: str = response.json()["token"]
    return token


async def signing_key(registry: Registry) -> SigningKey:
    """The very key that the registry signs with."""
    stored = (await facts.keys(registry.metadata, 0.0))[0]
    return SigningKey.load(stored.kid, stored.algorithm, stored.private)


def claims(repository: str, **changes: Any) -> dict[str, Any]:
    """The claims of a good token for everything in ``repository``; one that is changed to None is left out."""
    now = int(time.time())
    access = [{"type": "repository", "name": repository, "actions": ["pull", "push", "create", "retag", "delete"]}]
    catalog = {"type": "registry", "name": "catalog", "actions": ["*"]}
    made = {
        "iss": SERVICE, "aud": SERVICE, "sub": "alice", "iat": now, "nbf": now, "exp": now + 300, "jti": str(uuid4()),
        "access": [*access, catalog], "via": ["elsewhere", ""], "groups": [], "local": True,
    }  # fmt: skip
    return {name: value for name, value in (made | changes).items() if value is not None}


def encode(part: bytes | Mapping[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(key: SigningKey, payload: Mapping[str, Any], **header: Any) -> str:
    """A token signed with ``key``, whose header says ``header`` beside the usual."""
    return jwt.encode(dict(payload), key.private, key.algorithm, {"kid": key.kid, **header})


def hmac_signed(secret: bytes, payload: Mapping[str, Any], **header: Any) -> str:
    """A token signed with a secret, as one does who hopes that a public key is taken for one."""
    body = f"{encode({'alg': 'HS256', 'typ': 'JWT', **header})}.{encode(payload)}"
    return f"{body}.{encode(hmac.digest(secret, body.encode(), 'sha256'))}"


def _of_other_key(key: SigningKey, good: dict[str, Any]) -> str:
    return signed(SigningKey(key.kid, "EdDSA", ed25519.Ed25519PrivateKey.generate()), good)


def _with_its_own_key(name: str, key: SigningKey, good: dict[str, Any]) -> str:
    other = SigningKey.make("EdDSA")
    value: Any = other.verification().jwk() if name == "jwk" else "https://attacker.test/keys"
    return signed(SigningKey(key.kid, "EdDSA", other.private), good, **{name: value})


def _public(key: SigningKey, encoding: Encoding) -> bytes:
    form = PublicFormat.Raw if encoding is Encoding.Raw else PublicFormat.SubjectPublicKeyInfo
    found: bytes = key.private.public_key().public_bytes(encoding, form)
    return found


def _cut(key: SigningKey, good: dict[str, Any], part: int, *, turned: bool = False) -> str:
    parts = signed(key, good).split(".")
    text = parts[part]
    middle = len(text) // 2
    parts[part] = text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :] if turned else text[:-4]
    return ".".join(parts)


NOW = time.time()
HOUR = 3600
# Each takes the registry's own key and good claims: whoever could make these has seen a token, or stolen a key's use.
TAMPERED: dict[str, Callable[[SigningKey, dict[str, Any]], str]] = {
    "alg none": lambda _, good: f"{encode({'alg': 'none', 'typ': 'JWT'})}.{encode(good)}.",
    "alg None with kid": lambda key, good: f"{encode({'alg': 'None', 'kid': key.kid})}.{encode(good)}.",
    "alg none, signature kept": lambda key, good: ".".join(
        [encode({"alg": "none", "kid": key.kid}), *signed(key, good).split(".")[1:]]
    ),
    "no alg": lambda key, good: ".".join([encode({"kid": key.kid}), *signed(key, good).split(".")[1:]]),
    "HS256, public key as PEM": lambda key, good: hmac_signed(_public(key, Encoding.PEM), good, kid=key.kid),
    "HS256, public key as DER": lambda key, good: hmac_signed(_public(key, Encoding.DER), good, kid=key.kid),
    "HS256, public key raw": lambda key, good: hmac_signed(_public(key, Encoding.Raw), good, kid=key.kid),
    "HS256, empty secret": lambda key, good: hmac_signed(b"", good, kid=key.kid),
    "other key": _of_other_key,
    "other kid": lambda key, good: signed(key, good, kid="another"),
    "no kid": lambda key, good: jwt.encode(good, key.private, key.algorithm),
    "kid of another type": lambda key, good: ".".join(
        [encode({"alg": "EdDSA", "kid": ["x"]}), *signed(key, good).split(".")[1:]]
    ),
    "kid that is a path": lambda key, good: signed(key, good, kid="../../../etc/passwd' OR 1=1 --"),
    "key in the header": lambda key, good: _with_its_own_key("jwk", key, good),
    "address of a key in the header": lambda key, good: _with_its_own_key("jku", key, good),
    "unknown critical header": lambda key, good: signed(key, good, crit=["x"], x=1),
    "expired": lambda key, good: signed(key, good | {"exp": NOW - 60}),
    "nbf to come": lambda key, good: signed(key, good | {"nbf": NOW + HOUR, "exp": NOW + 2 * HOUR}),
    "iat to come": lambda key, good: signed(key, good | {"iat": NOW + HOUR, "exp": NOW + 2 * HOUR}),
    "exp that is no number": lambda key, good: signed(key, good | {"exp": "never"}),
    "other audience": lambda key, good: signed(key, good | {"aud": "elsewhere"}),
    "other audiences": lambda key, good: signed(key, good | {"aud": ["elsewhere", "nowhere"]}),
    "audience of another type": lambda key, good: signed(key, good | {"aud": {"moorage": 1}}),
    "other issuer": lambda key, good: signed(key, good | {"iss": "https://elsewhere.test"}),
    "issuer of another type": lambda key, good: hmac_signed(b"x", good | {"iss": [SERVICE]}, kid=key.kid),
    "header cut": lambda key, good: _cut(key, good, 0),
    "payload cut": lambda key, good: _cut(key, good, 1),
    "signature cut": lambda key, good: _cut(key, good, 2),
    "payload changed": lambda key, good: _cut(key, good, 1, turned=True),
    "signature changed": lambda key, good: _cut(key, good, 2, turned=True),
    "no signature": lambda key, good: signed(key, good).rpartition(".")[0],
    "empty signature": lambda key, good: signed(key, good).rpartition(".")[0] + ".",
    "a part too many": lambda key, good: signed(key, good) + ".e30",
    "huge": lambda key, good: signed(key, good | {"padding": "x" * 16384}),
    "deep": lambda key, _: f"{encode({'alg': 'EdDSA', 'kid': key.kid})}.{encode(b'[' * 9000)}.e30",
    "payload that is no object": lambda key, _: jwt.api_jws.encode(b"[1]", key.private, "EdDSA", {"kid": key.kid}),
    "payload that is no JSON": lambda key, _: jwt.api_jws.encode(b"\xff", key.private, "EdDSA", {"kid": key.kid}),
    "empty": lambda *_: "",
    "dots": lambda *_: "..",
    "a refresh token": lambda *_: "mrt_" + "x" * 43,
    **{
        f"no {name}": lambda key, good, name=name: signed(key, {k: v for k, v in good.items() if k != name})  # type: ignore[misc]
        for name in ("iss", "aud", "sub", "iat", "nbf", "exp", "jti")
    },
}
