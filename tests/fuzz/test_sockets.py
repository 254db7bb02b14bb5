"""Bad bytes to a real server: it answers or closes, goes on, and has nothing to log but what it refused."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from hypothesis import assume, currently_in_test_context, given, note
from hypothesis import strategies as st

from moorage.spec.digest import compute
from moorage.spec.manifest import OCI_MANIFEST
from tests.fuzz import bodies, targets
from tests.fuzz.answer import Answer, check
from tests.fuzz.description import check_described
from tests.fuzz.profile import bounded
from tests.fuzz.sentinel import SECRET, Sentinel
from tests.fuzz.wire import answers, exchange, is_not_http
from tests.server import Server, running

HOST = b"Host: registry.example\r\n"
CLOSE = b"Connection: close\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sentinel = Sentinel.plant(tmp_path_factory.mktemp("sockets"))
    with running(sentinel.root) as started:
        with httpx.Client(base_url=started.url) as client:
            for content in (bodies.BLOB, bodies.EMPTY):
                target = f"/v2/{targets.NAME}/blobs/uploads/?digest={compute(content)}"
                assert client.post(target, content=content).status_code == 201
            kept = client.put(targets.KEPT_MANIFEST, content=bodies.STORED, headers={"Content-Type": OCI_MANIFEST})
            assert kept.status_code == 201
        yield started
        assert started.process is not None
        assert started.process.poll() is None
        assert httpx.get(f"{started.url}/healthz").status_code == 200
        assert "Traceback" not in started.log, started.log
        assert "ERROR" not in started.log, started.log
    sentinel.check()


@pytest.fixture
def upload(server: Server) -> str:
    """An open upload session."""
    return open_session(server)


def open_session(server: Server) -> str:
    (answer,) = answers(exchange(server.host, message("POST", f"/v2/{targets.NAME}/blobs/uploads/")), ["POST"])
    return (answer.header("location") or "").rpartition("/")[2]


def message(method: str, target: str, headers: bytes = CLOSE, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return (
        b"%s %s HTTP/1.1\r\n" % (method.encode(), target.encode("latin-1")) + HOST + headers + length + b"\r\n" + body
    )


def hold(method: str, target: str | None, received: bytes) -> Answer | None:
    """The one answer, held to what all answers keep; None where the server only closed the connection."""
    if currently_in_test_context():
        note(f"{received[:300]!r}")
    assert SECRET not in received
    found = answers(received, [method])
    if not found:
        return None
    if is_not_http(found[0]):
        check("GET", found[0])
        return found[0]
    check(method, found[0])
    if target is not None:
        check_described(method, target, found[0])
    return found[0]


REFUSED = {
    "a path that is not ASCII": b"GET /v2/\xc3\xa9/tags/list HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    "a method that HTTP does not know": message("FOO", "/v2/"),
    "a method in lower case": message("get", "/v2/"),
    "no path": message("GET", "?x"),
    "an authority": message("CONNECT", "a:1"),
    "a space in the path": message("GET", "/v2/a b/tags/list"),
    "NUL in the path": message("GET", "/v2/\0/tags/list"),
    "NUL in a header": message("GET", "/v2/", b"X: \0\r\n" + CLOSE),
    "a line without CR": message("GET", "/v2/").replace(b"\r\n", b"\n"),
    "a folded header": message("GET", "/v2/", b"X: a\r\n b\r\n" + CLOSE),
    "a space before the colon": message("GET", "/v2/", b"X : a\r\n" + CLOSE),
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a length and chunks": message(
        "POST", "/v2/a/blobs/uploads/", b"Transfer-Encoding: chunked\r\n" + CLOSE, b"0\r\n\r\n"
    ),
    "two lengths": message("POST", "/v2/a/blobs/uploads/", b"Content-Length: 4\r\n" + CLOSE, b"abc"),
    "a negative length": message("POST", "/v2/a/blobs/uploads/", b"Content-Length: -3\r\n" + CLOSE),
    "a signed length": message("POST", "/v2/a/blobs/uploads/", b"Content-Length: +3\r\n" + CLOSE),
    "a length beyond 64 bits": message(
        "POST", "/v2/a/blobs/uploads/", b"Content-Length: %b\r\n" % (b"9" * 40) + CLOSE
    ),
    "a chunk of no length": message("PUT", "/v2/a/manifests/x", b"Transfer-Encoding: chunked\r\n" + CLOSE)
    + b"zz\r\nabc",
    "an unknown coding": message("PUT", "/v2/a/manifests/x", b"Transfer-Encoding: gzip\r\n" + CLOSE) + b"abc",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_is_not_http_is_refused(server: Server, data: bytes) -> None:
    (found,) = answers(exchange(server.host, data), ["GET"])
    assert found.status == 400
    assert found.codes == ["UNSUPPORTED"]
    assert found.header("connection") == "close"
    check("GET", found)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /v2/ HTTP/1.0\r\n\r\n", 200),
        (b"GET http://elsewhere.example/v2/ HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 200),
        (message("OPTIONS", "*"), 404),
        (message("GET", "//v2/"), 404),
        (message("GET", "/v2/", CLOSE, b"a body that GET has no use for"), 200),
        (message("GET", "/v2/", b"Connection: close, Upgrade\r\nUpgrade: websocket\r\n"), 200),
        (message("TRACE", "/v2/"), 405),
        (message("PUT", "/v2/a/manifests/x", b"Expect: 100-continue\r\n" + CLOSE, b"{}"), 400),
        (message("PUT", "/v2/a/manifests/x", b"Expect: something\r\n" + CLOSE, b"{}"), 400),
        (message("GET", "/v2/%ed%a0%80/tags/list"), 400),
        (message("GET", "/v2/library%2Fbusybox/tags/list"), 200),
        (message("GET", "/v2/..%2f..%2fsecret/blobs/sha256:" + "0" * 64), 400),
        (message("GET", "/v2/library/busybox/manifests/..%2F..%2Fsecret"), 404),
        (message("GET", "/v2/" + "a" * 60_000 + "/tags/list"), 400),
        (message("GET", "/v2/" + "a" * 70_000 + "/tags/list"), 431),
    ],
)
def test_what_is_odd_is_answered(server: Server, data: bytes, status: int) -> None:
    method = data.split(b" ")[0].decode()
    answer = hold(method, None, exchange(server.host, data))
    assert answer is not None
    assert answer.status == status


@bounded(200)
@given(st.sampled_from(targets.METHODS[:8]), targets.paths(), targets.queries)
def test_any_path(server: Server, method: str, path: str, query: str) -> None:
    target = quote(targets.joined(path, query), safe="%/:?&=+;@*~\\,#[]{}|^`\"<>'()!$")
    assert hold(method, None if "#" in target else target, exchange(server.host, message(method, target))) is not None


@bounded(250)
@given(targets.endpoint_requests(), targets.queries, targets.headers, bodies.sent)
def test_any_request(
    server: Server,
    request_line: tuple[str, str],
    query: str,
    headers: list[tuple[str, str]],
    body: bytes | list[bytes],
) -> None:
    method, path = request_line
    if targets.UPLOAD in path:
        path = path.replace(targets.UPLOAD, open_session(server))
    target = quote(targets.joined(path, query), safe="%/:?&=*-_.;")
    lines = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode("latin-1")) for name, value in headers)
    if isinstance(body, bytes):
        data = message(method, target, lines + CLOSE, body)
    else:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in body if each)
        data = message(method, target, lines + CLOSE + b"Transfer-Encoding: chunked\r\n") + chunks + b"0\r\n\r\n"
    hold(method, target, exchange(server.host, data, complete="get" not in data[:4].decode()))


@bounded(40)
@given(
    targets.endpoint_requests(),
    st.sampled_from([b"Content-Length: ", b"content-length:", b"Content-Range: 0-", b"Transfer-Encoding: "]),
    st.sampled_from([b"0", b"1", b"19", b"21", b"1048577", b"9" * 15, b"chunked", b"", b"0x14", b"20, 20"]),
    st.sampled_from([b"", b"abc", bodies.BLOB, b"3\r\nabc\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\nabc"]),
)
def test_any_length(server: Server, request_line: tuple[str, str], name: bytes, value: bytes, body: bytes) -> None:
    "A body longer or shorter than announced, and then the end of the client."
    method, path = request_line
    target = path.replace(targets.UPLOAD, open_session(server)) if targets.UPLOAD in path else path
    data = message(method, target, name + value + b"\r\n" + CLOSE) + body
    hold(method, target, exchange(server.host, data, complete=False))


@bounded(100)
@given(st.binary(max_size=300), st.integers(0, 200), st.booleans())
def test_any_bytes(server: Server, noise: bytes, at: int, alone: bool) -> None:
    "Bytes of no kind, alone or in the middle of a good request."
    good = message(
        "PUT", targets.KEPT_MANIFEST, b"Content-Type: %b\r\n" % OCI_MANIFEST.encode() + CLOSE, bodies.STORED
    )
    data = noise if alone else good[:at] + noise + good[at:]
    received = exchange(server.host, data, complete=False)
    assert SECRET not in received
    assert not received or int(received.removeprefix(b"HTTP/1.1 ")[:3]) < 500


@bounded(40)
@given(
    st.lists(
        st.tuples(targets.endpoint_requests(), st.sampled_from([b"", bodies.BLOB, b"{}"])), min_size=2, max_size=8
    )
)
def test_requests_in_a_row(server: Server, requests: list[tuple[tuple[str, str], bytes]]) -> None:
    "Requests sent at once on one connection get their answers in order, none twice and no byte between them."
    known_methods = [(method, path, body) for (method, path), body in requests if method != "get"]
    assume(known_methods)
    data = b""
    for n, (method, path, body) in enumerate(known_methods):
        target = quote(path.replace(targets.UPLOAD, "0"), safe="%/:*-_.")
        data += message(method, target, CLOSE if n == len(known_methods) - 1 else b"", body)
    found = answers(exchange(server.host, data), [method for method, _, _ in known_methods])
    for (method, path, _), answer in zip(known_methods, found, strict=False):
        check(method, answer)
        check_described(method, path.replace(targets.UPLOAD, "0"), answer)
    assert len(found) == len(known_methods) or found[-1].header("connection") == "close"


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_a_client_that_goes_away_keeps_what_arrived(server: Server, upload: str, framing: bytes) -> None:
    "The session is where the cut chunk ended, and goes on from there."
    target = f"/v2/{targets.NAME}/blobs/uploads/{upload}"
    part = b"x" * 1000
    chunk = part if framing.startswith(b"Content") else b"3e8\r\n" + part + b"\r\n"
    assert exchange(server.host, message("PATCH", target, framing) + chunk, complete=False) == b""
    with httpx.Client(base_url=server.url) as client:
        for _ in range(100):
            status = client.get(target)
            if status.headers["range"] == "0-999":
                break
        assert status.headers["range"] == "0-999"
        rest = client.patch(target, content=b"y", headers={"Content-Range": "1000-1000"})
        assert rest.status_code == 202
        assert client.put(f"{target}?digest={compute(part + b'y')}").status_code == 201
