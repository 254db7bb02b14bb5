"""Requests and responses over bare ASGI: the hot path carries no framework."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from moorage.spec.errors import ClientDisconnected, RegistryError, Unauthorized

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Final = "application/json"
_DRAINED: Final = 1024 * 1024
_DRAINING: Final = 5.0  # seconds
API_VERSION: Final = (b"docker-distribution-api-version", b"registry/2.0")
# A digest is a checked str, which msgspec does not take for one.
_ENCODE: Final = msgspec.json.Encoder(enc_hook=str).encode


class Request:
    """One request; its body is a stream first."""

    __slots__ = ("_query", "ended", "headers", "method", "path", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.ended = False
        self._query: list[tuple[str, str]] | None = None
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        self.path = path[len(root) :] if root and path.startswith(root) else path

    def header(self, name: bytes) -> str | None:
        """The value of a header (its name in lower case), or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query parameters, decoded, in order."""
        if self._query is None:
            text = self.scope.get("query_string", b"").decode("latin-1")
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
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            self.ended = not message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def disconnected(self) -> None:
        """Return when the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

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


@dataclass(slots=True)
class Response:
    """``body`` is sent whole; with ``stream`` its pieces are sent instead (the headers carry their length)."""

    status: int = 200
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncGenerator[bytes | bytearray] | None = None

    def add(self, name: str, value: str) -> None:
        """Add a header."""
        self.headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))

    async def send(self, request: Request, send: Send) -> None:
        """Send it; the body stays here for HEAD (RFC 9110 section 9.3.2)."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        if self.stream is None:
            await send(start)
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else self.body})
            return
        async with aclosing(self.stream) as stream:
            # The first piece is fetched before the status is sent: bytes that are lost are no 200.
            piece: bytes | bytearray | None = await anext(stream, b"")
            await send(start)
            gone: asyncio.Future[None] | None = None
            try:
                while piece is not None:
                    following = await anext(stream, None)
                    await send({"type": "http.response.body", "body": piece, "more_body": following is not None})
                    if following is not None:
                        gone = gone or asyncio.ensure_future(request.disconnected())
                        if gone.done():  # a server drops what is sent then, and we would read on for nobody
                            return
                    piece = following
            finally:
                if gone is not None:
                    gone.cancel()


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
