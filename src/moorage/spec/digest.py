"""Digests; image-spec "Digests", "Registered algorithms"."""

import hashlib
import re
from typing import Final, Protocol, Self

from moorage.spec.errors import DigestInvalid

# https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests
GRAMMAR: Final = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<encoded>[a-zA-Z0-9=_-]+)")
ENCODED_LENGTH: Final = {"sha256": 64, "sha512": 128, "blake3": 64}
ALGORITHMS: Final = tuple(ENCODED_LENGTH)
DEFAULT_ALGORITHM: Final = "sha256"
_REGISTERED: Final = re.compile(r"(?:sha256|blake3):[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_LONGEST: Final = 512


class Hasher(Protocol):
    """A running hash; what ``hashlib`` and ``blake3`` have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


class Digest(str):
    """``<algorithm>:<encoded>`` of a registered algorithm, checked."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest that ``text`` spells; raises ``DigestInvalid`` saying what is wrong with it."""
        if _REGISTERED.fullmatch(text):
            return cls(text)
        if why := fault(text):
            raise DigestInvalid(f"invalid digest: {why}", detail={"digest": text[:_LONGEST]})
        algorithm = text.partition(":")[0]
        raise DigestInvalid(
            "unsupported digest algorithm",
            detail={"digest": text[:_LONGEST], "algorithm": algorithm, "allowed": ALGORITHMS},
        )

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        return self.partition(":")[2]


def fault(text: str) -> str | None:
    """What keeps ``text`` from being a digest, or None; an unregistered algorithm is no fault."""
    if len(text) > _LONGEST:
        return f"longer than {_LONGEST} characters"
    if not (found := GRAMMAR.fullmatch(text)):
        return "not of the form <algorithm>:<encoded>"
    algorithm, encoded = found["algorithm"], found["encoded"]
    length = ENCODED_LENGTH.get(algorithm)
    if length is not None and not (len(encoded) == length and re.fullmatch("[a-f0-9]+", encoded)):
        return f"{algorithm} is encoded in {length} lowercase hexadecimal digits"
    return None


def algorithm_of(text: str) -> str:
    """``text`` if it names a supported algorithm (spec end-4c); raises ``DigestInvalid``."""
    if text not in ENCODED_LENGTH:
        raise DigestInvalid(
            "unsupported digest algorithm", detail={"algorithm": text[:_LONGEST], "allowed": ALGORITHMS}
        )
    return text


def new_hasher(algorithm: str) -> Hasher:
    """A running hash of nothing yet."""
    if algorithm == "blake3":
        from blake3 import blake3  # noqa: PLC0415  a plain start does not need it

        return blake3()
    return hashlib.new(algorithm)


def digest_of(hasher: Hasher, algorithm: str) -> Digest:
    """The digest of what ``hasher`` has seen."""
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def compute(content: bytes, algorithm: str = DEFAULT_ALGORITHM) -> Digest:
    """The digest of ``content``."""
    hasher = new_hasher(algorithm)
    hasher.update(content)
    return digest_of(hasher, algorithm)
