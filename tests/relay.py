"""A TCP relay before a server: counts round trips, and cuts connections at the worst moment."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Relay:
    """``trips`` counts how often a client spoke after the server did: each time it had waited for an answer.

    Once a client sends ``cut_at``, that still reaches the server (unless ``swallow``) but the answer reaches nobody.
    While ``closed`` nobody gets through from then on.
    """

    host: str
    port: int
    trips: int = 0
    cut_at: bytes | None = None
    swallow: bool = False
    closed: bool = False
    cuts: int = 0
    listening: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed and self.cuts:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection(self.host, self.port)
        self._writers |= {writer, server_writer}
        answered, cut = True, False

        async def upstream() -> None:
            nonlocal answered, cut
            while data := await reader.read(65536):
                if answered:
                    self.trips += 1
                    answered = False
                if self.cut_at is not None and self.cut_at in data:
                    self.cut_at, cut = None, True
                    self.cuts += 1
                    if self.swallow:
                        break
                server_writer.write(data)
                await server_writer.drain()

        async def downstream() -> None:
            nonlocal answered
            while data := await server_reader.read(65536):
                if cut:  # the server is done with what it was sent
                    if self.closed:
                        self.drop_all()
                    break
                answered = True
                writer.write(data)
                await writer.drain()

        directions = [asyncio.create_task(upstream()), asyncio.create_task(downstream())]
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, server_writer):
            each.transport.abort()
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        self._writers -= {writer, server_writer}

    def drop_all(self) -> None:
        """Cut every connection."""
        for each in self._writers:
            each.transport.abort()


@contextlib.asynccontextmanager
async def relay(url: str) -> AsyncIterator[tuple[Relay, str]]:
    """A relay before the server of ``url``, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    made = Relay(parts.hostname, parts.port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.listening = server.sockets[0].getsockname()[1]
    async with server:
        yield made, url.replace(f":{parts.port}", f":{made.listening}")
        server.close()
        made.drop_all()
