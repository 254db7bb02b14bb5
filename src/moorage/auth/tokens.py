"""Signed tokens (RFC 7519): signing our own, verifying anybody's."""

import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import jwt

from moorage.auth.signing import SigningKey, VerificationKey, candidates
from moorage.spec.errors import TokenInvalid

LONGEST: Final = 16 * 1024  # characters
LEEWAY: Final = 10  # seconds that two clocks may differ by
_REQUIRED: Final = ["iss", "aud", "exp"]
_TIMES: Final = ("exp", "nbf", "iat")
_FORM: Final = re.compile(r"eyJ[\w-]*\.[\w-]*\.[\w-]*", re.ASCII)  # its head is a JSON object


def is_signed(text: str) -> bool:
    """Whether ``text`` has the form of a signed token; other secrets come the same way."""
    return bool(_FORM.fullmatch(text))


def sign(claims: dict[str, Any], key: SigningKey) -> str:
    """A token that states ``claims``."""
    return jwt.encode(claims, key.private, key.algorithm, {"kid": key.kid})


def unverified(token: str) -> tuple[str | None, str | None]:
    """``(issuer, kid)`` as the token says: good to find the keys that verify it, and for nothing else.

    Raises ``TokenInvalid`` for what is no signed token.
    """
    if len(token) > LONGEST:
        raise TokenInvalid(f"the token is longer than {LONGEST} characters")
    try:
        found = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise TokenInvalid("this is not a signed token") from None
    issuer, kid = found["payload"].get("iss"), found["header"].get("kid")
    return issuer if isinstance(issuer, str) else None, kid if isinstance(kid, str) else None


def verify(
    token: str,
    keys: Sequence[VerificationKey],
    *,
    kid: str | None,
    issuer: str,
    audience: Sequence[str],
    now: float,
    required: Sequence[str] = (),
) -> dict[str, Any]:
    """The claims of a token that one of ``keys`` signed for one of ``audience``; raises ``TokenInvalid``.

    The algorithm is that of the key, whatever the token says of it. ``iss``, ``aud``, ``exp`` and ``required`` must
    be there; ``nbf`` and ``iat``, where they are, must not be to come at ``now`` (seconds since 1970).
    """
    tried = candidates(keys, kid)
    for key in tried:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                audience=list(audience),
                issuer=issuer,
                options={
                    "require": [*_REQUIRED, *required],
                    "verify_exp": False,  # by the machine's clock, that would be
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            _check_times(claims, now)
        except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
            continue
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            _refuse(error)
        return claims
    raise TokenInvalid("the token's signature is not valid" if tried else "the token is signed by an unknown key")


def _check_times(claims: dict[str, Any], now: float) -> None:
    """RFC 7519 section 4.1, by the registry's time, which the machine's clock need not show."""
    try:
        times = {name: int(claims[name]) for name in _TIMES if claims.get(name) is not None}
    except (TypeError, ValueError, OverflowError):
        raise jwt.DecodeError from None
    if times.pop("exp") <= now - LEEWAY:
        raise jwt.ExpiredSignatureError
    if any(each > now + LEEWAY for each in times.values()):
        raise jwt.ImmatureSignatureError


_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "the token has expired"),
    (jwt.ImmatureSignatureError, "the token is not valid yet"),
    (jwt.InvalidAudienceError, "the token is for another audience"),
    (jwt.InvalidIssuerError, "the token is of another issuer"),
    (jwt.MissingRequiredClaimError, "the token lacks a claim that must be there"),
)


def _refuse(error: Exception) -> NoReturn:
    said = next((words for kind, words in _WORDS if isinstance(error, kind)), "the token is not valid")
    raise TokenInvalid(said) from None
