"""Stretches of files, sent by the kernel: nothing of them is copied here, and nothing waits in our memory."""

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from moorage.spec.errors import ClientDisconnected
from moorage.storage.base import Stretch

if TYPE_CHECKING:
    from moorage.web.connection import Connection

CAN_SEND: Final = sys.platform == "linux"


async def send_stretch(connection: "Connection", stretch: Stretch) -> int:
    """Send ``stretch``, waiting for a slow client; the answer is the number of bytes sent.

    Ends early where the file does. Raises ``ClientDisconnected`` when nobody reads any more.
    """
    await connection.flush()
    start = stretch.position
    # The loop lets nobody else wait for the descriptor of a transport, which another connection may have later.
    sending = _Sending(connection, stretch, stretch.into(connection.transport.get_extra_info("socket").fileno()))
    while not sending.ended:
        if not stretch.at_hand():
            await stretch.fetch()
        await sending.go_on()
    return stretch.position - start


class _Sending:
    """A stretch on its way into the socket of a connection."""

    def __init__(self, connection: "Connection", stretch: Stretch, socket: int) -> None:
        self.ended = False
        self._connection = connection
        self._stretch = stretch
        self._socket = socket

    async def go_on(self) -> None:
        """Send until the end, or until more must be fetched."""
        connection = self._connection
        connection.sending, connection.writable = True, (waiter := connection.loop.create_future())
        connection.loop.add_writer(self._socket, self._push, waiter)
        try:
            await waiter
        finally:
            connection.loop.remove_writer(self._socket)
            connection.sending, connection.writable = False, None
        if connection.lost:
            raise ClientDisconnected

    def _push(self, waiter: asyncio.Future[None]) -> None:
        """Send a piece where there is room; one only, so that other connections have their turn."""
        if waiter.done():
            return
        stretch = self._stretch
        try:
            count = stretch.send()
            self._connection.sent += 1
            self.ended = not count or stretch.position == stretch.stop
            if self.ended or not stretch.at_hand():
                waiter.set_result(None)
        except BlockingIOError:
            return
        except (ConnectionError, TimeoutError):
            waiter.set_exception(ClientDisconnected())
        except OSError as error:  # the disk's
            waiter.set_exception(error)
