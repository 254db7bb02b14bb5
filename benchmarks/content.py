"""Bytes that are new in every operation yet cost the load generator next to nothing to make, to hash and to send."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1024 * 1024
FRAME = 32 * 1024  # docker copies a layer into its request in pieces of this size
NONCE = 16


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob: its digest, and its bytes as buffers to be sent one after the other."""

    digest: str
    size: int
    pieces: tuple[bytes, ...]

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)


class Mint:
    """Makes blobs of one size that differ in their last bytes only, so that each is hashed from a saved state."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < NONCE:
            raise ValueError(f"a blob of {size} bytes has no room for what makes it unique")
        self.size = size
        self._pattern = hashlib.shake_256(f"moorage benchmark {seed}".encode()).digest(MIB)
        whole = (size - NONCE) // MIB
        self._body = (self._pattern,) * whole
        self._rest = self._pattern[: size - whole * MIB - NONCE]
        self._state = hashlib.sha256()
        for piece in (*self._body, self._rest):
            self._state.update(piece)
        self._run = os.urandom(NONCE - 8)  # a registry that kept yesterday's blobs must not know today's
        self._count = 0

    def blob(self) -> Blob:
        """A blob never made before."""
        self._count += 1
        nonce = self._run + self._count.to_bytes(8, "big")
        state = self._state.copy()
        state.update(nonce)
        return Blob(f"sha256:{state.hexdigest()}", self.size, (*self._body, self._rest + nonce))


class Frames:
    """Chunked transfer encoding of blobs as docker sends them; a piece that comes again is framed once."""

    def __init__(self) -> None:
        self._framed: dict[int, tuple[bytes, bytes]] = {}

    def of(self, blob: Blob) -> Iterator[bytes]:
        for piece in blob.pieces[:-1]:
            known = self._framed.get(id(piece))
            if known is None or known[0] is not piece:
                known = self._framed[id(piece)] = (piece, frame(piece))
            yield known[1]
        yield frame(blob.pieces[-1]) + b"0\r\n\r\n"


def frame(piece: bytes) -> bytes:
    """``piece`` as chunks, without the last chunk of length zero."""
    cut = (piece[start : start + FRAME] for start in range(0, len(piece), FRAME))
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in cut)
