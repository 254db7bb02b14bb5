"""Clients that ask at the same time, each over a connection of its own, and so of several workers."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from tests.fuzz.answer import Answer, check
from tests.races.model import OCI_MANIFEST, digest_of

PATIENCE: Final = 60.0
_MOMENT: Final = 0.002
Result = TypeVar("Result")
Headers = Sequence[tuple[str, str]]


class Client:
    """One connection, opened when needed and kept; no answer that it gets is a failure of the server's."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Answer:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await self.open()
            head = [f"{method} {target} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
            head += [f"{name}: {value}" for name, value in headers]
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            await writer.drain()
            answer = await _read(reader, method)
        if answer.header("connection") == "close":
            await self.aclose()
        check(method, answer)
        return answer

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            address, _, port = self._host.rpartition(":")
            self._streams = await asyncio.open_connection(address, int(port))
        return self._streams

    async def aclose(self) -> None:
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            await asyncio.wait_for(writer.wait_closed(), PATIENCE)

    async def push_blob(self, repository: str, content: bytes) -> str:
        """The digest of a blob that is now in the repository."""
        digest = digest_of(content)
        answer = await self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", body=content)
        assert answer.status == 201, answer
        return digest

    async def open_session(self, repository: str) -> str:
        """The location of a new upload session."""
        answer = await self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.header("location") or ""

    async def put(
        self,
        repository: str,
        reference: str,
        document: dict[str, Any],
        media_type: str = OCI_MANIFEST,
        headers: Headers = (),
    ) -> Answer:
        """The answer to a manifest's push."""
        target = f"/v2/{repository}/manifests/{reference}"
        return await self.ask("PUT", target, [("Content-Type", media_type), *headers], encoded(document))


async def _read(reader: asyncio.StreamReader, method: str) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        headers.append((name.lower(), value.strip()))
    answer = Answer(int(first.split(" ")[1]), tuple(headers))
    length = int(answer.header("content-length") or 0)
    if method == "HEAD" or answer.status in (204, 304) or not length:
        return answer
    return Answer(answer.status, answer.headers, await reader.readexactly(length))


@asynccontextmanager
async def crowd(host: str, count: int) -> AsyncIterator[list[Client]]:
    """``count`` clients, all of them connected."""
    clients = [Client(host) for _ in range(count)]
    await asyncio.gather(*(client.open() for client in clients))
    try:
        yield clients
    finally:
        await asyncio.gather(*(client.aclose() for client in clients))


async def at_once(*asks: Coroutine[Any, Any, Result]) -> list[Result]:
    """What they answer, each asked after a moment of its own, so that not the same one is always the first."""

    async def later(ask: Coroutine[Any, Any, Result]) -> Result:
        await asyncio.sleep(random.random() * _MOMENT)
        return await ask

    return await asyncio.gather(*map(later, asks))


def encoded(document: dict[str, Any]) -> bytes:
    """A manifest's bytes."""
    return json.dumps(document).encode()


def image(*blobs: str, **more: Any) -> dict[str, Any]:
    """An image manifest with layers of these digests."""
    layers = [{"mediaType": "application/octet-stream", "digest": blob, "size": 1} for blob in blobs]
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": layers, **more}


def described(document: dict[str, Any]) -> dict[str, Any]:
    """The descriptor of a manifest."""
    content = encoded(document)
    return {"mediaType": document["mediaType"], "digest": digest_of(content), "size": len(content)}
