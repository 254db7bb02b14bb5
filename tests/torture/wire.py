"""A bare HTTP/1.1 client: it tells what was never sent from what was sent and not answered."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

PACE = 0.004  # seconds between the pieces of a body, so that a kill can fall among them


class Unanswered(Exception):
    """The connection ended before the whole answer was there: nobody knows whether the request was done."""


class Unsent(Exception):
    """No connection was made: the request was not done."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers`` have their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection at a time to a server on this machine, made when it is needed."""

    def __init__(self, host: str, timeout: float = 30.0) -> None:
        self._host, _, port = host.partition(":")
        self._port = int(port)
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer. A body in pieces goes out paced, chunked unless ``headers`` give its length.

        Raises ``Unsent``, ``Unanswered``, and ``TimeoutError`` where a server neither answers nor closes.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._request(method, path, body, dict(headers or {}))
        except BaseException:
            self.close()
            raise

    async def _request(
        self, method: str, path: str, body: bytes | Sequence[bytes], headers: dict[str, str]
    ) -> Answer:
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection(self._host, self._port)
            except OSError as error:
                raise Unsent(str(error)) from error
        reader, writer = self._streams
        # Sent beside the reading: a server that refuses a long body answers before its end.
        sending = asyncio.create_task(_send(writer, method, path, {"Host": self._host, **headers}, body))
        try:
            answer, stays = await _receive(reader, method)
            stays = stays and sending.done()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Unanswered(str(error)) from error
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending
        if not stays:
            self.close()
        return answer


async def _send(
    writer: asyncio.StreamWriter, method: str, path: str, headers: dict[str, str], body: bytes | Sequence[bytes]
) -> None:
    whole = isinstance(body, bytes)
    chunked = not whole and "Content-Length" not in headers
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif whole and (body or method in ("POST", "PUT", "PATCH")):
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    head = "\r\n".join(lines).encode()
    if isinstance(body, bytes):
        writer.write(head + body)
    else:
        writer.write(head)
        for piece in body:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            await asyncio.sleep(PACE)
        if chunked:
            writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _receive(reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
    """The answer, and whether the connection stays open after it."""
    status = 100
    while status < 200:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        status = int(first.split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = 0 if method == "HEAD" or status in (204, 304) else int(headers["content-length"])
    return Answer(status, headers, await reader.readexactly(length)), headers.get("connection") != "close"
