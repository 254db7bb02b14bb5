"""One request on a connection of our own, and its answer."""

from collections import deque
from typing import TYPE_CHECKING, Final

from moorage.auth.base import Certificate
from moorage.spec.errors import ClientDisconnected
from moorage.web.asgi import Part, Request, Response
from moorage.web.heads import head_of
from moorage.web.stretches import CAN_SEND, send_stretch

if TYPE_CHECKING:
    import asyncio

    from moorage.web.connection import Connection

_JOINED: Final = 16 * 1024  # a smaller body goes into one piece of memory with its head
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class ConnectionRequest(Request):
    """A request on a ``Connection``: ``complete`` when all of its body is here, ``cut`` when no more will come."""

    __slots__ = ("_connection", "_left", "_pieces", "_waiter", "complete", "cut", "expects", "held", "keep_alive")

    def __init__(
        self,
        connection: "Connection",
        method: str,
        path: str,
        query_string: bytes,
        headers: dict[bytes, bytes],
        keep_alive: bool,
        malformed: bytes | None = None,
    ) -> None:
        super().__init__(method, path, query_string, headers, malformed)
        self._connection = connection
        self._pieces: deque[bytes] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._left = 0
        self.keep_alive = keep_alive
        self.complete = False
        self.cut = False
        self.expects = False
        self.held = 0

    @property
    def client(self) -> str | None:
        return self._connection.peer

    @property
    def scheme(self) -> str:
        return self._connection.scheme

    @property
    def root_path(self) -> str:
        return ""

    @property
    def certificate(self) -> Certificate | None:
        return self._connection.certificate

    @property
    def sends_files(self) -> bool:
        return CAN_SEND and self._connection.scheme == "http"

    def arrived(self, piece: bytes) -> None:
        """Take a piece of the body from the connection."""
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(piece)
        self.held += len(piece)
        self.expects = False
        self.wake()

    def wake(self) -> None:
        """Let whoever waits for the body look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def drop(self) -> None:
        """Forget what arrived and nobody took: the answer is sent."""
        self._pieces, self.held, self.ended = None, 0, True

    async def receive(self) -> bytes:
        while not self._pieces:
            if self.complete:
                self.ended = True
                return b""
            if self.cut:
                raise ClientDisconnected
            if self.expects:
                self.expects = False
                self._connection.transport.write(_CONTINUE)
                self._connection.heard = self._connection.shared.now
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = self._pieces.popleft()
        self.held -= len(piece)
        self.ended = self.complete and not self._pieces
        self._connection.regulate()
        return piece

    async def begin(self, response: Response, body: Part, *, more: bool) -> None:
        connection = self._connection
        if connection.lost:
            raise ClientDisconnected
        if response.close or connection.draining or (self.expects and not self.complete):
            self.keep_alive = False
        head, length = head_of(response, connection.shared.date, self.keep_alive)
        self.started = True
        if not isinstance(body, bytes | bytearray):
            self._left = length
            connection.transport.write(head)
            await self.go_on(body, more=more)
            return
        if len(body) > _JOINED:
            connection.transport.writelines([head, body])
        else:
            connection.transport.write(head + body)
        self._left = length - len(body) if more else 0
        if connection.writable is not None:
            await connection.writable

    async def go_on(self, body: Part, *, more: bool) -> None:
        connection = self._connection
        if connection.lost or connection.transport.is_closing():
            raise ClientDisconnected
        if not isinstance(body, bytes | bytearray):
            self._left -= await send_stretch(connection, body)
            return
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            raise RuntimeError(f"the body of an answer differs from its Content-Length by {-self._left} bytes")
        if body:
            connection.sent += 1
            connection.transport.write(body)
            if connection.writable is not None:
                await connection.writable
