"""What the connections of one server share: the application, the limits, the clock, the watch over all of them."""

import asyncio
import fcntl
import struct
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from moorage.auth.addresses import client_of
from moorage.spec.errors import RegistryError, TooManyConnections, TooManyRequests
from moorage.web.asgi import Request
from moorage.web.connection import Connection
from moorage.web.heads import date_line
from moorage.web.limits import Limits
from moorage.web.options import Network, within

_TICK: Final = 1.0
_SHORTEST_TICK: Final = 0.05
_LATER: Final = {"Retry-After": "5"}
_SIOCOUTQ: Final = 0x5411  # Linux: the bytes that the other end has not acknowledged


class ServerState(Protocol):
    """What uvicorn's server keeps of its connections and what runs for them."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]


class Connections:
    """Makes a ``Connection`` for each one that a server accepts."""

    def __init__(
        self,
        respond: Callable[[Request], Coroutine[Any, Any, None]],
        limits: Limits,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        self.respond = respond
        self.limits = limits
        self._proxies = proxies
        self._of_address: Counter[str | None] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self.now = 0.0
        self.date = date_line()
        self._connections: set[Connection] = set()
        self._progress: dict[Connection, tuple[Any, float]] = {}
        self._ticking = False
        shortest = min(limits.head_timeout, limits.stall_timeout, limits.keep_alive)
        self._tick_length = max(_SHORTEST_TICK, min(_TICK, shortest / 4))

    def make(self, state: ServerState) -> Connection:
        """A new connection of the server with that ``state``."""
        loop = asyncio.get_running_loop()
        self._connections, self.tasks = state.connections, state.tasks
        if not self._ticking:
            self._ticking = True
            self._tick(loop)
        return Connection(self, loop)

    def joined(self, connection: Connection) -> RegistryError | None:
        """Watch ``connection`` from now on; the answer is why it is one too many, if it is."""
        limits = self.limits
        self._connections.add(connection)
        address = self._address(connection)
        self._of_address[address] += 1
        if limits.connections is not None and len(self._connections) > limits.connections:
            return TooManyConnections(detail={"allowed": limits.connections}, headers=_LATER)
        most = limits.connections_per_address
        if most is not None and address is not None and self._of_address[address] > most:
            return TooManyRequests("too many connections from this address", detail={"allowed": most}, headers=_LATER)
        return None

    def left(self, connection: Connection) -> None:
        """Forget it."""
        self._connections.discard(connection)
        self._progress.pop(connection, None)
        address = self._address(connection)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def _address(self, connection: Connection) -> str | None:
        """Whose connection it is; None for a trusted proxy's, which is not its own."""
        peer = connection.peer
        return None if peer is None or within(peer, self._proxies) else client_of(peer)

    def stalled(self, connection: Connection, now: float) -> bool:
        """Whether an answer waits for its reader, who took nothing of it for longer than is allowed."""
        waiting = connection.transport.get_write_buffer_size()
        if not (waiting or connection.sending):
            self._progress.pop(connection, None)
            return False
        state = waiting, connection.sent, _unacknowledged(connection.transport)
        before, since = self._progress.get(connection, (None, now))
        if state != before:
            self._progress[connection] = state, now
            return False
        return now - since > self.limits.stall_timeout

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        self.date = date_line()
        for connection in tuple(self._connections):
            connection.check(self.now)
        loop.call_later(self._tick_length, self._tick, loop)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """The bytes that the kernel holds for the other end; its reading shows here long before there is room again."""
    if sys.platform != "linux":
        return 0
    try:
        socket = transport.get_extra_info("socket")
        return int(struct.unpack("i", fcntl.ioctl(socket.fileno(), _SIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError):
        return 0
