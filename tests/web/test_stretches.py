"""Bytes that the kernel sends from a file: the right ones, from a cold disk too, and never more than there are."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvloop

from moorage.spec.errors import ClientDisconnected
from moorage.storage.base import Key, new_key
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.web.asgi import Part, Request, Response
from moorage.web.connections import Connections
from moorage.web.limits import Limits
from tests.server import running
from tests.support import digest_of

pytestmark = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile")
Loop = Callable[[], asyncio.AbstractEventLoop]
DESCRIPTORS = Path("/proc/self/fd")
MIB = 1024 * 1024
CONTENT = os.urandom(5 * MIB + 17)
MEMORY = Path("/dev/shm")  # a file system that cannot say whether a read would wait
SPANS = [(0, len(CONTENT)), (1, 2 * MIB), (61_439, 3 * MIB), (61_440, 3 * MIB + 1), (4_000_000, len(CONTENT))]


async def put(store: FilesystemBlobStore) -> Key:
    key = new_key()
    async with store.write(key) as writer:
        await writer.write([CONTENT])
    return key


@asynccontextmanager
async def asked(
    store: FilesystemBlobStore, key: Key, span: tuple[int, int], ends: list[int], during: Callable[[], None] | None
) -> AsyncIterator[asyncio.StreamReader]:
    """The answer to a request, made of a stretch between two words; ``ends`` tells where in the file it ended."""

    async def parts() -> AsyncGenerator[Part]:
        yield b"before"
        stretch = store.stretch(key, *span)
        assert stretch is not None
        with stretch:
            if during is not None:
                during()
            try:
                yield stretch
            finally:
                ends.append(stretch.position)
        if stretch.position < stretch.stop:
            raise EOFError
        yield b"behind"

    async def respond(request: Request) -> None:
        length = span[1] - span[0] + 12
        assert request.sends_files
        await request.respond(Response(200, [(b"content-length", b"%d" % length)], stream=parts()))

    async with served(respond) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        try:
            yield reader
        finally:
            writer.transport.abort()


@asynccontextmanager
async def served(respond: Callable[[Request], Coroutine[Any, Any, None]]) -> AsyncIterator[tuple[str, int]]:
    loop = asyncio.get_running_loop()
    state = SimpleNamespace(connections=set(), tasks=set())
    connections = Connections(respond, Limits())
    listening = await loop.create_server(lambda: connections.make(state), "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()
    finally:
        listening.close()
        for _ in range(200):
            if not state.connections and not state.tasks:
                break
            await asyncio.sleep(0.01)
        assert not state.tasks


def run(loop: Loop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """``work`` in a loop of that kind, which leaves no file or socket open."""
    with asyncio.Runner(loop_factory=loop) as runner:  # what the first of its kind opens stays for the others
        runner.run(asyncio.sleep(0))
    before = len(list(DESCRIPTORS.iterdir()))
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())
    assert len(list(DESCRIPTORS.iterdir())) == before


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("where", ["disk", "cold", "memory"])
def test_the_bytes(tmp_path: Path, where: str, loop: Loop) -> None:
    """Between what comes before and after, whether the file is in memory, was put out of it, or nobody can say."""
    root = tmp_path
    if where == "memory":
        if not MEMORY.is_dir():
            pytest.skip("no file system in memory")
        root = MEMORY / f"moorage-{os.getpid()}-{new_key()[:2]}"

    async def work() -> None:
        async with FilesystemBlobStore(root) as store:
            key = await put(store)
            for span in SPANS:
                if where == "cold":
                    with (root / key).open("rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                ends: list[int] = []
                async with asked(store, key, span, ends, None) as reader:
                    received = await reader.read(-1)
                same = received == b"before" + CONTENT[span[0] : span[1]] + b"behind"
                assert (same, ends) == (True, [span[1]])
            await store.delete([key])

    try:
        run(loop, work)
    finally:
        if root is not tmp_path:
            for folder in (*root.glob("*"), root):
                folder.rmdir()


def test_a_file_that_is_cut_short_meanwhile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What there is is sent, and the connection cut: nothing stands in for what is gone."""

    async def work() -> None:
        async with FilesystemBlobStore(tmp_path) as store:
            key = await put(store)
            ends: list[int] = []
            cut = 2 * MIB + 5

            def truncate() -> None:
                os.truncate(tmp_path / key, cut)

            async with asked(store, key, (1, len(CONTENT)), ends, truncate) as reader:
                received = await reader.read(-1)
            assert (received == b"before" + CONTENT[1:cut], ends) == (True, [cut])

    run(uvloop.new_event_loop, work)
    assert "was cut off" in caplog.text


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_waits_in_memory_goes_first(tmp_path: Path, loop: Loop) -> None:
    """However slowly a client reads, no stretch overtakes the bytes before it."""
    between = b"between" * 500_000  # more than the kernel takes; the writer waits until little of it is left

    async def work() -> None:
        async with FilesystemBlobStore(tmp_path) as store:
            key = await put(store)

            async def parts() -> AsyncGenerator[Part]:
                for _ in range(12):
                    yield between
                    stretch = store.stretch(key, 0, 2 * MIB)
                    assert stretch is not None
                    with stretch:
                        yield stretch

            async def respond(request: Request) -> None:
                length = 12 * (2 * MIB + len(between))
                await request.respond(Response(200, [(b"content-length", b"%d" % length)], stream=parts()))

            async with served(respond) as (host, port):
                reader, writer = await asyncio.open_connection(host, port, limit=1)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                received = bytearray()
                while piece := await reader.read(100_000):
                    received += piece
                    await asyncio.sleep(0.0005)
                writer.close()
            body = bytes(received).partition(b"\r\n\r\n")[2]
            same = body == (between + CONTENT[: 2 * MIB]) * 12
            assert same

    run(loop, work)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_client_that_goes_amid_it(tmp_path: Path, loop: Loop) -> None:
    """The file and the socket are closed, and what is asked next is answered."""

    async def work() -> None:
        async with FilesystemBlobStore(tmp_path) as store:
            key = await put(store)
            gone = []

            async def respond(request: Request) -> None:
                stretch = store.stretch(key, 0, len(CONTENT))
                assert stretch is not None

                async def parts() -> AsyncGenerator[Part]:
                    with stretch:
                        yield stretch

                try:
                    await request.respond(Response(200, [(b"content-length", b"%d" % len(CONTENT))], stream=parts()))
                except ClientDisconnected:
                    gone.append(stretch.position)

            async with served(respond) as (host, port):
                reader, writer = await asyncio.open_connection(host, port, limit=1)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await reader.readexactly(1)
                await asyncio.sleep(0.1)  # until the socket takes no more
                writer.transport.abort()
                for _ in range(300):
                    if gone:
                        break
                    await asyncio.sleep(0.01)
            assert gone
            assert 0 < gone[0] < len(CONTENT)

    run(loop, work)


@pytest.mark.own_root
def test_a_blob_that_is_shorter_than_recorded(tmp_path: Path) -> None:
    """Its length is never answered by other bytes; it is quarantined, and can be pushed again."""
    with running(tmp_path) as server:
        digest = digest_of(CONTENT)
        target = f"{server.url}/v2/a/blobs/uploads/?digest={digest}"
        assert httpx.post(target, content=CONTENT).status_code == 201
        (file,) = (each for each in (tmp_path / "blobs").glob("*/*"))
        os.truncate(file, 3 * MIB)
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed"):
            httpx.get(f"{server.url}/v2/a/blobs/{digest}")
        assert httpx.get(f"{server.url}/v2/a/blobs/{digest}").status_code == 404
        assert httpx.post(target, content=CONTENT).status_code == 201
        assert httpx.get(f"{server.url}/v2/a/blobs/{digest}").content == CONTENT
        several = httpx.get(
            f"{server.url}/v2/a/blobs/{digest}", headers={"Range": "bytes=1-2000000, 2000002-4000000"}
        )
        assert several.status_code == 206
        assert CONTENT[1:2000001] in several.content
        assert CONTENT[2000002:4000001] in several.content
