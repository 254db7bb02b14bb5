"""The registry's own tokens: it signs what somebody may do for some minutes, and knows them again.

The keys are facts, so all nodes share them. A token says who somebody is and the most that he may do with it; what he
may do at the time of a request the rules decide then, and whether he is still there is asked then, too.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from moorage.auth.base import ANONYMOUS, Challenge, Credentials, Identity, Recalls
from moorage.auth.remembered import Remembered
from moorage.auth.scopes import EXACT, Scope, of_claim
from moorage.auth.signing import Algorithm, SigningKey, VerificationKey
from moorage.auth.tokens import LEEWAY, is_signed, sign, unverified, verify
from moorage.metadata import tokens as facts
from moorage.metadata.base import Metadata
from moorage.spec.errors import TokenInvalid

PATH: Final = "/v2/token"
_REFRESH: Final = "mrt_"  # what secret scanners can look for
_KEYS_FRESH: Final = 1.0  # seconds after which a key that was withdrawn is noticed
_REQUIRED: Final = ("sub", "nbf", "iat", "jti")
_USED: Final = "the refresh token was used before; all that came from its login are revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """``service`` is whom tokens are for and by whom they are made. Times are seconds."""

    service: str = "moorage"
    algorithm: Algorithm = "EdDSA"
    lifetime: float = 300.0
    refresh_lifetime: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that was just made; ``issued_at`` is in seconds since 1970, ``expires_in`` in seconds."""

    token: str
    issued_at: float
    expires_in: int


@dataclass(slots=True)
class _Known:
    """Whom a token was given to; ``origin`` is how he was recalled last, without the token's limit."""

    identity: Identity
    origin: Identity | None = None


class Tokens:
    """Makes tokens, and is the ``Authenticator`` that takes them; ``clock`` gives seconds since 1970."""

    def __init__(
        self,
        metadata: Metadata,
        options: TokenOptions | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or TokenOptions()
        self.challenges = (Challenge("Bearer", (("realm", PATH), ("service", self.options.service)), scoped=True),)
        self._metadata = metadata
        self._recalls: dict[str, Recalls] = {}
        self._clock = clock
        self._remembered: Remembered[_Known] = Remembered()
        self._keys: tuple[facts.StoredKey, ...] = ()
        self._looked = 0.0
        self._public: list[VerificationKey] = []
        self._signing: SigningKey

    async def __aenter__(self) -> Self:
        new, keep = self._new_key(self.options.lifetime)
        await self._metadata.transact(facts.ensure_key, new, keep)
        await self._look()
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._remembered.clear()

    def know(self, authenticators: Iterable[Recalls]) -> None:
        """Ask these from now on whether somebody to whom a token was given is still there."""
        self._recalls = {method: each for each in authenticators for method in each.methods}

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        token = credentials.token
        if token is None:
            return None
        now = self._clock()
        if now - self._looked > _KEYS_FRESH:
            await self._look()
        known = self._remembered.get(token, now)
        if known is None:
            known = await self._verify(token) if is_signed(token) else None
            if known is None:
                return None
        recalls = self._recalls.get(known.identity.method)
        if recalls is not None:
            origin = await recalls.recall(known.identity)
            if origin is None:
                raise TokenInvalid("the token is of somebody who is no longer let in")
            if origin is not known.origin:
                known.origin, known.identity = origin, replace(origin, limit=known.identity.limit)
        return known.identity

    async def keys(self) -> Sequence[VerificationKey]:
        """What verifies the tokens."""
        await self._look()
        return self._public

    async def issue(self, identity: Identity, scopes: Sequence[Scope]) -> Issued:
        """A token with which ``identity`` may do at most what ``scopes`` say."""
        await self._look()
        now = int(self._clock())
        until = now + self.options.lifetime
        if identity.expires_at is not None:
            until = min(until, identity.expires_at)
        claims: dict[str, Any] = {
            "iss": self.options.service,
            "aud": self.options.service,
            "sub": "" if identity.name == ANONYMOUS.name else identity.name,
            "iat": now,
            "nbf": now,
            "exp": int(until),
            "jti": secrets.token_urlsafe(12),
            "access": [scope.entry() for scope in scopes],
        }
        if identity.name != ANONYMOUS.name:
            claims["via"] = [identity.method, identity.proof]
            claims["groups"] = sorted(identity.groups)
            claims["local"] = identity.local
        return Issued(sign(claims, self._signing), now, int(until) - now)

    def renewable(self, identity: Identity) -> bool:
        """Whether a refresh token can stand for ``identity``: only where one can see later that he is still there."""
        return identity.method in self._recalls

    async def refresh_token(self, identity: Identity) -> str:
        """A refresh token that stands for ``identity``, the first of its family."""
        text, now = _new_refresh_token(), self._clock()
        kept = facts.RefreshToken(
            secrets.token_urlsafe(12),
            identity.name,
            identity.method,
            identity.proof,
            now + self.options.refresh_lifetime,
        )
        await self._metadata.transact(facts.add_refresh, _digest(text), kept, now)
        return text

    async def renew(self, refresh_token: str) -> Identity:
        """Whom a refresh token stands for; raises ``TokenInvalid``.

        A token that was used up and comes again ends its family, so that whoever stole it has nothing.
        """
        digest = _digest(refresh_token)
        token = await facts.refresh(self._metadata, digest, self._clock())
        if token is None:
            raise TokenInvalid("the refresh token is not valid any more; log in again")
        if token.used_at is not None:
            await self._metadata.transact(facts.revoke_refresh, digest)
            raise TokenInvalid(_USED)
        recall = self._recalls.get(token.method)
        identity = (
            await recall.recall(Identity(token.name, method=token.method, proof=token.proof)) if recall else None
        )
        if identity is None:
            await self._metadata.transact(facts.revoke_refresh, digest)
            raise TokenInvalid("the refresh token is of somebody who is no longer let in; log in again")
        return identity

    async def succeed(self, refresh_token: str) -> str:
        """Use a refresh token up; its successor. Raises ``TokenInvalid`` where it was used up before."""
        text, now = _new_refresh_token(), self._clock()
        expires_at = now + self.options.refresh_lifetime
        if not await self._metadata.transact(
            facts.use_refresh, _digest(refresh_token), now, _digest(text), expires_at
        ):
            raise TokenInvalid(_USED)
        return text

    async def revoke(self, refresh_token: str) -> None:
        """End a refresh token and all of its family; one that is not there is no error."""
        await self._metadata.transact(facts.revoke_refresh, _digest(refresh_token))

    async def revoke_all_of(self, name: str) -> int:
        """End every refresh token of ``name``; how many logins that were."""
        return await self._metadata.transact(facts.revoke_refresh_of, name)

    async def rotate_key(self, *, at_once: bool = False) -> str:
        """Sign with a new key, whose ``kid`` is returned.

        The keys before verify until their last token is over; with ``at_once`` no token of theirs is valid any more.
        """
        new, keep = self._new_key(0.0 if at_once else self.options.lifetime)
        await self._metadata.transact(facts.add_key, new, new.created_at if at_once else keep)
        return new.kid

    def _new_key(self, overlap: float) -> tuple[facts.StoredKey, float]:
        made, now = SigningKey.make(self.options.algorithm), self._clock()
        return facts.StoredKey(made.kid, made.algorithm, made.pem, now, None), now + overlap + LEEWAY

    async def _look(self) -> None:
        """See which keys there are."""
        self._looked = self._clock()
        found = tuple(await facts.keys(self._metadata, self._looked))
        if found == self._keys:
            return
        loaded = [SigningKey.load(each.kid, each.algorithm, each.private) for each in found]
        self._keys, self._signing = found, loaded[0]
        self._public = [each.verification() for each in loaded]
        self._remembered.clear()

    async def _verify(self, token: str) -> _Known | None:
        issuer, kid = unverified(token)
        if issuer != self.options.service:
            return None
        if all(key.kid != kid for key in self._public):
            await self._look()
        claims = verify(
            token,
            self._public,
            kid=kid or "",
            issuer=self.options.service,
            audience=(self.options.service,),
            now=self._clock(),
            required=_REQUIRED,
        )
        known = _Known(_identity(claims))
        self._remembered.keep(token, known, self._clock(), float(claims["exp"]))
        return known


def _identity(claims: dict[str, Any]) -> Identity:
    """Whom a token of our own was given to; its signature is right, so its claims are as ``issue`` made them."""
    limit = tuple(each.grant() for each in of_claim(claims.get("access"), EXACT))
    if not claims["sub"]:
        return replace(ANONYMOUS, limit=limit)
    method, proof = claims["via"]
    groups = frozenset(claims["groups"])
    return Identity(claims["sub"], groups, method=method, local=claims["local"], proof=proof, limit=limit)


def _new_refresh_token() -> str:
    return _REFRESH + secrets.token_urlsafe(32)


def _digest(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode("utf-8", "surrogateescape")).hexdigest()
