"""What a place for bytes must do: eight verbs over keys. ``moorage.testing.contract`` holds each backend to it.

Bytes are immutable, and a key is never used twice: each write makes its own (``new_key``), even for content that
is already there. So deleting an old object can never hit a new one.
"""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, Self

from moorage.spec.digest import Digest

Key = str
Piece = bytes | bytearray  # never changed once handed out
PREFIXES: Final = tuple(f"{n:02x}/" for n in range(256))  # each key starts with one of them


def new_key() -> Key:
    """A key that was never used: ``ab/ab12…``, spread over 256 folders."""
    name = secrets.token_hex(16)
    return f"{name[:2]}/{name}"


def key_in_tree(digest: Digest) -> Key:
    """The key of bytes that lie in another registry's storage tree: ``ab/sha256-ab12…``. Only there is a ``-``."""
    return f"{digest.encoded[:2]}/{digest.algorithm}-{digest.encoded}"


def in_tree(key: Key) -> bool:
    """Whether ``key`` is one of those."""
    return "-" in key


class Writer(Protocol):
    """An object being written. It is durable once its context is left normally."""

    async def write(self, pieces: Sequence[bytes]) -> None:
        """Append ``pieces`` in order. Raises ``StorageFull`` when there is no room."""


class Stretch(Protocol):
    """Bytes that follow each other in an open file, which the kernel can send without giving them to us.

    ``position`` is that of the next byte in the file, ``stop`` exclusive. Files are closed when the context is left.
    """

    position: int
    stop: int

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    def into(self, socket: int) -> int:
        """Send into ``socket`` from now on, under another descriptor: the answer, closed when the context is left."""

    def at_hand(self) -> bool:
        """Whether what is at ``position`` can be had without waiting for a disk."""

    async def fetch(self) -> None:
        """Wait until it can."""

    def send(self) -> int:
        """Send a piece, as many bytes of it as there is room for: how many. 0 where the file ends before ``stop``.

        Raises ``BlockingIOError`` where there is no room, ``ConnectionError`` where nobody reads any more.
        """


class BlobStore(Protocol):
    """Immutable objects under keys. Every verb is mandatory; an absent key raises ``FileNotFoundError``."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exception: object) -> None: ...

    def write(self, key: Key) -> AbstractAsyncContextManager[Writer]:
        """A writer of ``key``. Left normally: durable and readable. Left by an exception: nothing remains."""

    def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        """The bytes from ``start`` up to ``stop`` (exclusive; None: the end) in pieces of any size.

        Ends early, without an error, if the object is shorter: the caller counts.
        """

    def stretch(self, key: Key, start: int, stop: int) -> Stretch | None:
        """The bytes from ``start`` up to ``stop`` (exclusive) in a file; None where only ``read`` should serve.

        None, too, where there are not as many.
        """

    async def size(self, key: Key) -> int:
        """The number of bytes under ``key``."""

    async def compose(self, keys: Sequence[Key]) -> Key:
        """The key that now durably holds the bytes of ``keys`` in order: the only one of them, unasked, or a new one.

        The parts stay as they are.
        """

    async def delete(self, keys: Sequence[Key]) -> None:
        """Gone on return; a key that is not there is no error."""

    def list(self, prefix: str = "") -> AsyncIterator[Key]:
        """The keys that start with ``prefix``, in no order."""

    async def url(self, key: Key, expires: float) -> str | None:
        """Where a client can fetch ``key`` by itself for ``expires`` seconds; None where only ``read`` serves."""
