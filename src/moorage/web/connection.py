"""HTTP/1.1 on a connection, without ASGI between: from bytes to a ``Request``, from a ``Response`` to bytes.

RFC 9112. The parser is httptools; the server (sockets, TLS, draining) is uvicorn's. A request that can be answered
without waiting costs no task and no turn of the loop: its first step is made where its last byte arrived.
"""

import asyncio
import contextvars
import logging
from asyncio.tasks import _enter_task, _leave_task
from collections import deque
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote

import httptools

from moorage.auth.base import Certificate
from moorage.auth.certificates import certificate_of
from moorage.spec.errors import (
    ClientDisconnected,
    HeadTimeout,
    HeadTooLarge,
    RegistryError,
    RequestMalformed,
    RequestTimeout,
)
from moorage.spec.headers import repeat
from moorage.web.asgi import API_VERSION, error_response
from moorage.web.exchange import ConnectionRequest
from moorage.web.heads import head_of
from moorage.web.steps import Rest

if TYPE_CHECKING:
    from moorage.web.connections import Connections

_BODY_HELD: Final = 1024 * 1024  # bytes of a body that wait here before its sender is slowed down
_UNSENT: Final = 64 * 1024  # bytes of an answer that wait here before its reader is waited for
_LINGER: Final = 5.0  # seconds that a client whose body is refused may go on sending it
_log = logging.getLogger("moorage.web")


class Connection(asyncio.Protocol):
    """One client's connection: its requests one after another, also where they are sent at once."""

    transport: asyncio.Transport
    peer: str | None
    certificate: Certificate | None
    scheme: str

    def __init__(self, shared: "Connections", loop: asyncio.AbstractEventLoop) -> None:
        self.shared = shared
        self.loop = loop
        self.lost = False
        self.draining = False
        self.writable: asyncio.Future[None] | None = None  # where the client reads too slowly
        self.sent = 0  # pieces of answers
        self.sending = False  # what waits for the client is in a file
        self.heard = shared.now  # when the client last sent something, or was last waited for
        self.begun: float | None = None  # since when a head is on its way
        self._head_size = 0
        self._tail = b""  # the last of a head that goes on
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._malformed: bytes | None = None  # a header that came again
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[ConnectionRequest] = deque()
        self._current: ConnectionRequest | None = None
        self._arriving: ConnectionRequest | None = None  # its body is
        self._taken = 0  # bytes of that body by the parser
        self._raw = 0  # and bytes still to come that need no parser
        self._deaf = False  # what still comes is of no interest
        self._lingers: float | None = None  # until when it comes and is thrown away, after the last answer
        self._reading = True
        self._refusal: RegistryError | None = None
        self._rest: Rest | None = None
        self._wake: asyncio.Future[None] = loop.create_future()
        self._context = contextvars.copy_context()
        self._task = loop.create_task(self._go_on(), context=self._context)

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_UNSENT)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else peer
        self.certificate = certificate_of(transport.get_extra_info("peercert"))
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        if refusal := self.shared.joined(self):
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why makes no difference
        self.lost = True
        self.shared.left(self)
        self.resume_writing()
        for request in (*self._queue, self._current, self._arriving):
            if request is not None:
                request.cut = True
                request.wake()
        self._queue.clear()
        self._wake_task()

    def eof_received(self) -> bool:
        """Go on answering where everything was received; a body that broke off is what a lost connection leaves."""
        self._deaf = True
        if self._arriving is not None:
            self._arriving.cut = True
            self._arriving.wake()
        return self._current is not None and self.scheme == "http"

    def pause_writing(self) -> None:
        self.writable = self.loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    async def flush(self) -> None:
        """Return when the kernel has everything; raises ``ClientDisconnected`` when nobody reads any more."""
        self.transport.set_write_buffer_limits(0)
        try:
            if self.writable is not None:
                await self.writable
        finally:
            self.transport.set_write_buffer_limits(_UNSENT)
        if self.lost or self.transport.is_closing():
            raise ClientDisconnected

    def data_received(self, data: bytes) -> None:
        if self._lingers is not None:
            if self._raw:
                self._raw = max(0, self._raw - len(data))
                if not self._raw:  # that was all of it
                    self.transport.close()
            return
        if self._raw:
            self.heard = self.shared.now
            if len(data) <= self._raw:
                self._raw -= len(data)
                self._take(data)
                if not self._raw:
                    self.on_message_complete()
                self.regulate()
                return
            self._take(data[: self._raw])
            data = data[self._raw :]
            self._raw = 0
            self.on_message_complete()
        if self._deaf:
            return
        self._parse(data)
        if self._queue and self._current is None:
            self._work()
        if self._queue or self._arriving is not None:
            self.regulate()

    def _parse(self, data: bytes) -> None:
        arriving, taken = self._arriving, self._taken
        if arriving is None and not self._fits(data):
            self._refuse(HeadTooLarge(detail={"allowed": self.shared.limits.head_limit}))
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
            return
        except httptools.HttpParserError as error:
            if not self._deaf:
                reason = str(error.__context__ or error)  # that of a callback, if it was one
                _log.info("%s sent what is not HTTP/1.1: %s", self.peer, reason)
                self._refuse(RequestMalformed(detail={"reason": reason}))
            return
        if arriving is not None and arriving is self._arriving:
            self._count_framing(len(data), grown=self._taken > taken)
            return
        arriving = self._arriving
        if arriving is None:
            if self._head_size or self._url:  # the latter behind another request
                self._tail = (self._tail + data[-3:])[-3:]
                if self.begun is None:
                    self.begun = self.shared.now
        elif (
            length := arriving.length
        ) is not None:  # the rest of it passes by the parser, which starts anew after it
            self._raw = length - self._taken
            self._parser = httptools.HttpRequestParser(self)

    def _decline(self, data: bytes) -> None:
        """Go on behind an ``Upgrade``, which may be ignored (RFC 9110 section 7.8); the parser saw no body there."""
        request = self._arriving
        if request is None:
            self._deaf = True
            return
        length = request.length
        framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if data:
            self._parse(data)

    def _count_framing(self, size: int, *, grown: bool) -> None:
        """Refuse what is in no chunk of a body (its trailers) when it is longer than a head may be."""
        self.heard = self.shared.now
        self._head_size = 0 if grown else self._head_size + size
        if self._head_size > self.shared.limits.head_limit:
            self._refuse(HeadTooLarge(detail={"allowed": self.shared.limits.head_limit}))

    def _fits(self, data: bytes) -> bool:
        """Whether the head that begins or goes on in ``data`` is within the limit."""
        self._head_size += len(data)
        limit = self.shared.limits.head_limit
        if self._head_size <= limit or (self.begun is not None and b"\r\n\r\n" in self._tail + data[:3]):
            return True
        end = data.find(b"\r\n\r\n")
        return end >= 0 and self._head_size - len(data) + end <= limit

    # What the parser tells

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name, headers = name.lower(), self._headers
        if name not in headers:
            headers[name] = value
        elif not repeat(headers, name, value):
            self._malformed = name

    def on_headers_complete(self) -> None:
        url, headers, malformed = self._url, self._headers, self._malformed
        self._url, self._headers, self._malformed = b"", {}, None
        self._head_size, self.begun, self._taken = 0, None, 0
        if self._deaf or self._arriving is not None:  # the latter by ``_decline``
            return
        if not url.startswith(b"/") or b"#" in url:
            parts = httptools.parse_url(url)
            url_path, query = parts.path or b"/", parts.query or b""
        else:
            url_path, _, query = url.partition(b"?")
        path = url_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        parser = self._parser
        keep_alive = parser.should_keep_alive()
        if b"connection" in headers and keep_alive:
            keep_alive = parser.get_http_version() == "1.1" and not parser.should_upgrade()
        if b"host" not in headers and parser.get_http_version() != "1.0":  # RFC 9112 section 3.2
            malformed = b"host"
        method = parser.get_method().decode("ascii")
        request = ConnectionRequest(self, method, path, query, headers, keep_alive, malformed)
        if b"expect" in headers and parser.get_http_version() != "1.0":
            request.expects = headers[b"expect"].lower() == b"100-continue"
        self._arriving = request
        self._queue.append(request)

    def on_body(self, body: bytes) -> None:
        self._taken += len(body)
        self.heard = self.shared.now
        self._take(body)

    def on_message_complete(self) -> None:
        request = self._arriving
        if request is not None and not request.keep_alive and self._parser.should_upgrade() and request.has_body:
            return  # the body is still to come
        self._arriving = None
        self._headers, self._malformed, self._head_size = {}, None, 0  # trailers are of no use
        if request is None:
            return
        request.complete = True
        request.ended = not request.held
        request.wake()
        if not request.keep_alive:
            self._deaf = True

    def _take(self, body: bytes) -> None:
        if self._arriving is not None and not self._arriving.ended:
            self._arriving.arrived(body)

    # Requests and their answers

    def _work(self) -> None:
        """Answer what is queued, as far as it goes without waiting; the rest is the task's."""
        while self._queue and self._current is None:
            request = self._current = self._queue.popleft()
            coroutine = self.shared.respond(request)
            if asyncio.current_task(self.loop) is not None:  # a transport called from within somebody's step
                self._hand_over(Rest(coroutine, None))
                return
            _enter_task(self.loop, self._task)
            try:
                waited = self._context.run(coroutine.send, None)
            except StopIteration:
                self._finished(request)
            except Exception:  # noqa: BLE001  logged there
                self._failed(request)
            else:
                self._hand_over(Rest(coroutine, waited))
            finally:
                _leave_task(self.loop, self._task)

    def _hand_over(self, rest: Rest) -> None:
        """Let the task do the rest."""
        self._rest = rest
        self.shared.tasks.add(self._task)
        self._wake_task()

    def _wake_task(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)

    async def _go_on(self) -> None:
        """Go on with what ``_work`` began and could not end."""
        while not self.lost or self._rest is not None:
            try:
                await self._wake
            except asyncio.CancelledError as error:
                if self._rest is None:
                    raise
                self._rest.interrupt(error)
            self._wake = self.loop.create_future()
            rest, self._rest = self._rest, None
            request = self._current
            if rest is None or request is None:
                continue
            try:
                try:
                    await rest
                    self._finished(request)
                    while self._queue:
                        request = self._current = self._queue.popleft()
                        self.regulate()
                        await self.shared.respond(request)
                        self._finished(request)
                except Exception:  # noqa: BLE001  logged there
                    self._failed(request)
            except asyncio.CancelledError:
                self.transport.close()
                raise
            finally:
                self.shared.tasks.discard(self._task)
            self.regulate()

    def _finished(self, request: ConnectionRequest) -> None:
        self._current = None
        self.heard = self.shared.now
        if not request.complete:
            request.drop()
        if self.lost:
            return
        if not request.started:
            request.keep_alive = False
        if self.draining or not request.keep_alive or (self._deaf and not self._queue):
            self._end()

    def _failed(self, request: ConnectionRequest) -> None:
        _log.exception("%s %r was cut off", request.method, request.path)
        request.keep_alive = False
        self._finished(request)

    def _refuse(self, error: RegistryError) -> None:
        """Answer ``error`` after what is being answered, and end."""
        self._deaf = True
        self._refusal = error
        if (arriving := self._arriving) is not None:
            arriving.cut = True
            arriving.wake()
        if self._current is None and not self._queue:
            self._end()

    def _end(self) -> None:
        """Close when everything is sent, the refusal last."""
        self._deaf = True
        self._queue.clear()
        arriving = self._arriving
        if self._refusal is not None and not (arriving is not None and arriving.started):
            response = error_response(self._refusal)
            response.headers.append(API_VERSION)
            self.transport.write(head_of(response, self.shared.date, keep_alive=False)[0] + response.body)
        if arriving is None or arriving.complete or arriving.expects:
            self.transport.close()
            return
        # Closed at once, what the client still sends would make its system throw our answer away unread; a proxy then
        # says 502 in its place.
        self._arriving, self._lingers = None, self.shared.now + _LINGER
        self.regulate()

    def regulate(self) -> None:
        """Take no more from the client than there is room for."""
        arriving = self._arriving
        full = bool(self._queue) or (arriving is not None and arriving.held > _BODY_HELD)
        if full is self._reading and not self.transport.is_closing():
            self._reading = not full
            if full:
                self.transport.pause_reading()
            else:
                self.heard = self.shared.now
                self.transport.resume_reading()

    # What the server asks for

    def shutdown(self) -> None:
        """Begin to drain: what is being answered is ended, and nothing else begun."""
        self.draining = True
        if self._current is None:
            self.transport.close()

    def check(self, now: float) -> None:
        """End what takes longer than the limits allow."""
        limits = self.shared.limits
        if self.shared.stalled(self, now):
            self.transport.abort()
        elif self._lingers is not None:
            if now > self._lingers:
                self.transport.close()
        elif self._refusal is not None or self.transport.is_closing():
            return
        elif self._arriving is not None:
            waiting = self._reading and not self._arriving.expects
            if waiting and now - self.heard > limits.stall_timeout:
                self._refuse(RequestTimeout(detail={"seconds": limits.stall_timeout}))
        elif self._current is not None:
            return
        elif self.begun is not None:
            if now - self.begun > limits.head_timeout:
                self._refuse(HeadTimeout(detail={"seconds": limits.head_timeout}))
        elif now - self.heard > limits.keep_alive:
            self.transport.close()
