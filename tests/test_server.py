"""``moorage serve`` as a real process: start, sockets, draining, the end."""

import json
import platform
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import Server, running
from tests.support import LAYER, connect, digest_of, eventually, raw

DIGEST = digest_of(LAYER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server of one process, for the tests that do not stop it."""
    with running(tmp_path_factory.mktemp("served") / "new" / "root") as started:
        yield started


def push(url: str, content: bytes = LAYER, repository: str = "a") -> str:
    digest = digest_of(content)
    response = httpx.post(f"{url}/v2/{repository}/blobs/uploads/?digest={digest}", content=content)
    assert response.status_code == 201, response.text
    return digest


def start_upload(url: str) -> str:
    response = httpx.post(f"{url}/v2/a/blobs/uploads/")
    return str(response.headers["location"])


def received(url: str, location: str) -> int:
    """How many bytes a session has."""
    last = int(httpx.get(f"{url}{location}").headers["range"].partition("-")[2])
    return last + 1 if last else 0


def begin_patch(server: Server, location: str, announced: int, content: bytes) -> socket.socket:
    """A connection on which a PATCH of ``announced`` bytes has begun."""
    connection = connect(server.url)
    head = f"PATCH {location} HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {announced}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes on a connection until the server closes it."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def refused(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        connect(server.url).close()
    except ConnectionRefusedError:
        return True
    return False


def test_first_lines(server: Server) -> None:
    """The first line is where it serves and from what, the second a first push to try."""
    eventually(lambda: len(server.output) >= 2, "two lines")
    first, second = server.output[:2]
    assert re.fullmatch(rf"Moorage \S+ serves {re.escape(server.url)} from {re.escape(str(server.root))}\n", first)
    assert second == f"Try it: docker tag busybox {server.host}/busybox && docker push {server.host}/busybox\n"


def test_it_answers(server: Server) -> None:
    """The root is made where it is not there, and the registry answers on the port that it printed."""
    assert (server.root / "moorage.db").is_file()
    response = httpx.get(f"{server.url}/v2/")
    assert response.status_code == 200
    assert "server" not in response.headers
    assert push(server.url) == DIGEST
    assert httpx.get(f"{server.url}/v2/a/blobs/{DIGEST}").content == LAYER


HEADS = ["/v2/", f"/v2/a/blobs/{DIGEST}", "/v2/a/tags/list", "/v2/_catalog", f"/v2/a/referrers/{DIGEST}", "/healthz"]
FAILING = ["/nowhere", "/v2/a/manifests/none", "/v2/A/manifests/x", f"/v2/b/blobs/{DIGEST}", "/v2/a/blobs/uploads/x"]


@pytest.mark.parametrize("path", [*HEADS, *FAILING, "/v2/a/blobs/uploads/"])
def test_head_has_no_body_on_the_wire(server: Server, path: str) -> None:
    """Nothing follows the headers of an answer to HEAD, also where the answer is an error with a length."""
    push(server.url)
    request = f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, end, rest = raw(server.url, request.encode()).partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    status = int(head.split()[1])
    assert status < 400 if path in HEADS else 400 <= status < 500
    assert int(re.findall(rb"content-length: (\d+)", head.lower())[0]) > 0


def test_keep_alive(server: Server) -> None:
    """One connection takes one request after another, a refused one with a body between them."""
    push(server.url)
    lines = [
        b"HEAD /v2/a/blobs/" + DIGEST.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /v2/a/tags/list HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
        b"DELETE /v2/a/blobs/" + DIGEST.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
    with connect(server.url) as connection:
        found = b""
        for n, line in enumerate(lines, 1):
            connection.sendall(line)
            while found.count(b"HTTP/1.1 ") < n:
                found += connection.recv(65536)
        found += answer(connection)
    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == [b"200", b"405", b"202", b"200"]


def test_expect_continue(server: Server) -> None:
    """A client that waits for 100-continue gets it where its body is wanted, and a refusal where it is not."""
    head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with connect(server.url) as connection:
        connection.sendall(head.format(f"/v2/e/blobs/uploads/?digest={DIGEST}", len(LAYER)).encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(LAYER)
        assert answer(connection).startswith(b"HTTP/1.1 201 ")
    with connect(server.url) as connection:
        connection.sendall(head.format("/v2/E/blobs/uploads/?digest=x", len(LAYER)).encode())
        assert answer(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("what", ["POST", "PATCH", "PUT", "manifest"])
def test_what_is_announced_too_large_is_refused_before_it_comes(tmp_path: Path, what: str) -> None:
    """A body whose length is over the limit is refused by its head; not a byte of it is asked for."""
    with running(tmp_path, MOORAGE_BLOB_LIMIT="2000000", MOORAGE_MANIFEST_LIMIT="2000000") as server:
        location = start_upload(server.url)
        method, target = {
            "POST": ("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}"),
            "PATCH": ("PATCH", location),
            "PUT": ("PUT", f"{location}?digest={DIGEST}"),
            "manifest": ("PUT", "/v2/a/manifests/v1"),
        }[what]
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000001\r\nExpect: 100-continue\r\n\r\n"
        with connect(server.url) as connection:
            connection.sendall(head.encode())
            found = answer(connection)
        assert found.startswith(b"HTTP/1.1 413 ")
        assert json.loads(found.partition(b"\r\n\r\n")[2])["errors"][0]["detail"]["allowed"] == 2000000


def test_client_that_goes_away(server: Server) -> None:
    """What arrived of a chunk before its connection broke is kept, and the upload goes on after it."""
    content = bytes(range(256)) * 1000
    location = start_upload(server.url)
    connection = begin_patch(server, location, len(content), content[:100_000])
    connection.shutdown(socket.SHUT_WR)
    connection.close()
    eventually(lambda: received(server.url, location) > 0, "the first bytes")
    have = received(server.url, location)
    assert have <= 100_000
    headers = {"content-range": f"{have}-{len(content) - 1}"}
    digest = digest_of(content)
    response = httpx.put(f"{server.url}{location}?digest={digest}", content=content[have:], headers=headers)
    assert response.status_code == 201
    assert httpx.get(f"{server.url}/v2/a/blobs/{digest}").content == content


def test_client_that_stops_reading(server: Server) -> None:
    """A client that goes away amid a pull leaves the server as it was."""
    content = bytes(8 * 1024 * 1024)
    digest = push(server.url, content)
    for _ in range(3):
        with connect(server.url) as connection:
            connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(1000)
    assert len(httpx.get(f"{server.url}/v2/a/blobs/{digest}").content) == len(content)
    assert "Traceback" not in server.log


def test_sigterm(tmp_path: Path) -> None:
    """SIGTERM, and SIGINT, end the server with 0; it keeps what it had."""
    server = Server(tmp_path).start()
    push(server.url)
    assert server.stop() == 0
    server.start()
    try:
        assert httpx.get(f"{server.url}/v2/a/blobs/{DIGEST}").content == LAYER
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
    finally:
        server.kill()


def stored_files(server: Server) -> list[Path]:
    return [file for file in (server.root / "blobs").rglob("*") if file.is_file()]


# The first part is more than the server keeps in memory: once it writes a file, the request has begun.
CONTENT = bytes(range(256)) * 16384
BEGUN = 3 * 1024 * 1024


def begun_patch(server: Server, location: str) -> socket.socket:
    """A connection on which the first part of CONTENT was sent and is being written."""
    connection = begin_patch(server, location, len(CONTENT), CONTENT[:BEGUN])
    eventually(lambda: stored_files(server), "the first bytes are written")
    return connection


@pytest.mark.parametrize("workers", [1, 3])
def test_draining(tmp_path: Path, workers: int) -> None:
    """After SIGTERM no new connection is taken, a running transfer finishes, then the server ends with 0."""
    with running(tmp_path, "--workers", str(workers), MOORAGE_DRAIN_TIMEOUT="30") as server:
        location = start_upload(server.url)
        with begun_patch(server, location) as connection:
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(server), "new connections are refused")
            assert server.process.poll() is None
            connection.sendall(CONTENT[BEGUN:])
            assert answer(connection).startswith(b"HTTP/1.1 202 ")
        assert server.process.wait(15) == 0
        server.start()
        assert received(server.url, location) == len(CONTENT)


def test_draining_a_pull(tmp_path: Path) -> None:
    """A pull that has begun gets its last byte after SIGTERM."""
    content = bytes(range(256)) * 65536
    with running(tmp_path) as server:
        digest = push(server.url, content)
        with connect(server.url) as connection:
            connection.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            found = connection.recv(65536)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: refused(server), "new connections are refused")
            assert server.process.poll() is None
            found += answer(connection)
        assert found.partition(b"\r\n\r\n")[2] == content
        assert server.process.wait(15) == 0


def test_drain_timeout(tmp_path: Path) -> None:
    """A transfer that takes longer than drain_timeout is cut, and the server ends with 0."""
    with running(tmp_path, MOORAGE_DRAIN_TIMEOUT="1") as server:
        with begun_patch(server, start_upload(server.url)) as connection:
            started = time.monotonic()
            assert server.stop(15) == 0
            assert 0.5 < time.monotonic() - started < 10
            assert b" 202 " not in answer(connection)
        assert stored_files(server) == []


def test_cut_transfer_is_told(tmp_path: Path) -> None:
    """A client whose upload is cut at the end of draining is told 503 in the specification's form."""
    with running(tmp_path, MOORAGE_DRAIN_TIMEOUT="1") as server:
        with begun_patch(server, start_upload(server.url)) as connection:
            assert server.stop(15) == 0
            head, _, content = answer(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in head.lower()
        assert json.loads(content)["errors"][0]["code"] == "UNKNOWN"
        assert "Traceback" not in server.log


def test_idle_connections_do_not_hold_the_end(tmp_path: Path) -> None:
    """A connection that is kept alive without a request does not delay the end."""
    with running(tmp_path, MOORAGE_DRAIN_TIMEOUT="30") as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/v2/").status_code == 200
        started = time.monotonic()
        assert server.stop(15) == 0
        assert time.monotonic() - started < 10


def test_memory(tmp_path: Path) -> None:
    """With storage in memory nothing is written, and the first line says that it goes with the server."""
    with running(tmp_path / "unused", "--storage", "memory") as server:
        assert "from memory, gone when it stops" in server.output[0]
        push(server.url)
        assert httpx.get(f"{server.url}/v2/a/blobs/{DIGEST}").content == LAYER
    assert not (tmp_path / "unused").exists()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the GNU C library")
def test_memory_of_a_chunk_serves_the_next(tmp_path: Path) -> None:
    """It is not given back to the system and taken again, page by page."""
    chunk = bytes(5 * 1024 * 1024)

    def faults(server: Server) -> int:
        assert server.process is not None
        status = Path(f"/proc/{server.process.pid}/stat").read_text()
        return int(status.rpartition(")")[2].split()[7])

    with running(tmp_path / "root", "--storage", f"file://{tmp_path}/root") as server:
        location, seen = start_upload(server.url), []
        for _ in range(20):
            before = faults(server)
            location = httpx.patch(f"{server.url}{location}", content=chunk).headers["location"]
            seen.append(faults(server) - before)
    assert sorted(seen)[10] < 100, seen  # a chunk has 1,280 pages


def test_storage_url(tmp_path: Path) -> None:
    """--storage takes a URL of a folder, spaces and all."""
    folder = tmp_path / "with a space"
    with running(tmp_path / "unused", "--storage", f"file://{tmp_path}/with%20a%20space") as server:
        push(server.url)
    assert (folder / "moorage.db").is_file()
    assert not (tmp_path / "unused").exists()


def test_all_addresses(tmp_path: Path) -> None:
    """A server on all addresses says localhost, and warns that whoever reaches it can change everything."""
    with running(tmp_path, "--host", "0.0.0.0", "--insecure-http", MOORAGE_OPEN_ACCESS="true") as server:
        assert server.url.startswith("http://localhost:")
        eventually(lambda: "anyone who reaches 0.0.0.0 can push, pull and delete" in server.log, "the warning")
        assert httpx.get(f"{server.url.replace('localhost', '127.0.0.1')}/v2/").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_open_beyond_loopback_must_be_meant(tmp_path: Path, host: str) -> None:
    """Without authentication a server beyond loopback does not start unless a setting says that this is meant."""
    with pytest.raises(RuntimeError, match=f"moorage: host = '{host}': anyone.*open_access = true"):
        Server(tmp_path, ("--host", host, "--insecure-http")).start()
    assert not (tmp_path / "moorage.db").exists()


@pytest.mark.parametrize("name", ["authentication", "authorization"])
def test_unknown_part_of_access_control(tmp_path: Path, name: str) -> None:
    """A name that nothing has stops the start."""
    server = Server(tmp_path, (), {f"MOORAGE_{name.upper()}": "nothing"})
    with pytest.raises(RuntimeError, match=f"ended with 2: moorage: {name} = 'nothing': allowed: "):
        server.start()
