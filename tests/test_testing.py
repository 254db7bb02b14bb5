"""moorage.testing as the tests of other projects use it: a real server, real sockets, real faults."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from moorage import Policy, Registry, errors
from moorage.testing import Fault, Server, memory_registry, serve
from tests.clients.kit import Home

BYTES = bytes(range(256)) * 1024
DIGEST = "sha256:" + hashlib.sha256(BYTES).hexdigest()
BLOB = f"/v2/library/thing/blobs/{DIGEST}"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "", "size": 2}
EMPTY["digest"] = "sha256:" + hashlib.sha256(b"{}").hexdigest()


@pytest.fixture
def server(moorage_registry: Server) -> Server:
    """A server that holds one blob."""
    pushed = httpx.post(f"{moorage_registry.url}/v2/library/thing/blobs/uploads/?digest={DIGEST}", content=BYTES)
    assert pushed.status_code == 201
    moorage_registry.faults.clear()
    return moorage_registry


def manifest(**fields: object) -> bytes:
    """An image manifest without layers."""
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": EMPTY, "layers": [], **fields}).encode()


def put(server: Server, reference: str, content: bytes, media_type: str = MANIFEST) -> httpx.Response:
    url = f"{server.url}/v2/library/thing/manifests/{reference}"
    return httpx.put(url, content=content, headers={"content-type": media_type})


def push_empty(server: Server) -> None:
    async def work(registry: Registry) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"{}"

        await registry.uploads.push("library/thing", str(EMPTY["digest"]), body())

    server.run(work)


class TestServer:
    def test_answers_and_ends(self) -> None:
        with serve() as server:
            assert server.url == f"http://{server.host}"
            assert server.host == f"127.0.0.1:{server.port}"
            assert httpx.get(f"{server.url}/v2/").status_code == 200
        assert "moorage-testing" not in {thread.name for thread in threading.enumerate()}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/v2/")

    def test_each_is_empty_and_alone(self) -> None:
        with serve() as one, serve() as other:
            assert httpx.post(f"{one.url}/v2/a/blobs/uploads/?digest={DIGEST}", content=BYTES).status_code == 201
            assert httpx.get(f"{one.url}/v2/a/blobs/{DIGEST}").content == BYTES
            assert httpx.get(f"{other.url}/v2/a/blobs/{DIGEST}").status_code == 404

    def test_the_registry_of_the_caller(self) -> None:
        with serve(lambda: memory_registry(Policy(deletion=False))) as server:
            push_empty(server)
            assert httpx.delete(f"{server.url}/v2/library/thing/blobs/{EMPTY['digest']}").status_code == 405

    def test_run_gives_results_and_errors(self, server: Server) -> None:
        async def size(registry: Registry) -> int:
            return (await registry.blobs.get("library/thing", DIGEST)).size

        async def absent(registry: Registry) -> None:
            await registry.blobs.get("library/other", DIGEST)

        assert server.run(size) == len(BYTES)
        with pytest.raises(errors.BlobUnknown):
            server.run(absent)

    def test_a_taken_port(self, server: Server) -> None:
        with pytest.raises(OSError, match="in use"), serve(port=server.port):
            pass

    def test_a_registry_that_does_not_open(self, tmp_path: Path) -> None:
        from moorage import open_registry

        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="file"), serve(lambda: open_registry(tmp_path / "file" / "root")):
            pass

    def test_ends_at_once_while_requests_hang(self, caplog: pytest.LogCaptureFixture) -> None:
        failed: list[Exception] = []

        def ask(url: str) -> None:
            try:
                httpx.get(f"{url}/v2/", timeout=60)
            except httpx.HTTPError as error:
                failed.append(error)

        with serve() as server:
            server.faults.add(Fault.late(600), times=3)
            threads = [threading.Thread(target=ask, args=(server.url,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            while len(server.requests) < 3:
                time.sleep(0.005)
            started = time.monotonic()
        assert time.monotonic() - started < 5
        for thread in threads:
            thread.join()
        assert len(failed) == 3
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    async def test_beside_a_running_loop(self, moorage_registry: Server) -> None:
        async with httpx.AsyncClient(base_url=moorage_registry.url) as client:
            answers = await asyncio.gather(*(client.get("/v2/") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}

    async def test_memory_registry_takes_a_clock(self) -> None:
        now = 1000.0
        async with memory_registry(Policy(upload_expiry=10), clock=lambda: now) as registry:
            session = await registry.uploads.start("a")
            await registry.uploads.get("a", session.id)
            now = 1011.0
            with pytest.raises(errors.BlobUploadUnknown):
                await registry.uploads.get("a", session.id)


class TestRequests:
    def test_what_was_asked_and_answered(self, server: Server) -> None:
        url = f"{server.url}/v2/library/thing"
        httpx.get(f"{url}/tags/list?n=3", headers={"x-asked": "yes"})
        httpx.post(f"{url}/blobs/uploads/?digest={DIGEST}", content=BYTES)
        listed, pushed = server.requests
        assert (listed.method, listed.path, listed.query) == ("GET", "/v2/library/thing/tags/list", "n=3")
        assert listed.headers["x-asked"] == "yes"
        assert (listed.status, listed.received, listed.fault) == (200, 0, None)
        assert (pushed.status, pushed.received, pushed.body) == (201, len(BYTES), BYTES[: 64 * 1024])

    def test_clear_forgets(self, server: Server) -> None:
        server.faults.add(Fault.status(500))
        server.faults.clear()
        assert httpx.get(f"{server.url}/v2/").status_code == 200
        server.faults.clear()
        assert server.requests == ()


class TestStatus:
    def test_429_with_retry_after_a_number_of_times(self, server: Server) -> None:
        server.faults.add(Fault.status(429, retry_after=1), method="GET", path="/v2/*/blobs/*", times=2)
        for _ in range(2):
            answer = httpx.get(server.url + BLOB)
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["errors"][0]["code"] == "TOOMANYREQUESTS"
        assert httpx.get(server.url + BLOB).content == BYTES
        assert [request.fault for request in server.requests] == ["status 429", "status 429", None]

    def test_only_where_method_and_path_match(self, server: Server) -> None:
        server.faults.add(Fault.status(503), method="PUT", path="/v2/library/*", times=None)
        assert httpx.get(server.url + BLOB).status_code == 200
        assert httpx.put(f"{server.url}/v2/other/manifests/a", content=b"{}").status_code == 400
        assert put(server, "a", b"{}").status_code == 503
        assert put(server, "a", b"{}").status_code == 503

    def test_one_after_the_other(self, server: Server) -> None:
        server.faults.add(Fault.status(500))
        server.faults.add(Fault.status(502), times=2)
        assert [fault.name for fault in server.faults.pending] == ["status 500", "status 502"]
        assert [httpx.get(f"{server.url}/v2/").status_code for _ in range(4)] == [500, 502, 502, 200]
        assert not server.faults.pending

    def test_refused_push_leaves_nothing_and_reads_the_body(self, server: Server) -> None:
        server.faults.add(Fault.status(500), method="POST")
        with httpx.Client(base_url=server.url) as client:
            url = f"/v2/library/new/blobs/uploads/?digest={DIGEST}"
            assert client.post(url, content=BYTES).status_code == 500
            assert client.post(url, content=BYTES).status_code == 201
        assert server.requests[0].received == len(BYTES)

    def test_head_has_no_body(self, server: Server) -> None:
        server.faults.add(Fault.status(404, headers={"X-Why": "test"}))
        with httpx.Client(base_url=server.url) as client:
            answer = client.head(BLOB)
            assert (answer.status_code, answer.content, answer.headers["x-why"]) == (404, b"", "test")
            assert client.head(BLOB).status_code == 200  # on the same connection

    def test_a_client_that_waits_for_a_go_ahead_keeps_its_body(self, server: Server) -> None:
        import socket

        server.faults.add(Fault.status(429))
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(
                b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n"
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 429 ")

    def test_no_strike_is_no_fault(self, server: Server) -> None:
        with pytest.raises(ValueError, match="times = 0"):
            server.faults.add(Fault.status(500), times=0)

    def test_threads_share_the_strikes(self, server: Server) -> None:
        server.faults.add(Fault.status(503), times=7)
        answers: list[int] = []

        def ask() -> None:
            answers.extend(httpx.get(f"{server.url}/v2/").status_code for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers) == [200] * 33 + [503] * 7


class TestBodies:
    def test_slow(self, server: Server) -> None:
        server.faults.add(Fault.slow(0.02, piece=64 * 1024), path="/v2/*/blobs/*")
        started, arrivals, taken = time.monotonic(), [], 0
        with httpx.stream("GET", server.url + BLOB) as answer:
            body = b""
            for piece in answer.iter_raw():
                arrivals.append(time.monotonic() - started)
                body += piece
                taken += 1
        assert body == BYTES
        assert arrivals[-1] >= 4 * 0.02
        assert taken >= 4

    def test_late_but_done(self, moorage_registry: Server) -> None:
        moorage_registry.faults.add(Fault.late(60), method="POST")
        url = f"{moorage_registry.url}/v2/a/blobs"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/uploads/?digest={DIGEST}", content=BYTES, timeout=1)
        assert httpx.get(f"{url}/{DIGEST}").content == BYTES

    @pytest.mark.parametrize("after", [0, 1, 70_000, len(BYTES) - 1])
    def test_truncated(self, server: Server, after: int) -> None:
        server.faults.add(Fault.truncate(after), method="GET")
        pieces: list[bytes] = []
        with httpx.stream("GET", server.url + BLOB) as answer:
            assert answer.headers["content-length"] == str(len(BYTES))
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                pieces.extend(answer.iter_raw())
        assert b"".join(pieces) == BYTES[:after]
        assert httpx.get(server.url + BLOB).content == BYTES

    def test_a_shorter_body_is_not_truncated(self, server: Server) -> None:
        server.faults.add(Fault.truncate(len(BYTES)))
        assert httpx.get(server.url + BLOB).content == BYTES

    @pytest.mark.parametrize("offset", [0, 100_000, len(BYTES) - 1])
    def test_corrupt(self, server: Server, offset: int) -> None:
        server.faults.add(Fault.corrupt(offset))
        answer = httpx.get(server.url + BLOB)
        changed = [i for i, (got, real) in enumerate(zip(answer.content, BYTES, strict=True)) if got != real]
        assert changed == [offset]
        assert answer.headers["docker-content-digest"] == DIGEST
        assert httpx.get(server.url + BLOB).content == BYTES  # what is stored is not touched


class TestConnections:
    def test_drop(self, moorage_registry: Server, caplog: pytest.LogCaptureFixture) -> None:
        moorage_registry.faults.add(Fault.drop(), method="POST")
        url = f"{moorage_registry.url}/v2/a/blobs"
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
            httpx.post(f"{url}/uploads/?digest={DIGEST}", content=BYTES)
        assert httpx.get(f"{url}/{DIGEST}").status_code == 404
        assert moorage_registry.requests[0].status is None
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_drop_after_the_work(self, moorage_registry: Server) -> None:
        moorage_registry.faults.add(Fault.drop(carried_out=True), method="POST")
        url = f"{moorage_registry.url}/v2/a/blobs"
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            httpx.post(f"{url}/uploads/?digest={DIGEST}", content=BYTES)
        assert httpx.get(f"{url}/{DIGEST}").content == BYTES

    def test_interrupted_upload_resumes_where_it_was(self, moorage_registry: Server) -> None:
        url = moorage_registry.url
        place = url + httpx.post(f"{url}/v2/a/blobs/uploads/").headers["location"]
        moorage_registry.faults.add(Fault.interrupt(100_000), method="PATCH")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
            httpx.patch(place, content=BYTES)
        assert httpx.get(place).headers["range"] == "0-99999"
        assert httpx.put(f"{place}?digest={DIGEST}", content=BYTES[100_000:]).status_code == 201
        assert httpx.get(f"{url}/v2/a/blobs/{DIGEST}").content == BYTES

    def test_a_shorter_upload_is_not_interrupted(self, moorage_registry: Server) -> None:
        moorage_registry.faults.add(Fault.interrupt(len(BYTES) + 1))
        pushed = httpx.post(f"{moorage_registry.url}/v2/a/blobs/uploads/?digest={DIGEST}", content=BYTES)
        assert pushed.status_code == 201


class TestWithoutReferrers:
    def test_no_endpoint_and_no_header(self, server: Server) -> None:
        push_empty(server)
        subject = put(server, "v1", manifest()).headers["docker-content-digest"]
        note = manifest(subject={"mediaType": MANIFEST, "digest": subject, "size": len(manifest())})
        url = f"{server.url}/v2/library/thing/referrers/{subject}"
        server.faults.referrers_api = False
        assert "oci-subject" not in put(server, "note", note).headers
        assert httpx.get(url).status_code == 404
        server.faults.clear()
        assert put(server, "note", note).headers["oci-subject"] == subject
        assert len(httpx.get(url).json()["manifests"]) == 1

    def test_a_fallback_tag_is_what_was_pushed(self, server: Server) -> None:
        """A client that forgets a referrer in its index must not find it there."""
        push_empty(server)
        subject = put(server, "v1", manifest()).headers["docker-content-digest"]
        put(server, "note", manifest(subject={"mediaType": MANIFEST, "digest": subject, "size": 1}))
        tag = subject.replace(":", "-")
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
        url = f"{server.url}/v2/library/thing/manifests/{tag}"
        server.faults.referrers_api = False
        assert put(server, tag, index, INDEX).status_code == 201
        assert httpx.get(url).content == index
        assert httpx.head(url).headers["docker-content-digest"] == "sha256:" + hashlib.sha256(index).hexdigest()
        assert httpx.delete(url).status_code == 202
        assert httpx.get(url).status_code == 404

    @pytest.mark.clients
    def test_oras_falls_back(self, moorage_registry: Server, tmp_path: Path) -> None:
        moorage_registry.faults.referrers_api = False
        run = Home(tmp_path).prepare()
        (tmp_path / "file.txt").write_text("hello\n")
        target = f"{moorage_registry.host}/library/thing:v1"
        run("oras", "push", "--plain-http", target, "file.txt:text/plain")
        for kind in ("a/one", "a/two"):
            run("oras", "attach", "--plain-http", "--artifact-type", kind, "--annotation", "a=b", target)
        found = run("oras", "discover", "--plain-http", "--format", "json", target).json["referrers"]
        assert {each["artifactType"] for each in found} == {"a/one", "a/two"}
        tags = httpx.get(f"{moorage_registry.url}/v2/library/thing/tags/list").json()["tags"]
        assert [tag for tag in tags if tag.startswith("sha256-")]
        refused = [request for request in moorage_registry.requests if "/referrers/" in request.path]
        assert {request.status for request in refused} == {404}


@pytest.mark.clients
def test_oras_gets_through_429_and_cut_connections(moorage_registry: Server, tmp_path: Path) -> None:
    run = Home(tmp_path).prepare()
    (tmp_path / "file.bin").write_bytes(BYTES)
    target = f"{moorage_registry.host}/library/thing:v1"
    moorage_registry.faults.add(Fault.status(429, retry_after=0), path="/v2/*", times=3)
    run("oras", "push", "--plain-http", target, "file.bin")
    moorage_registry.faults.add(Fault.status(503), method="GET", path="/v2/*/blobs/*", times=2)
    run("oras", "pull", "--plain-http", "--output", tmp_path / "pulled", target)
    assert (tmp_path / "pulled" / "file.bin").read_bytes() == BYTES
    assert moorage_registry.faults.pending == ()


@pytest.mark.clients
def test_oras_notices_a_corrupt_byte(moorage_registry: Server, tmp_path: Path) -> None:
    run = Home(tmp_path).prepare()
    (tmp_path / "file.bin").write_bytes(BYTES)
    target = f"{moorage_registry.host}/library/thing:v1"
    run("oras", "push", "--plain-http", target, "file.bin")
    moorage_registry.faults.add(Fault.corrupt(1000), method="GET", path=f"*{DIGEST}", times=None)
    assert "mismatch" in run("oras", "pull", "--plain-http", "-o", "pulled", target, check=False).err


PLUGIN_TESTS = """
import urllib.request

import pytest

from moorage import Policy
from moorage.testing import Fault, memory_registry

@pytest.fixture(scope="session")
def moorage_registry_factory():
    return lambda: memory_registry(Policy(tags_per_push=1))

seen = []

def test_function_scope(moorage_registry):
    with urllib.request.urlopen(moorage_registry.url + "/v2/") as answer:
        assert answer.status == 200
    seen.append(moorage_registry)

def test_each_test_has_its_own(moorage_registry):
    assert moorage_registry is not seen[0] and moorage_registry.requests == ()
    async def policy(registry):
        return registry.policy
    assert moorage_registry.run(policy).tags_per_push == 1

def test_session_scope(moorage_registry_session):
    seen.append(moorage_registry_session)

def test_session_scope_again(moorage_registry_session, moorage_registry):
    assert moorage_registry_session is seen[1]
    assert moorage_registry_session.port != moorage_registry.port
"""


def test_plugin_in_a_project_of_its_own(tmp_path: Path) -> None:
    """The entry point brings the fixtures; nothing warns, even where warnings are errors."""
    (tmp_path / "test_client.py").write_text(PLUGIN_TESTS)
    # Without pytest-asyncio: a project that tests a client may well not have it.
    options = ["-q", "-W", "error", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "test_client.py"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def loaded_by_the_plugin() -> set[str]:
    script = "import sys, pytest; import moorage.testing.plugin; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_plugin_starts_no_server_stack() -> None:
    modules = loaded_by_the_plugin()
    assert "moorage.testing.plugin" in modules
    assert not modules & {"uvicorn", "httptools", "uvloop", "moorage.testing.server", "moorage.testing.faults"}


def test_plugin_imports_no_registry() -> None:
    """Each pytest start in each project that has Moorage installed would pay, and coverage would miss the imports."""
    modules = loaded_by_the_plugin()
    assert not modules & {"msgspec", "asyncio", "sqlite3", "moorage.build", "moorage.registry"}
