"""Tokens of other issuers: of an OpenID provider, or of a token service that knows the ``access`` claim.

An OpenID provider says who somebody is; claims are mapped to an identity, and the rules decide what it may do. A
token service may decide that by itself, in the token.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import msgspec

from moorage.auth.base import ANONYMOUS, Challenge, Credentials, Identity
from moorage.auth.remembered import Remembered
from moorage.auth.scopes import ASKED, of_claim
from moorage.auth.signing import VerificationKey, candidates, read_keys
from moorage.auth.tokens import is_signed, unverified, verify
from moorage.auth.words import is_word
from moorage.spec.errors import IssuerUnavailable, TokenInvalid
from moorage.spec.patterns import matches

Fetch = Callable[[str], Awaitable[bytes]]

_DISCOVERY: Final = "/.well-known/openid-configuration"
_FRESH: Final = 3600.0  # seconds; keys are fetched anew after that
_FILE_FRESH: Final = 60.0
_PAUSE: Final = 10.0  # seconds between two attempts
_PLACE: Final = re.compile(r"\{([^{}]+)\}")
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f*{}]{1,255}")
_log = logging.getLogger("moorage.tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRule:
    """Whose claims all match one of their patterns is ``identity``, in ``groups``.

    In both, ``{claim}`` stands for a claim's value. A claim within another is written with a slash.
    """

    claims: Mapping[str, Sequence[str]]
    identity: str
    groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerOptions:
    """An issuer whose tokens are taken.

    ``keys`` is the URL or the file of its keys; None where its discovery document names them. With ``decides`` its
    ``access`` claim says what may be done. ``realm`` and ``service`` tell clients where to get its tokens.
    """

    issuer: str
    audience: Sequence[str]
    keys: str | None = None
    rules: Sequence[ClaimRule] = ()
    decides: bool = False
    realm: str | None = None
    service: str | None = None


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class IssuerKeys:
    """The keys of an issuer: fetched when needed, kept while it cannot be reached."""

    def __init__(self, options: IssuerOptions, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._fetch = fetch
        self._clock = clock
        self._fresh = _FRESH if options.keys is None or "://" in options.keys else _FILE_FRESH
        self._keys: Sequence[VerificationKey] = ()
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    async def candidates(self, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that may have signed a token; raises ``IssuerUnavailable`` where none could be had yet."""
        found = candidates(self._keys, kid)
        if not found:
            await self.renew()
            found = candidates(self._keys, kid)
        elif self._clock() - self._fetched > self._fresh and self._may_try():
            self._renewing = asyncio.create_task(self.renew())  # nobody waits: the keys at hand are good
        if not self._keys:
            raise IssuerUnavailable(detail={"issuer": self._options.issuer}, headers={"Retry-After": f"{_PAUSE:.0f}"})
        return found

    async def renew(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; what goes wrong is logged, and the old ones stay."""
        async with self._lock:
            if not self._may_try():
                return
            self._tried = self._clock()
            try:
                self._keys = read_keys(await self._fetch(await self._location()))
                self._fetched = self._clock()
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                kept = f"; {len(self._keys)} keys stay in use" if self._keys else ""
                _log.error("the keys of %s cannot be had: %s%s", self._options.issuer, error, kept)

    def _may_try(self) -> bool:
        return self._clock() - self._tried >= _PAUSE

    async def _location(self) -> str:
        if self._options.keys is not None:
            return self._options.keys
        issuer = self._options.issuer
        found = msgspec.json.decode(await self._fetch(issuer.rstrip("/") + _DISCOVERY), type=_Discovery)
        if found.issuer != issuer:
            raise ValueError(f"its discovery document is that of {found.issuer!r}")
        if issuer.startswith("https://") and not found.jwks_uri.startswith("https://"):
            raise ValueError(f"its keys are at {found.jwks_uri!r}, which is not HTTPS")
        return found.jwks_uri

    async def close(self) -> None:
        """End what runs in the background."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)


class Issuers:
    """The ``Authenticator`` that takes tokens of other issuers: as a bearer token, or as a password by any name."""

    def __init__(
        self,
        issuers: Sequence[IssuerOptions],
        fetch: Callable[[IssuerOptions], Fetch],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = {each.issuer: (each, IssuerKeys(each, fetch(each))) for each in issuers}
        self._clock = clock
        self._remembered: Remembered[Identity] = Remembered()
        self._starting: list[asyncio.Task[None]] = []
        self.challenges = tuple(
            Challenge("Bearer", (("realm", each.realm), ("service", each.service or each.audience[0])), scoped=True)
            for each in issuers
            if each.realm
        )

    async def __aenter__(self) -> Self:
        # So that an issuer that cannot be reached is told at the start, which does not wait for it.
        self._starting = [asyncio.create_task(keys.renew()) for _, keys in self._issuers.values()]
        return self

    async def __aexit__(self, *exception: object) -> None:
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for _, keys in self._issuers.values():
            await keys.close()

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        token, bearer = credentials.token, True
        if token is None:
            token, bearer = credentials.password, False
        if token is None or not is_signed(token):
            return None
        if (known := self._remembered.get(token, self._clock())) is not None:
            return known if bearer or not known.scope_grants else None
        issuer, kid = unverified(token)
        options, keys = self._issuers.get(issuer or "", (None, None))
        if options is None or keys is None or (options.decides and not bearer):
            return None
        claims = verify(
            token,
            await keys.candidates(kid),
            kid=kid,
            issuer=options.issuer,
            audience=options.audience,
            now=self._clock(),
        )
        identity = identity_of(claims, options)
        self._remembered.keep(token, identity, self._clock(), float(claims["exp"]))
        return identity


def identity_of(claims: Mapping[str, Any], options: IssuerOptions) -> Identity:
    """Whose verified claims these are; raises ``TokenInvalid`` where no rule says."""
    until = float(claims["exp"])
    for rule in options.rules:
        if all(_matches(claims, name, patterns) for name, patterns in rule.claims.items()):
            name = _filled(rule.identity, claims)
            groups = frozenset(_filled(each, claims) for each in rule.groups)
            found = Identity(name, groups, method="issuer", expires_at=until)
            return replace(found, **_decided(claims)) if options.decides else found
    if options.decides and not options.rules:
        name = _filled("{sub}", claims) if claims.get("sub") else ANONYMOUS.name  # who logged in nowhere has no name
        return replace(Identity(name, expires_at=until), **_decided(claims))
    raise TokenInvalid("the token is of nobody whom this registry knows", detail={"issuer": options.issuer})


def _decided(claims: Mapping[str, Any]) -> dict[str, Any]:
    scope = tuple(each.grant() for each in of_claim(claims.get("access"), ASKED))
    return {"scope": scope, "scope_grants": True, "limit": scope}


def _value(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name; one within another by both, with a slash between them."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [
        ("true" if each else "false") if isinstance(each, bool) else str(each)
        for each in values
        if isinstance(each, str | int)
    ]


def _matches(claims: Mapping[str, Any], name: str, patterns: Sequence[str]) -> bool:
    """Whether any value of a claim is matched by any of the patterns."""
    values = _texts(_value(claims, name))
    return any(matches(value, patterns) for value in values)


def _filled(template: str, claims: Mapping[str, Any]) -> str:
    """``template`` with the claims in their places; raises ``TokenInvalid`` where that makes no name."""

    def fill(place: re.Match[str]) -> str:
        values = _texts(_value(claims, place[1]))
        if len(values) != 1:
            raise TokenInvalid("the token lacks a claim that its identity is made of", detail={"claim": place[1]})
        return values[0]

    name = _PLACE.sub(fill, template)
    if is_word(name) or not _NAME.fullmatch(name):
        raise TokenInvalid("the token's claims make a name that cannot be used", detail={"name": name[:255]})
    return name
