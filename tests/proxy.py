"""A proxy before a bucket's server: counts what is asked of it, and lets it go wrong as a test wants."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_LIMIT = 64 * 1024
_PIECE = 64 * 1024


@dataclass
class Asked:
    """One request: its line, its headers as they came, its body."""

    method: str
    path: str
    query: str
    head: bytes
    body: bytes

    @property
    def verb(self) -> str:
        """What it is in the words of S3."""
        parameters = {part.partition("=")[0] for part in self.query.split("&") if part}
        if self.method == "POST":
            return "delete many" if "delete" in parameters else "begin" if "uploads" in parameters else "complete"
        if "uploadId" in parameters:
            return "part" if self.method == "PUT" else "abort"
        if "list-type" in parameters:
            return "list"
        if b"x-amz-copy-source" in self.head.lower():
            return "copy"
        return self.method.lower()


@dataclass
class Trouble:
    """What happens instead of a plain answer. ``after`` counts bytes of the answer's body."""

    answer: bytes | None = None  # sent in place of the server's
    forward: bool = False  # whether the server is asked nevertheless
    after: int | None = None  # the connection is cut there
    shorten: int | None = None  # the answer claims to have just as many bytes
    hang: bool = False


def status(code: int, name: str = "", body: str | None = None) -> Trouble:
    """An answer with an error of S3."""
    text = body if body is not None else f"<Error><Code>{name}</Code><Message>as a test wants</Message></Error>"
    head = f"HTTP/1.1 {code} {name or 'OK'}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
    return Trouble(head.encode() + text.encode())


Rule = Callable[[Asked], Trouble | None]


@dataclass
class Proxy:
    """Speaks HTTP/1.1 to clients, one connection a request to the server behind it."""

    upstream: str
    rewrite: Callable[[bytes], bytes] = lambda head: head
    requests: list[Asked] = field(default_factory=list)
    rule: Rule = lambda _: None
    url: str = ""
    host: str = ""

    def verbs(self) -> list[str]:
        """What was asked since ``requests`` was cleared, but for the look at the start."""
        return [each.verb for each in self.requests if each.verb != "list"]

    @contextmanager
    def serving(self) -> Iterator["Proxy"]:
        started: threading.Event = threading.Event()
        stop: list[Callable[[], object]] = []

        async def run() -> None:
            loop, ending = asyncio.get_running_loop(), asyncio.Event()
            tasks: set[asyncio.Task[None]] = set()

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None
                tasks.add(task)
                try:
                    await self._serve(reader, writer)
                except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    pass
                finally:
                    tasks.discard(task)
                    writer.close()

            server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_LIMIT)
            port = server.sockets[0].getsockname()[1]
            parts = urlsplit(self.upstream)
            self.host = parts.netloc
            self.url = f"http://127.0.0.1:{port}{parts.path}"
            stop.append(lambda: loop.call_soon_threadsafe(ending.set))
            started.set()
            await ending.wait()
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield self
        finally:
            stop[0]()
            thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            length = re.search(rb"(?im)^content-length: *(\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b""
            path, _, query = target.partition("?")
            asked = Asked(method, path, query, head, body)
            self.requests.append(asked)
            trouble = self.rule(asked) or Trouble(forward=True)
            if trouble.hang:
                await asyncio.sleep(3600)
            if trouble.forward:
                await self._forward(asked, writer, trouble)
            if trouble.answer is not None:
                writer.write(trouble.answer)
            elif not trouble.forward:
                return  # a cut connection
            await writer.drain()

    async def _forward(self, asked: Asked, writer: asyncio.StreamWriter, trouble: Trouble) -> None:
        host, _, port = self.host.partition(":")
        upstream, sink = await asyncio.open_connection(host, int(port), limit=_LIMIT)
        try:
            head = self.rewrite(re.sub(rb"(?im)^connection: .*\r\n", b"", asked.head))
            sink.write(head[:-2] + b"Connection: close\r\n\r\n" + asked.body)
            await sink.drain()
            answer = await upstream.readuntil(b"\r\n\r\n")
            if trouble.answer is not None:
                return
            answer = re.sub(rb"(?im)^(connection|keep-alive): .*\r\n", b"", answer)
            left = trouble.after
            if trouble.shorten is not None:
                answer = re.sub(rb"(?im)^content-length: *\d+", b"Content-Length: %d" % trouble.shorten, answer)
                left = trouble.shorten
            chunked = b"transfer-encoding: chunked" in answer.lower()
            told = re.search(rb"(?im)^content-length: *(\d+)", answer)
            if not chunked and told is None:
                answer = answer[:-2] + b"Content-Length: 0\r\n\r\n"
            writer.write(answer)
            if asked.method == "HEAD":
                return
            while piece := await upstream.read(_PIECE):
                if left is not None:
                    piece, left = piece[:left], left - len(piece[:left])
                writer.write(piece)
                await writer.drain()
                if left == 0:
                    break
            if trouble.after is not None:
                raise EOFError
        finally:
            sink.close()
            with suppress(OSError):
                await sink.wait_closed()


def times(n: int, rule: Rule) -> Rule:
    """``rule``, until it struck ``n`` times."""
    struck = 0

    def limited(asked: Asked) -> Trouble | None:
        nonlocal struck
        if struck < n and (trouble := rule(asked)):
            struck += 1
            return trouble
        return None

    return limited


def on(verb: str, trouble: Trouble) -> Rule:
    """``trouble`` for every request of a ``verb``."""
    return lambda asked: trouble if asked.verb == verb else None
