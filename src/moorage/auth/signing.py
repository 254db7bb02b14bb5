"""Keys that sign tokens, and keys that verify them. Each is of one algorithm, which no token can change."""

import base64
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

Algorithm = Literal["EdDSA", "ES256"]

_log = logging.getLogger("moorage.tokens")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_RSA_BITS: Final = 2048
_MOST: Final = 100  # keys of one issuer


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key. Without a ``kid`` it is tried for every token of its issuer."""

    kid: str | None
    algorithm: str
    public: Any = field(repr=False)

    def jwk(self) -> dict[str, Any]:
        """The key as an entry of a JWK set; RFC 7517."""
        members: dict[str, Any] = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.public, as_dict=True)
        return {**members, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of this registry's own."""

    kid: str
    algorithm: str
    private: Any = field(repr=False)

    @classmethod
    def make(cls, algorithm: Algorithm) -> "SigningKey":
        """A new key, whose ``kid`` is a digest of its public part."""
        private = (
            ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
        )
        encoded = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        kid = base64.urlsafe_b64encode(hashlib.sha256(encoded).digest()[:15]).decode()
        return cls(kid, algorithm, private)

    @classmethod
    def load(cls, kid: str, algorithm: str, pem: str) -> "SigningKey":
        """The key that ``pem`` gave."""
        return cls(kid, algorithm, load_pem_private_key(pem.encode(), None))

    @property
    def pem(self) -> str:
        """The private key as text; a secret."""
        text: bytes = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return text.decode()

    def verification(self) -> VerificationKey:
        """What verifies its tokens."""
        return VerificationKey(self.kid, self.algorithm, self.private.public_key())


def candidates(keys: Iterable[VerificationKey], kid: str | None) -> list[VerificationKey]:
    """Those of ``keys`` that may have signed a token with that ``kid`` in its header."""
    return [key for key in keys if key.kid is None or kid is None or key.kid == kid]


def read_keys(document: bytes) -> Sequence[VerificationKey]:
    """The keys of a JWK set (RFC 7517) or of a file of PEM public keys and certificates; raises ``ValueError``.

    What cannot verify signatures (symmetric and encryption keys, unknown kinds) is left out.
    """
    keys = _of_pem(document) if b"-----BEGIN" in document else _of_jwks(document)
    if not keys:
        raise ValueError("it holds no public key that can verify a token")
    return keys


class _Jwks(msgspec.Struct):
    keys: list[dict[str, Any]]


def _of_jwks(document: bytes) -> list[VerificationKey]:
    try:
        entries = msgspec.json.decode(document, type=_Jwks).keys[:_MOST]
    except msgspec.DecodeError as error:
        raise ValueError(f"it is no JWK set: {error}") from error
    found = []
    for entry in entries:
        if entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue
        try:
            # Private members would make it a private key; an issuer that publishes those is not told from others.
            public = jwt.PyJWK.from_dict({name: value for name, value in entry.items() if name != "d"}).key
            found.append(_checked(entry.get("kid"), entry.get("alg"), public))
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            _log.warning("key %.64r of a JWK set is left out: %s", entry.get("kid"), error)
    return found


def _of_pem(document: bytes) -> list[VerificationKey]:
    found = []
    for block in document.split(b"-----BEGIN ")[1 : _MOST + 1]:
        pem = b"-----BEGIN " + block
        certificate = block.startswith(b"CERTIFICATE")
        public = x509.load_pem_x509_certificate(pem).public_key() if certificate else load_pem_public_key(pem)
        found.append(_checked(None, None, public))
    return found


def _checked(kid: Any, algorithm: Any, public: Any) -> VerificationKey:
    """The key with its one algorithm; raises ``ValueError`` for one that does not fit, or is too weak."""
    kid = None if kid is None else str(kid)
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < _RSA_BITS:
            raise ValueError(f"an RSA key of {public.key_size} bits is too short")
        allowed, usual = _RSA, "RS256"
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        usual = _CURVES[public.curve.name]
        allowed = frozenset({usual})
    elif isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        allowed, usual = frozenset({"EdDSA"}), "EdDSA"
    else:
        raise ValueError("its kind is not supported")
    if algorithm is not None and algorithm not in allowed:
        raise ValueError(f"algorithm {algorithm!r:.32} does not fit the key")
    return VerificationKey(kid, algorithm or usual, public)
