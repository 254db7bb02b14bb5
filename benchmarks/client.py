"""The load generator's HTTP: sockets, request bytes made beforehand, and no more parsing than a check needs."""

import asyncio
import hashlib
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self, cast

READ_SIZE = 1024 * 1024
WRITE_HIGH_WATER = 4 * 1024 * 1024


class LoadError(Exception):
    """A server answered something other than what the load demands, so its figures would mean nothing."""


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its head in lower case without the status line, its length, and its body if kept."""

    status: int
    head: bytes
    length: int
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The field's value in lower case; a ``Location`` is taken from ``location`` instead."""
        start = self.head.find(b"\r\n" + name.lower() + b":")
        if start < 0:
            return None
        start += len(name) + 3
        return self.head[start : self.head.find(b"\r\n", start)].strip()


class Wire(asyncio.BufferedProtocol):
    """One kept-alive connection: a request at a time, each answer's status and framing checked."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[None] | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._drained.set()
        self._head = b""
        self._raw_head = b""
        self._in_head = True
        self._status = 0
        self._length = 0
        self._left = 0
        self._chunked = False
        self._bodiless = False
        self._keep = False
        self._hash: Hash | None = None
        self._body: list[bytes] = []

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its verbs, not by its class
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 the loop's signature
        return self._buffer  # shared by all wires: it is emptied before the loop can fill it again

    def buffer_updated(self, nbytes: int) -> None:
        if self._in_head:
            self._take_head(bytes(self._buffer[:nbytes]))
        else:
            self._take_body(self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        self._drained.set()
        self._fail(f"connection lost: {exc or 'closed by the server'}")

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    # The answer, piece by piece.

    def _take_head(self, data: bytes) -> None:
        if self._raw_head:
            data = self._raw_head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._raw_head = data
            return
        if self._answer is None or self._answer.done():
            self._transport.abort()  # an answer that nobody asked for
            return
        self._raw_head = data[: end + 2]
        self._head = head = self._raw_head.lower()
        self._in_head = False
        self._status = int(head[9:12])
        at = head.find(b"\r\ncontent-length:")
        self._chunked = False
        if at >= 0:
            self._length = int(head[at + 17 : head.find(b"\r\n", at + 17)])
        else:
            self._length = 0
            self._chunked = b"\r\ntransfer-encoding: chunked" in head
            if not (self._chunked or self._bodiless or self._status in {204, 304}):
                self._fail("an answer without a length")
                return
        self._left = 0 if self._bodiless or self._status in {204, 304} else self._length
        if self._bodiless:
            self._chunked = False
        if self._status >= 400:
            self._keep = True  # the reason belongs in the message
        rest = data[end + 4 :]
        if rest or self._chunked:
            self._take_body(memoryview(rest))
        elif self._left == 0:
            self._done()

    def _take_body(self, data: memoryview) -> None:
        if self._chunked:
            self._body.append(bytes(data))
            whole = b"".join(self._body)
            if whole.endswith(b"\r\n0\r\n\r\n") or whole == b"0\r\n\r\n":
                self._body = [dechunked(whole)]
                self._length = len(self._body[0])
                self._done()
            return
        self._left -= len(data)
        if self._keep:
            self._body.append(bytes(data))
        if self._hash is not None:
            self._hash.update(data)
        if self._left == 0:
            self._done()
        elif self._left < 0:
            self._fail("more bytes than the answer's Content-Length")

    def _done(self) -> None:
        self._in_head = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _fail(self, reason: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LoadError(reason))
        self._transport.abort()

    # What the loads call.

    async def ask(
        self,
        request: bytes,
        status: int,
        *,
        body: Iterable[bytes | memoryview] = (),
        bodiless: bool = False,
        keep: bool = False,
        hashing: Hash | None = None,
        length: int | None = None,
    ) -> Answer:
        """Send ``request`` and ``body``; raise ``LoadError`` unless the answer has ``status`` and ``length``."""
        if self.closed:
            raise LoadError("connection closed by the server while it was idle")
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._raw_head, self._body, self._in_head = b"", [], True
        self._bodiless, self._keep, self._hash = bodiless, keep, hashing
        write = self._transport.write
        write(request)
        for piece in body:
            if answer.done():
                break  # refused before the end: the answer says why
            write(piece)
            await self._drained.wait()
        await answer
        found = Answer(self._status, self._head, self._length, b"".join(self._body))
        if found.status != status:
            first = request[: request.find(b" HTTP/1.1")].decode()
            reason = found.body[:300].decode(errors="replace").strip()
            raise LoadError(f"{first}: {found.status} instead of {status}: {reason}")
        if length is not None and found.length != length:
            first = request[: request.find(b" HTTP/1.1")].decode()
            raise LoadError(f"{first}: {found.length} bytes instead of {length}")
        return found

    @property
    def location(self) -> str:
        """Where the last answer sent the client: path and query, whatever host it named."""
        if (value := self.field("location")) is None:
            raise LoadError("an answer without Location")
        return path_of(value)

    @property
    def link(self) -> str | None:
        """Path and query of the next page, if the last answer names one."""
        value = self.field("link")
        return None if value is None else path_of(value[value.index("<") + 1 : value.index(">")])

    def field(self, name: str) -> str | None:
        """A field of the last answer's head as it came, or None."""
        start = self._head.find(f"\r\n{name}:".encode())
        if start < 0:
            return None
        start += len(name) + 3
        return self._raw_head[start : self._raw_head.find(b"\r\n", start)].strip().decode()

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.abort()


class Server:
    """The address of a server, and the connections that were opened to it."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls
        self._wires: list[Wire] = []
        self._buffer = memoryview(bytearray(READ_SIZE))

    def request(self, method: str, path: str, *fields: str) -> bytes:
        """The head of a request, ready to be sent any number of times."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "User-Agent: moorage-bench", *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    async def open(self) -> Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: Wire(self._buffer), "127.0.0.1", self.port, ssl=self._tls)
        self._wires.append(wire)
        return wire

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for wire in self._wires:
            wire.close()
        await asyncio.sleep(0)


def path_of(address: str) -> str:
    return "/" + address.split("/", 3)[3] if "://" in address else address


def dechunked(data: bytes) -> bytes:
    """The content of a chunked body; raises ``LoadError`` where the framing is wrong."""
    content: list[bytes] = []
    start = 0
    while True:
        end = data.find(b"\r\n", start)
        size = int(data[start:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(content)
        start = end + 2
        content.append(data[start : start + size])
        start += size
        if data[start : start + 2] != b"\r\n":
            raise LoadError("a chunked answer is framed wrongly")
        start += 2


def sha256() -> Hash:
    return hashlib.sha256()
