"""Requests and responses, without a framework. A request comes over ASGI, or over a connection of our own."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from moorage.auth.base import Certificate
from moorage.spec import headers as rules
from moorage.spec.errors import ClientDisconnected, RegistryError, RequestMalformed, Unauthorized
from moorage.storage.base import Stretch

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Part = bytes | bytearray | Stretch  # of an answer's body

JSON: Final = "application/json"
CERTIFICATE: Final = "moorage.certificate"  # the scope's extension in which a transport states the client's
_DRAINED: Final = 1024 * 1024
_DRAINING: Final = 5.0  # seconds
API_VERSION: Final = (b"docker-distribution-api-version", b"registry/2.0")
# A digest is a checked str, which msgspec does not take for one.
_ENCODE: Final = msgspec.json.Encoder(enc_hook=str).encode


@dataclass(slots=True)
class Response:
    """``body`` is sent whole; with ``stream`` its pieces are sent instead (the headers carry their length).

    With ``close`` the connection ends after it.
    """

    status: int = 200
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncGenerator[Part] | None = None
    close: bool = False

    def add(self, name: str, value: str) -> None:
        """Add a header."""
        self.headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))


class Request(ABC):
    """One request, whose body is a stream first; the way to its client is the subclass's matter.

    ``path`` is decoded, ``query_string`` is not, names in ``headers`` are in lower case. ``ended`` says that the body
    was taken to its end, ``started`` that the answer was begun. ``malformed`` is a header that must come once and
    comes never or again.
    """

    __slots__ = ("_query", "ended", "headers", "malformed", "method", "path", "query_string", "started")

    def __init__(
        self,
        method: str,
        path: str,
        query_string: bytes,
        headers: dict[bytes, bytes],
        malformed: bytes | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.malformed = malformed
        self.ended = False
        self.started = False
        self._query: list[tuple[str, str]] | None = None

    @property
    @abstractmethod
    def client(self) -> str | None:
        """The address of the other end of the connection, where that has one."""

    @property
    @abstractmethod
    def scheme(self) -> str:
        """``http`` or ``https``, as the connection is."""

    @property
    @abstractmethod
    def root_path(self) -> str:
        """Where the application is mounted below another."""

    @property
    @abstractmethod
    def certificate(self) -> Certificate | None:
        """The client's, where it showed one and TLS found it right."""

    @property
    def sends_files(self) -> bool:
        """Whether parts of the answer's body may be stretches of files."""
        return False

    @abstractmethod
    async def receive(self) -> bytes:
        """The next piece of the body, empty only if there is none, with ``ended`` after the last one.

        Raises ``ClientDisconnected`` where the client went, or stopped sending, before the body's end.
        """

    @abstractmethod
    async def begin(self, response: Response, body: Part, *, more: bool) -> None:
        """Send the head of ``response`` and the first of its body, or all of it; waits for a slow client."""

    @abstractmethod
    async def go_on(self, body: Part, *, more: bool) -> None:
        """Send a further piece. Raises ``ClientDisconnected`` when nobody reads any more."""

    def check(self) -> None:
        """Raise ``RequestMalformed`` where a header makes the request ambiguous."""
        if self.malformed is not None:
            raise RequestMalformed(detail={"header": self.malformed.decode("latin-1"), "allowed": "one"})

    def header(self, name: bytes) -> str | None:
        """The value of a header (its name in lower case), or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query parameters, decoded, in order."""
        if self._query is None:
            text = self.query_string.decode("latin-1")
            self._query = parse_qsl(text, keep_blank_values=True) if text else []
        return self._query

    def parameter(self, name: str) -> str | None:
        """The first query parameter of that name, or None."""
        return next((value for key, value in self.query if key == name), None)

    @property
    def length(self) -> int | None:
        """The announced length of the body in bytes; None where the client did not announce one."""
        value = self.headers.get(b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    @property
    def has_body(self) -> bool:
        """Whether a body may follow."""
        length = self.length
        return b"transfer-encoding" in self.headers if length is None else length > 0

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces; raises ``ClientDisconnected`` if the client goes before its end."""
        while not self.ended:
            if piece := await self.receive():
                yield piece

    async def whole(self, limit: int) -> bytes | None:
        """The whole body; None as soon as it is longer than ``limit`` bytes, or announced to be."""
        if (self.length or 0) > limit:
            return None
        body = bytearray()
        async for piece in self.stream():
            body += piece
            if len(body) > limit:
                return None
        return bytes(body)

    async def drain(self) -> bool:
        """Take what is left of a short body, so that its sender reads our answer; False if more is to come."""
        if self.ended or not self.has_body:
            return True
        if b"expect" in self.headers:  # the client waits for a go-ahead, which it will not get
            return False
        taken = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAINING):
                async for piece in self.stream():
                    taken += len(piece)
                    if taken > _DRAINED:
                        break
        return self.ended

    async def respond(self, response: Response) -> None:
        """Send ``response``; the body stays here for HEAD (RFC 9110 section 9.3.2)."""
        if response.stream is None:
            await self.begin(response, b"" if self.method == "HEAD" else response.body, more=False)
            return
        async with aclosing(response.stream) as stream:
            # The first piece is fetched before the status is sent: bytes that are lost are no 200.
            await self.begin(response, await anext(stream, b""), more=True)
            async for piece in stream:
                await self.go_on(piece, more=True)
            await self.go_on(b"", more=False)


class ASGIRequest(Request):
    """A request as an ASGI server gives it."""

    __slots__ = ("_gone", "_receive", "_scope", "_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        root = scope.get("root_path", "")
        path = path[len(root) :] if root and path.startswith(root) else path
        headers: dict[bytes, bytes] = {}
        malformed = None
        for name, value in scope["headers"]:
            if name not in headers:
                headers[name] = value
            elif not rules.repeat(headers, name, value):
                malformed = name
        super().__init__(scope["method"], path, scope.get("query_string", b""), headers, malformed)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._gone: asyncio.Future[None] | None = None

    @property
    def client(self) -> str | None:
        client = self._scope.get("client")
        return client[0] if client else None

    @property
    def scheme(self) -> str:
        return str(self._scope.get("scheme", "http"))

    @property
    def root_path(self) -> str:
        return str(self._scope.get("root_path", ""))

    @property
    def certificate(self) -> Certificate | None:
        certificate: Certificate | None = (self._scope.get("extensions") or {}).get(CERTIFICATE)
        return certificate

    async def receive(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        self.ended = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def begin(self, response: Response, body: Part, *, more: bool) -> None:
        self.started = True
        headers = [*response.headers, (b"connection", b"close")] if response.close else response.headers
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def go_on(self, body: Part, *, more: bool) -> None:
        if more and self._gone is None:
            self._gone = asyncio.ensure_future(self._disconnected())
        if self._gone is not None and self._gone.done():
            raise ClientDisconnected  # a server drops what is sent then, and we would read on for nobody
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(self, response: Response) -> None:
        try:
            await super().respond(response)
        finally:
            if self._gone is not None:
                self._gone.cancel()

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def json_response(document: Any, *, status: int = 200, content_type: str = JSON) -> Response:
    """``document`` as JSON."""
    body = _ENCODE(document)
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    return Response(status, headers, body)


def error_response(error: RegistryError) -> Response:
    """An error in the specification's form; spec "Error Codes"."""
    response = json_response({"errors": error.entries()}, status=error.status)
    for name, value in error.headers.items():
        response.add(name, value)
    if isinstance(error, Unauthorized):
        for each in error.challenges:
            response.add("WWW-Authenticate", each)
    return response


def empty(status: int, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """An answer without a body."""
    response = Response(status)
    for name, value in headers:
        response.add(name, value)
    if status not in (204, 304):
        response.headers.append((b"content-length", b"0"))
    return response
