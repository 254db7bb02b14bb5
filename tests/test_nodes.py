"""Several server processes over one PostgreSQL."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.postgres import cluster
from tests.server import Server
from tests.support import CONFIG, LAYER, OCI_MANIFEST, digest_of, encode, image


def node(root: Path, database: str, *arguments: str) -> Server:
    return Server(root, ("--metadata", database, *arguments))


@pytest.fixture
def nodes(tmp_path: Path, new_database: str) -> Iterator[list[httpx.Client]]:
    """Two nodes that were started at once over a database without a schema."""
    servers = [node(tmp_path, new_database) for _ in range(2)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield [stack.enter_context(httpx.Client(base_url=server.url)) for server in servers]


def check(root: Path, database: str) -> str:
    command = [sys.executable, "-m", "moorage", "check", "--full", "--root", str(root), "--metadata", database]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_each_request_of_a_push_goes_to_another_node(
    nodes: list[httpx.Client], tmp_path: Path, new_database: str
) -> None:
    one, other = nodes
    for content in (CONFIG, LAYER):
        half = len(content) // 2
        location = one.post("/v2/a/blobs/uploads/").headers["location"]
        assert other.patch(location, content=content[:half]).status_code == 202
        assert one.get(location).headers["range"] == f"0-{half - 1}"
        assert other.patch(location, content=content[half:]).status_code == 202
        assert one.put(location, params={"digest": digest_of(content)}).status_code == 201
        assert other.get(f"/v2/a/blobs/{digest_of(content)}").content == content
    put = other.put("/v2/a/manifests/v1", content=encode(image()), headers={"Content-Type": OCI_MANIFEST})
    assert put.status_code == 201
    for each in nodes:
        assert each.get("/v2/a/manifests/v1").content == encode(image())
        assert each.get("/v2/a/tags/list").json() == {"name": "a", "tags": ["v1"]}
        assert each.get("/v2/_catalog").json() == {"repositories": ["a"]}
    assert one.delete("/v2/a/manifests/v1").status_code == 202
    assert other.get("/v2/a/manifests/v1").status_code == 404
    assert "nothing is wrong" in check(tmp_path, new_database)


def push(client: httpx.Client, n: int) -> bool:
    """Push an image as a client does that tries again; whether it was acknowledged."""
    config = f'{{"n": {n}}}'.encode()
    for content in (config, LAYER):
        opened = client.post("/v2/a/blobs/uploads/")
        if opened.status_code != 202:
            return False
        digest = {"digest": digest_of(content)}
        if client.put(opened.headers["location"], params=digest, content=content).status_code != 201:
            return False
    put = client.put(f"/v2/a/manifests/v{n}", content=encode(image(config)), headers={"Content-Type": OCI_MANIFEST})
    assert put.status_code in (201, 503), put.text
    return put.status_code == 201


def test_the_database_restarts_under_pushes(tmp_path: Path) -> None:
    """Killed three times under four clients of two nodes: what was acknowledged is there, and all is well."""
    with cluster(durable=True) as server, ExitStack() as stack:
        url = server.make_database()
        servers = [node(tmp_path, url).start() for _ in range(2)]
        for started in servers:
            stack.callback(started.stop)
        clients = [stack.enter_context(httpx.Client(base_url=servers[n % 2].url, timeout=60)) for n in range(4)]
        acknowledged: list[int] = []
        stopping = threading.Event()

        def work(number: int) -> None:
            n = number
            while not stopping.is_set():
                if push(clients[number], n):
                    acknowledged.append(n)
                n += len(clients)

        with ThreadPoolExecutor(len(clients)) as workers:
            working = [workers.submit(work, number) for number in range(len(clients))]
            for _ in range(3):
                reached = len(acknowledged) + 10
                while len(acknowledged) < reached:
                    assert not any(each.done() for each in working)
                    time.sleep(0.01)
                server.stop(signal.SIGQUIT)
                server.start()
            reached = len(acknowledged) + 10
            while len(acknowledged) < reached:
                assert not any(each.done() for each in working)
                time.sleep(0.01)
            stopping.set()
            for done in working:
                done.result()
        for n in acknowledged:
            config = f'{{"n": {n}}}'.encode()
            assert clients[0].get(f"/v2/a/manifests/v{n}").content == encode(image(config))
            assert clients[1].get(f"/v2/a/blobs/{digest_of(config)}").content == config
        assert "nothing is wrong" in check(tmp_path, url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://nobody@127.0.0.1:1/moorage", "127.0.0.1:1/moorage': connection failed.*refused"),
        ("postgresql://nobody@127.0.0.1:1/moorage?nonsense=1", "nonsense"),
        ("postgresql://nobody:sesame@127.0.0.1/moorage", "--metadata: everyone on this machine can read a password"),
    ],
)
def test_a_database_that_cannot_be_had(tmp_path: Path, url: str, words: str) -> None:
    """It does not start, and says which setting is why."""
    with pytest.raises(RuntimeError, match=words) as raised:
        node(tmp_path, url).start()
    assert re.search(r"(metadata = '|--metadata:)", str(raised.value))
    assert "sesame" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_without_the_library(tmp_path: Path) -> None:
    """It says how to get it."""
    (tmp_path / "psycopg.py").write_text("raise ImportError('no', name='psycopg')\n")
    server = Server(tmp_path, ("--metadata", "postgresql://nobody@127.0.0.1/moorage"), {"PYTHONPATH": str(tmp_path)})
    with pytest.raises(RuntimeError, match=r"psycopg is missing; pip install 'moorage\[postgres\]'"):
        server.start()


def test_a_password_from_the_environment(tmp_path: Path, new_database: str) -> None:
    """It is in no message."""
    url = new_database.replace("postgres@", "postgres:sesame@")
    server = Server(tmp_path, (), {"MOORAGE_METADATA": url}).start()
    server.stop()
    assert new_database in "".join(server.output)
    assert "sesame" not in "".join(server.output)
