"""Clients that are dead, idle, too many or worse, over plain HTTP and TLS: the server lets go of them and goes on."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.certificates import Authority
from tests.server import Server, running
from tests.support import digest_of, eventually

LARGE = bytes(range(256)) * 65536
REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


def tls(authority: Authority) -> tuple[str, ...]:
    pair = authority.server()
    return ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))


@pytest.fixture(scope="module", params=["http", "https"])
def hasty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Server]:
    """A server that waits for nobody."""
    limits = {"MOORAGE_HEAD_TIMEOUT": "1", "MOORAGE_STALL_TIMEOUT": "1", "MOORAGE_KEEP_ALIVE": "2"}
    options = tls(authority) if request.param == "https" else ()
    with running(tmp_path_factory.mktemp("hasty"), *options, **limits) as server:
        yield server
        assert "Traceback" not in server.log, server.log
        assert "ERROR" not in server.log, server.log


class Client:
    """Connections to one server, however it speaks."""

    def __init__(self, server: Server, authority: Authority) -> None:
        self.server = server
        self.context = ssl.create_default_context(cafile=str(authority.certificate))

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
        if self.server.url.startswith("http:"):
            return plain
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def ask(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        return httpx.request(method, f"{self.server.url}{path}", content=content, verify=self.context)

    def works(self) -> bool:
        return self.ask("GET", "/v2/").status_code == 200


@pytest.fixture
def client(hasty: Server, authority: Authority) -> Client:
    return Client(hasty, authority)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = bytearray()
    with suppress(ConnectionResetError, ssl.SSLEOFError):
        while piece := connection.recv(1 << 20):
            found += piece
    return bytes(found)


def descriptors(server: Server) -> list[str]:
    """What the server has open."""
    assert server.process is not None
    found = []
    for each in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found


def sockets(server: Server) -> int:
    return sum(each.startswith("socket:") for each in descriptors(server))


def test_half_a_head(client: Client) -> None:
    """A request's head that does not end is answered 408, and the connection closed."""
    with client.connect() as connection:
        connection.sendall(REQUEST[:20])
        assert rest(connection).startswith(b"HTTP/1.1 408 ")


def test_head_of_300_kb(client: Client) -> None:
    """A head larger than the limit is answered 431 before it is all there."""
    with client.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(REQUEST[:-2] + b"X: " + b"x" * 300_000 + b"\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 431 ")
    assert client.works()


def test_body_that_stalls(client: Client) -> None:
    """A body that does not go on is answered 408; what came of it is kept."""
    location = str(client.ask("POST", "/v2/a/blobs/uploads/").headers["location"])
    with client.connect() as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 1000)
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
    assert client.ask("GET", location).headers["range"] == "0-999"


def test_reader_that_stalls(client: Client) -> None:
    """Whoever does not take his answer is let go, with the file that was open for him."""
    digest = digest_of(LARGE)
    assert client.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", LARGE).status_code == 201
    with client.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        eventually(lambda: any("/blobs/" in each for each in descriptors(client.server)), "the file is open")
        eventually(lambda: not any("/blobs/" in each for each in descriptors(client.server)), "the file is closed")


def test_a_thousand_idle_connections(client: Client) -> None:
    """They hold nobody else up, and go when their time is over; half of them have asked before."""
    before = sockets(client.server)
    with ExitStack() as stack:
        for number in range(1000):
            connection = stack.enter_context(client.connect())
            if number % 2:
                connection.sendall(REQUEST)
        assert client.works()
        eventually(lambda: sockets(client.server) <= before + 1, "they are closed", 30)
        assert client.works()


def test_half_a_handshake(tmp_path: Path, authority: Authority) -> None:
    """A connection on which TLS is never spoken delays neither others nor the end of the server."""
    with running(tmp_path, *tls(authority)) as server, ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            connection.sendall(b"\x16\x03\x01\x02\x00")
        assert Client(server, authority).works()
        assert server.stop(15) == 0


def open_and_count(server: Server, most: int, stack: ExitStack) -> bytes:
    """Open connections until one is refused, with what that one was told; there are exactly ``most`` before it."""
    for _ in range(most):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        connection.sendall(REQUEST)
        received = b""
        while not received.endswith(b"{}"):
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        return rest(connection)


@pytest.mark.parametrize(
    ("setting", "status", "code"),
    [("CONNECTIONS", b"503", b'"UNKNOWN"'), ("CONNECTIONS_PER_ADDRESS", b"429", b'"TOOMANYREQUESTS"')],
)
def test_too_many_connections(tmp_path: Path, setting: str, status: bytes, code: bytes) -> None:
    """One connection too many is told so and closed; when another has gone there is room again."""
    limits = {"MOORAGE_CONNECTIONS": "100", "MOORAGE_CONNECTIONS_PER_ADDRESS": "100", f"MOORAGE_{setting}": "10"}
    with running(tmp_path, **limits) as server:
        before = sockets(server)
        for _ in range(2):
            with ExitStack() as stack:
                told = open_and_count(server, 10, stack)
                assert told.startswith(b"HTTP/1.1 " + status)
                assert code in told
                assert b"\r\nretry-after: 5\r\n" in told.lower()
            eventually(lambda: sockets(server) == before, "they are closed")
        assert httpx.get(f"{server.url}/v2/").status_code == 200


def test_connections_of_a_proxy(tmp_path: Path) -> None:
    """The connections of a trusted proxy are not its own, and not counted as if they were."""
    environment = {"MOORAGE_CONNECTIONS_PER_ADDRESS": "5", "MOORAGE_TRUSTED_PROXIES": "127.0.0.0/8"}
    with running(tmp_path, **environment) as server, ExitStack() as stack:
        with contextlib.suppress(TimeoutError):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.settimeout(0.2)
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            assert connection.recv(1) == b""
        assert httpx.get(f"{server.url}/v2/").status_code == 200


def test_open_files_suffice(tmp_path: Path) -> None:
    """The server takes no more connections than it has open files for, whatever limit it was started under."""
    command = ["prlimit", "--nofile=200:400"]
    server = Server(tmp_path, through=command).start()
    try:
        assert server.process is not None
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files")] == [
            ["400", "400"]
        ]
        before = sockets(server)
        with ExitStack() as stack:
            told = open_and_count(server, (400 - 128) // 3 // 2, stack)
            assert told.startswith(b"HTTP/1.1 429 ")
        eventually(lambda: sockets(server) == before, "they are closed")
        digest = digest_of(LARGE)
        answer = httpx.post(f"{server.url}/v2/a/blobs/uploads/?digest={digest}", content=LARGE)
        assert answer.status_code == 201
        assert "Traceback" not in server.log
    finally:
        server.kill()
