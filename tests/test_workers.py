"""Several workers over one root: what they share, how they end, how they are replaced."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.server import Server, running
from tests.support import LAYER, OCI_INDEX, connect, digest_of, encode, eventually, index
from tests.test_server import DIGEST, push, refused, start_upload


def workers_of(server: Server) -> list[int]:
    """The processes that a supervisor started."""
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sockets_of(pid: int) -> int:
    """How many sockets a process has open."""
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(entry.readlink()).startswith("socket:")
    return count


def test_workers_share_one_root(tmp_path: Path) -> None:
    """Four workers answer, each for the whole registry: of many connections each gets some."""
    with running(tmp_path, "--workers", "4") as server:
        pids = workers_of(server)
        assert len(pids) == 4

        def upload(n: int) -> str:
            # A new connection for each request: the kernel gives it to any worker.
            content = b"%d" % n * 100
            location = start_upload(server.url)
            half = len(content) // 2
            assert httpx.patch(f"{server.url}{location}", content=content[:half]).status_code == 202
            digest = digest_of(content)
            response = httpx.put(f"{server.url}{location}?digest={digest}", content=content[half:])
            assert response.status_code == 201
            assert httpx.get(f"{server.url}/v2/a/blobs/{digest}").content == content
            return digest

        with ThreadPoolExecutor(4) as threads:
            assert len(set(threads.map(upload, range(12)))) == 12
        eventually(lambda: len({sockets_of(pid) for pid in pids}) == 1, "all connections are closed")
        idle = sockets_of(pids[0])
        with contextlib.ExitStack() as stack:
            for _ in range(80):
                connection = stack.enter_context(connect(server.url))
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            busy = [sockets_of(pid) - idle for pid in pids]
        assert sum(busy) == 80
        assert min(busy) > 0
        assert server.stop() == 0
        assert not any(alive(pid) for pid in pids)


def test_one_of_many_processes_creates(tmp_path: Path) -> None:
    """Of forty clients that create one tag at three processes at once, exactly one does."""
    with running(tmp_path, "--workers", "3") as server:

        def create(n: int) -> httpx.Response:
            headers = {"content-type": OCI_INDEX, "if-none-match": "*"}
            content = encode(index(annotations={"candidate": str(n)}))
            return httpx.put(f"{server.url}/v2/a/manifests/latest", content=content, headers=headers)

        with ThreadPoolExecutor(10) as threads:
            answers = list(threads.map(create, range(40)))
        assert sorted(each.status_code for each in answers) == [201] + [412] * 39
        (winner,) = [each.headers["docker-content-digest"] for each in answers if each.status_code == 201]
        for _ in range(6):
            response = httpx.head(f"{server.url}/v2/a/manifests/latest")
            assert response.headers["docker-content-digest"] == winner


def test_killed_worker_is_replaced(tmp_path: Path) -> None:
    """A worker that was killed has another in its place, and the registry goes on; SIGTERM then ends all with 0."""
    with running(tmp_path, "--workers", "2") as server:
        push(server.url)
        before = workers_of(server)
        os.kill(before[0], signal.SIGKILL)
        eventually(lambda: len(set(workers_of(server)) - {before[0]}) == 2, "another worker")
        assert "starting another" in server.log

        def answers() -> bool:
            # A request that was on its way to the killed worker is lost with it.
            with contextlib.suppress(httpx.TransportError):
                return all(httpx.get(f"{server.url}/v2/a/blobs/{DIGEST}").content == LAYER for _ in range(20))
            return False

        eventually(answers, "twenty answers in a row")
        after = workers_of(server)
        assert server.stop() == 0
        assert not any(alive(pid) for pid in [*before, *after])


def test_children_of_others(tmp_path: Path) -> None:
    """A process that it did not start, as the first process of a container is given them, ends without harm."""
    orphan = ("sh", "-c", 'sleep 1 & exec "$@"', "sh")
    server = Server(tmp_path, ("--workers", "2"), through=orphan).start()
    try:
        eventually(lambda: len(workers_of(server)) == 2, "the other's child is waited for")
        assert httpx.get(f"{server.url}/v2/").status_code == 200
        assert server.stop() == 0
    finally:
        server.kill()


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """Workers whose supervisor was killed finish and end by themselves, and the port is free again."""
    with running(tmp_path, "--workers", "3") as server:
        pids = workers_of(server)
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not any(alive(pid) for pid in pids), "all workers have ended")
        assert refused(server)
        server.start()
        assert push(server.url) == DIGEST


def test_sigterm_while_starting(tmp_path: Path) -> None:
    """A server that is told to stop before it is ready ends, and leaves nobody behind."""
    for pause in (0.1, 0.3, 0.5):
        process = subprocess.Popen(
            [sys.executable, "-m", "moorage", "serve", "-p", "0", "--root", tmp_path, "--workers", "2"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(pause)
        process.terminate()
        try:
            assert process.wait(15) in (0, -signal.SIGTERM)
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_settings_reach_the_server(tmp_path: Path) -> None:
    """Settings of the file and the environment are those of the running registry, in each worker."""
    file = tmp_path / "moorage.toml"
    file.write_text('deletion = false\nworkers = 2\n[[warnings]]\nrepository = "a"\ntext = "soon"\n')
    with running(tmp_path / "root", "--config", str(file), MOORAGE_LOCATION="absolute") as server:
        assert len(workers_of(server)) == 2
        digest = push(server.url)
        for _ in range(8):
            response = httpx.post(f"{server.url}/v2/a/blobs/uploads/")
            assert response.headers["location"].startswith(f"{server.url}/v2/a/blobs/uploads/")
            assert response.headers["warning"] == '299 - "soon"'
            assert httpx.delete(f"{server.url}/v2/a/blobs/{digest}").status_code == 405
