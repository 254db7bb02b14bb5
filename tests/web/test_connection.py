"""A connection of our own: what is sent at once, too slowly, too much, or not at all."""

import asyncio
import contextvars
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from moorage.web.asgi import Request, Response, empty
from moorage.web.connections import Connections
from moorage.web.heads import date_line, head_of
from moorage.web.limits import Limits
from tests.fuzz.wire import answers
from tests.server import Bytes, Server, running
from tests.support import connect, digest_of, eventually, raw

LARGE = bytes(range(256)) * 65536
HOST = "Host: x\r\n"
CLOSE = "Connection: close\r\n"
Door = tuple[asyncio.StreamReader, asyncio.StreamWriter, SimpleNamespace]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits as long as usual."""
    with running(tmp_path_factory.mktemp("connection")) as started:
        yield started
        assert "Traceback" not in started.log, started.log
        assert "ERROR" not in started.log, started.log


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody."""
    limits = {
        "MOORAGE_HEAD_LIMIT": "2048",
        "MOORAGE_HEAD_TIMEOUT": "0.8",
        "MOORAGE_STALL_TIMEOUT": "0.8",
        "MOORAGE_KEEP_ALIVE": "1.5",
    }
    with running(tmp_path_factory.mktemp("hasty"), **limits) as started:
        yield started
        assert "Traceback" not in started.log, started.log
        assert "ERROR" not in started.log, started.log


@pytest.mark.parametrize("length", [f"Content-Length: {16 * 2**20}\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_refused_body_does_not_cost_its_answer(server: Server, length: str) -> None:
    """Whoever sends the whole of a body that is refused from the start still gets the answer, not a reset."""
    piece = b"x" * 65536
    framed = piece if length.startswith("Content") else b"10000\r\n" + piece + b"\r\n"
    with connect(server.url) as connection:
        head = f"PUT /v2/a/manifests/v1 HTTP/1.1\r\n{HOST}Content-Type: application/json\r\n{length}\r\n"
        connection.sendall(head.encode())
        for _ in range(256):
            connection.sendall(framed)
        if not length.startswith("Content"):
            connection.sendall(b"0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        (answer,) = answers(b"".join(iter(lambda: connection.recv(65536), b"")), ["PUT"])
        assert answer.status == 413


def push(server: Server, content: bytes) -> str:
    digest = digest_of(content)
    assert httpx.post(f"{server.url}/v2/a/blobs/uploads/?digest={digest}", content=content).status_code == 201
    return digest


def session(server: Server) -> str:
    return str(httpx.post(f"{server.url}/v2/a/blobs/uploads/").headers["location"])


def message(line: str, headers: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\n{HOST}{headers}{length}\r\n".encode() + body


def everything(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            found += piece
    return bytes(found)


# What is sent at once


def test_requests_with_bodies_behind_one_that_waits(server: Server) -> None:
    """A body larger than what is read at once arrives whole, also where the request before it takes a while."""
    first, second = b"first", LARGE[:3_000_000]
    data = message(f"POST /v2/p/blobs/uploads/?digest={digest_of(first)}", "", first)
    data += message(f"POST /v2/p/blobs/uploads/?digest={digest_of(second)}", "", second)
    data += message(f"HEAD /v2/p/blobs/{digest_of(second)}", CLOSE)
    found = answers(raw(server.url, data), ["POST", "POST", "HEAD"])
    assert [each.status for each in found] == [201, 201, 200]


@pytest.mark.streamed
def test_a_thousand_requests_at_once(server: Server) -> None:
    """Each gets its answer, in order, over a connection that is read only after all were sent."""
    push(server, b"x")
    data = message("GET /v2/") + message(f"GET /v2/a/blobs/{digest_of(b'x')}") + message("GET /v2/none/tags/list")
    data = data * 333 + message("GET /v2/", CLOSE)
    found = answers(raw(server.url, data), ["GET"] * 1000)
    assert [each.status for each in found] == [200, 200, 404] * 333 + [200]


@pytest.mark.streamed
def test_what_is_no_http_behind_a_request(server: Server) -> None:
    """It is refused after the answer to what was asked before it, also one that takes its time."""
    digest = push(server, LARGE)
    data = message(f"GET /v2/a/blobs/{digest}") + b"garbage\r\n\r\n"
    blob, refusal = answers(raw(server.url, data), ["GET", "GET"])
    assert blob.body == LARGE
    assert (refusal.status, refusal.codes, refusal.header("connection")) == (400, ["UNSUPPORTED"], "close")


def test_broken_chunks_behind_a_request(server: Server) -> None:
    """What arrived of the broken body is kept, and the client is told why."""
    location = session(server)
    data = (
        message("GET /v2/") + message(f"PATCH {location}", "Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\nzz\r\n"
    )
    first, refusal = answers(raw(server.url, data), ["GET", "GET"])
    assert (first.status, refusal.status) == (200, 400)
    assert httpx.get(f"{server.url}{location}").headers["range"] == "0-2"


def test_a_body_that_nobody_wants(server: Server) -> None:
    """It is passed over, and the next request on the connection is answered."""
    data = message("POST /v2/a/blobs/uploads/", "", LARGE) + message("GET /v2/", CLOSE)
    assert [each.status for each in answers(raw(server.url, data), ["POST", "GET"])] == [202, 200]


def test_a_body_that_was_not_asked_for(server: Server) -> None:
    """Whether it still comes nobody knows, so the connection ends."""
    headers = "Expect: 100-continue\r\nContent-Length: 10\r\n"
    (found,) = answers(raw(server.url, message("POST /v2/a/blobs/uploads/", headers)), ["POST"])
    assert (found.status, found.header("connection")) == (202, "close")


@pytest.mark.streamed
def test_a_client_that_closed_its_side(server: Server) -> None:
    """It gets all that it asked for."""
    digest = push(server, LARGE)
    with connect(server.url) as connection:
        connection.sendall(message(f"GET /v2/a/blobs/{digest}") + message("GET /v2/"))
        connection.shutdown(socket.SHUT_WR)
        blob, base = answers(everything(connection), ["GET", "GET"])
    assert blob.body == LARGE
    assert base.status == 200


@pytest.mark.parametrize("headers", ["", "Connection: keep-alive\r\n"])
def test_http_1_0(server: Server, headers: str) -> None:
    """It is answered, and the connection ends."""
    (found,) = answers(raw(server.url, f"GET /v2/ HTTP/1.0\r\n{headers}\r\n".encode()), ["GET"])
    assert (found.status, found.header("connection")) == (200, "close")


def test_nobody_is_told_to_go_on_over_http_1_0(server: Server) -> None:
    """RFC 9110 section 10.1.1: there is no 100 in HTTP/1.0."""
    line = f"POST /v2/a/blobs/uploads/?digest={digest_of(b'1.0')}"
    asked = message(line, "Expect: 100-continue\r\n", b"1.0").replace(b"HTTP/1.1", b"HTTP/1.0")
    with connect(server.url) as connection:
        connection.sendall(asked[:-3])
        time.sleep(0.1)  # until it was read
        connection.sendall(asked[-3:])
        assert everything(connection).startswith(b"HTTP/1.1 201 ")


OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.1])
@pytest.mark.parametrize("length", [0, 5, 200_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_of_another_protocol(server: Server, length: int, chunked: bool, pause: float) -> None:
    """It is not taken up, and the request is answered with its body (RFC 9110 section 7.8), as Java makes them."""
    content = LARGE[:length]
    framing, sent = f"Content-Length: {length}", content
    if chunked:
        framing = "Transfer-Encoding: chunked"
        sent = (b"%x\r\n%b\r\n" % (length, content) if content else b"") + b"0\r\n\r\n"
    with connect(server.url) as connection:
        head = message(f"POST /v2/a/blobs/uploads/?digest={digest_of(content)}", f"{OFFER}{framing}\r\n")
        connection.sendall(head if pause else head + sent)
        time.sleep(pause)  # until it was read
        if pause:
            connection.sendall(sent)
        (found,) = answers(everything(connection), ["POST"])
    assert (found.status, found.header("connection")) == (201, "close")


def test_a_target_of_another_form(server: Server) -> None:
    """RFC 9112 section 3.2: a whole URL may lack a path; whoever wants a tunnel is told what is wrong."""
    (found,) = answers(raw(server.url, message("GET http://x", CLOSE)), ["GET"])
    assert (found.status, json.loads(found.body)["errors"][0]["detail"]) == (404, {"path": "/"})
    (found,) = answers(raw(server.url, message("CONNECT x:80")), ["CONNECT"])
    assert (found.status, json.loads(found.body)["errors"][0]["detail"]) == (400, {"reason": "invalid url b'x:80'"})


def test_date(server: Server) -> None:
    """Every answer says when it was made."""
    (found,) = answers(raw(server.url, message("GET /v2/", CLOSE)), ["GET"])
    made = time.mktime(time.strptime(found.header("date") or "", "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert abs(made - time.time()) < 60


# What may come once


def bare(*headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET /v2/ HTTP/{version}", "Connection: close", *headers, "", ""]).encode()


ONCE = {
    "Host": ("x", "y"),
    "Authorization": ("Basic YTpi", "Basic YTpj"),
    "Content-Range": ("0-1", "0-2"),
    "Content-Type": ("a/b", "a/c"),
    "Range": ("bytes=0-0", "bytes=1-1"),
    "If-Range": ('"a"', '"b"'),
    "Origin": ("http://x", "http://y"),
    "Sec-Fetch-Site": ("none", "cross-site"),
    "Expect": ("100-continue", "x"),
}


@pytest.mark.parametrize("name", ONCE)
def test_a_header_that_may_come_once(server: Server, name: str) -> None:
    """Twice it is refused, even with one value: none of the two counts. One of them is as good as ever."""
    first, second = ONCE[name]
    others = [] if name == "Host" else ["Host: x"]
    for values in ((first, second), (second, first), (first, first)):
        lines = [f"{name}: {values[0]}", *others, f"{name.lower()}: {values[1]}"]
        (found,) = answers(raw(server.url, bare(*lines)), ["GET"])
        assert (found.status, found.codes) == (400, ["UNSUPPORTED"])
        assert json.loads(found.body)["errors"][0]["detail"] == {"header": name.lower(), "allowed": "one"}
    (found,) = answers(raw(server.url, bare(f"{name}: {first}", *others)), ["GET"])
    assert found.status == 200


def test_a_request_without_a_host(server: Server) -> None:
    """RFC 9112 section 3.2: that is not HTTP/1.1; a connection of HTTP/1.0 need not name one."""
    (found,) = answers(raw(server.url, bare()), ["GET"])
    assert (found.status, found.codes) == (400, ["UNSUPPORTED"])
    assert json.loads(found.body)["errors"][0]["detail"] == {"header": "host", "allowed": "one"}
    (found,) = answers(raw(server.url, bare(version="1.0")), ["GET"])
    assert found.status == 200


def test_the_request_behind_one_that_is_refused(server: Server) -> None:
    """Its body is known to end, so what follows is the next request, which may be right; trailers repeat nothing."""
    chunked = "Transfer-Encoding: chunked\r\n"
    trailers = b"1\r\nx\r\n0\r\nHost: y\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"
    data = message("POST /v2/a/blobs/uploads/", f"Host: y\r\n{chunked}") + trailers
    data += message("POST /v2/a/blobs/uploads/", chunked) + trailers + message("GET /v2/", CLOSE)
    assert [each.status for each in answers(raw(server.url, data), ["POST", "POST", "GET"])] == [400, 202, 200]


def test_a_list_in_several_lines(server: Server) -> None:
    """RFC 9110 section 5.3: the values of a header that is a list are one list, in their order."""
    digest = push(server, b"listed")
    headers = f'If-None-Match: "{digest}"\r\nIf-None-Match: "other"\r\n{CLOSE}'
    (found,) = answers(raw(server.url, message(f"GET /v2/a/blobs/{digest}", headers)), ["GET"])
    assert found.status == 304


# What is too much, or too slow


def refused(received: bytes, status: int) -> None:
    (found,) = answers(received, ["GET"])
    assert (found.status, found.codes, found.header("connection")) == (status, ["UNSUPPORTED"], "close")


def test_a_large_head(hasty: Server) -> None:
    """A head up to the limit is taken, also with a body that is longer; a larger one is refused."""
    content = LARGE[:100_000]
    fits = message(f"POST /v2/a/blobs/uploads/?digest={digest_of(content)}", f"X: {'x' * 1700}\r\n{CLOSE}", content)
    assert answers(raw(hasty.url, fits), ["POST"])[0].status == 201
    refused(raw(hasty.url, message("GET /v2/", f"X: {'x' * 2100}\r\n")), 431)
    refused(raw(hasty.url, message("GET /v2/" + "a" * 2100)), 431)


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_a_head_whose_end_comes_in_pieces(hasty: Server, last: int) -> None:
    """It is as long as it is, however much of a body comes with its last bytes, and whatever came before it."""
    content = LARGE[:100_000]
    line = f"POST /v2/a/blobs/uploads/?digest={digest_of(content)}"
    for before in (b"", message("GET /v2/")):
        head = before + message(line, CLOSE, content).removesuffix(content)
        with connect(hasty.url) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in (head[:-last], *(bytes([byte]) for byte in head[-last:-1])):
                connection.sendall(piece)
                time.sleep(0.05)  # until it was read
            connection.sendall(head[-1:] + content)
            found = answers(everything(connection), ["GET", "POST"] if before else ["POST"])
        assert found[-1].status == 201


def test_an_endless_head(hasty: Server) -> None:
    """It is refused as soon as it is too large."""
    with connect(hasty.url) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")
        for n in range(10):
            with suppress(ConnectionError):
                connection.sendall(f"X-{n}: {'x' * 500}\r\n".encode())
        refused(everything(connection), 431)


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x: y\r\n" * 200])
def test_endless_trailers(hasty: Server, piece: bytes) -> None:
    """What follows the last chunk is refused as soon as it is longer than a head may be, not kept."""
    with connect(hasty.url) as connection:
        connection.sendall(
            message(f"PATCH {session(hasty)}", "Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\nX: "
        )
        with suppress(ConnectionError):
            for _ in range(2**20 // len(piece)):  # what comes together with the head is not counted
                connection.sendall(piece)
        refused(everything(connection), 431)


def test_small_chunks(hasty: Server) -> None:
    """However much of a body is the framing of its chunks, it is taken."""
    chunks = b"".join(b"1;some-extension=of-each\r\n%c\r\n" % byte for byte in b"0123456789" * 200)
    head = message(f"PATCH {session(hasty)}", f"Transfer-Encoding: chunked\r\n{CLOSE}")
    (found,) = answers(raw(hasty.url, head + chunks + b"0\r\nX: trailer\r\n\r\n"), ["PATCH"])
    assert (found.status, found.header("range")) == (202, "0-1999")


def test_a_slow_head(hasty: Server) -> None:
    """A byte now and then does not hold a connection."""
    with connect(hasty.url) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nX: ")
        connection.settimeout(0.2)
        received = b""
        for _ in range(100):
            with suppress(TimeoutError):
                received = connection.recv(65536)
                break
            connection.sendall(b"x")
        refused(received, 408)


def test_a_silent_connection(hasty: Server) -> None:
    """It is closed without a word, before the first request and after it."""
    with connect(hasty.url) as connection:
        assert everything(connection) == b""
    (found,) = answers(raw(hasty.url, message("GET /v2/")), ["GET"])
    assert found.status == 200


@pytest.mark.parametrize("framing", ["Content-Length: 2000\r\n", "Transfer-Encoding: chunked\r\n"])
def test_a_body_that_stalls(hasty: Server, framing: str) -> None:
    """What came before it stalled is kept, and the client is told."""
    location = session(hasty)
    part = b"x" * 1000 if framing.startswith("Content") else b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    refused(raw(hasty.url, message(f"PATCH {location}", framing) + part), 408)
    assert httpx.get(f"{hasty.url}{location}").headers["range"] == "0-999"


def test_a_body_that_stalls_behind_its_answer(hasty: Server) -> None:
    """There is nothing left to say, so the connection just ends."""
    data = message("POST /v2/a/blobs/uploads/", "Content-Length: 2000\r\n") + b"x" * 1000
    (found,) = answers(raw(hasty.url, data), ["POST"])
    assert found.status == 202


def test_a_slow_body(hasty: Server) -> None:
    """A client that is slow, but not dead, is waited for longer than any limit."""
    location = session(hasty)
    with connect(hasty.url) as connection:
        connection.sendall(message(f"PATCH {location}", f"{CLOSE}Content-Length: 10\r\n"))
        for _ in range(10):
            time.sleep(0.25)
            connection.sendall(b"x")
        assert everything(connection).startswith(b"HTTP/1.1 202 ")


@pytest.mark.streamed
def test_a_reader_that_stalls(hasty: Server) -> None:
    """It is cut off: its connection does not get the rest, and the server holds nothing for it."""
    digest = push(hasty, LARGE)
    with connect(hasty.url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(message(f"GET /v2/a/blobs/{digest}"))
        assert hasty.process is not None
        descriptors = Path(f"/proc/{hasty.process.pid}/fd")

        def held() -> bool:
            return any("/blobs/" in str(each.readlink()) for each in descriptors.iterdir() if each.is_symlink())

        if descriptors.exists() and not Bytes.of(hasty.root):
            eventually(held, "the file is open")
            eventually(lambda: not held(), "the file is closed")
        else:
            time.sleep(3)
        assert len(everything(connection)) < len(LARGE)


@pytest.mark.streamed
def test_a_slow_reader(hasty: Server) -> None:
    """It gets everything, though that takes longer than any limit."""
    digest = push(hasty, LARGE)
    with connect(hasty.url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(message(f"GET /v2/a/blobs/{digest}", CLOSE))
        received = 0
        for _ in range(12):
            time.sleep(0.25)
            received += len(connection.recv(1 << 18))
        received += len(everything(connection))
    assert received > len(LARGE)


# What goes wrong within


def test_a_header_is_one_line() -> None:
    """Nothing in a header can end it, or begin another."""
    for value in ("a\r\nX: b", "a\nX: b", "a\r", "a\0"):
        response = Response()
        response.add("X", value)
        with pytest.raises(ValueError, match="more than a line"):
            head_of(response, date_line(), keep_alive=True)


@asynccontextmanager
async def answering(respond: Callable[[Request], Coroutine[Any, Any, None]]) -> AsyncIterator[Door]:
    """A connection to a server whose requests ``respond`` answers."""
    loop = asyncio.get_running_loop()
    state = SimpleNamespace(connections=set(), tasks=set())
    connections = Connections(respond, Limits())
    listening = await loop.create_server(lambda: connections.make(state), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        yield reader, writer, state
    finally:
        writer.close()
        await writer.wait_closed()
        listening.close()
        await listening.wait_closed()


async def status_of(reader: asyncio.StreamReader) -> int:
    return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])


async def test_the_first_step_is_the_tasks() -> None:
    """A request has one task and one context from its first step to its last, and timeouts work in all of them."""
    known: contextvars.ContextVar[int] = contextvars.ContextVar("known")
    seen = []

    async def respond(request: Request) -> None:
        token = known.set(1)
        first = asyncio.current_task()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        seen.append((first is asyncio.current_task(), known.get()))
        known.reset(token)
        await request.respond(empty(200))

    async with answering(respond) as (reader, writer, _):
        for _ in range(2):
            writer.write(message("GET /v2/"))
            assert await status_of(reader) == 200
    assert seen == [(True, 1)] * 2


@pytest.mark.parametrize("waits", [0, 1])
async def test_a_failure_within(caplog: pytest.LogCaptureFixture, waits: int) -> None:
    """What the application does not catch ends the connection, and is logged."""

    async def respond(request: Request) -> None:
        for _ in range(waits):
            await asyncio.sleep(0)
        raise OSError(request.path)

    async with answering(respond) as (reader, writer, state):
        writer.write(message("GET /v2/"))
        assert await reader.read() == b""
        assert not state.tasks
    assert "GET '/v2/' was cut off" in caplog.text


async def test_cancelling() -> None:
    """A request that waits can be cancelled, and answers even then; the connection ends."""
    waiting = asyncio.Event()

    async def respond(request: Request) -> None:
        try:
            waiting.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await request.respond(empty(503))
            raise

    async with answering(respond) as (reader, writer, state):
        writer.write(message("GET /v2/"))
        await waiting.wait()
        for task in state.tasks:  # before it went on with what the first step left, or after
            task.cancel()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")


async def test_a_body_of_another_length_than_announced(caplog: pytest.LogCaptureFixture) -> None:
    """The client must see a connection that is cut, not take what follows for the rest."""

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"abc"

    async def respond(request: Request) -> None:
        await request.respond(Response(200, [(b"content-length", b"5")], stream=pieces()))

    async with answering(respond) as (reader, writer, _):
        writer.write(message("GET /v2/"))
        assert (await reader.read()).endswith(b"\r\n\r\nabc")
    assert "differs from its Content-Length" in caplog.text


async def test_errors_are_json(server: Server) -> None:
    """A refusal has the specification's form."""
    body = raw(server.url, b"garbage\r\n\r\n").partition(b"\r\n\r\n")[2]
    assert json.loads(body)["errors"][0]["detail"]["reason"]
