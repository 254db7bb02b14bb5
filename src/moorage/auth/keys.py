"""API keys: secrets that the registry makes, for scripts and machines.

    moorage_<43 characters of 256 random bits><6 characters of a checksum>

The beginning lets scanners find keys that leaked, and the checksum tells a mistyped one without asking anybody. Only
the SHA-256 of a key is kept: what is random needs no slow hash.
"""

import hashlib
import re
import secrets
import zlib
from typing import Final

PREFIX: Final = "moorage_"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{49}}")
_BITS: Final = 256
_RANDOM, _CHECK = 43, 6  # characters


def make_key() -> str:
    """A new key."""
    body = PREFIX + _encode(secrets.randbits(_BITS), _RANDOM)
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether ``text`` has the form of a key and its checksum is right."""
    return bool(_KEY.fullmatch(text)) and _checksum(text[:-_CHECK]) == text[-_CHECK:]


def digest_of_key(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _encode(zlib.crc32(body.encode()), _CHECK)


def _encode(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
