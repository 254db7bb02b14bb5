"""Kills, power cuts and stops of a real server: what was acknowledged stays, what was not leaves no trace."""

import asyncio
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry import Registry
from moorage.registry.check import check as look
from moorage.storage.base import Key
from moorage.storage.filesystem import FilesystemBlobStore
from tests.server import CI, Server, running
from tests.support import sizes
from tests.torture.ground import Kept, disk, why_no_disk
from tests.torture.model import digest_of
from tests.torture.pushes import OCI_MANIFEST, split
from tests.torture.torment import Torment
from tests.torture.wire import Answer, Connection, Unanswered, Unsent

MEBIBYTE = 1024 * 1024
WORKERS = pytest.mark.parametrize("workers", [1, 4], ids=["one worker", "four workers"])


@pytest.mark.slow
@WORKERS
async def test_nothing_is_lost_to_kills(tmp_path: Path, workers: int) -> None:
    """Three SIGKILLs among the pushes of eight clients; `python -m tests.torture` goes on where this ends."""
    torment = Torment(ground=Kept(tmp_path), kills=3, seed=random.randrange(2**32), workers=workers)
    await torment.run()
    assert torment.done == 3
    assert torment.model.acknowledged > 0


@pytest.mark.slow
@WORKERS
async def test_nothing_is_lost_to_power_cuts(tmp_path: Path, workers: int) -> None:
    """The same on a disk that forgets all that was not synced."""
    if why := why_no_disk():
        pytest.fail(why) if CI else pytest.skip(why)
    with disk(tmp_path) as ground:
        torment = Torment(ground=ground, kills=3, seed=random.randrange(2**32), workers=workers)
        await torment.run()
    assert torment.done == 3
    assert torment.model.acknowledged > 0


@WORKERS
async def test_kill_while_bytes_arrive(tmp_path: Path, workers: int) -> None:
    """A closing PUT killed in its body leaves nothing visible, and the session goes on where it was acknowledged."""
    content = random.randbytes(8 * MEBIBYTE)
    half = len(content) // 2
    with running(tmp_path, "--workers", str(workers)) as server:
        session = await start(server, content[:half])
        put = f"{session}?digest={digest_of(content)}"
        announced = {"Content-Length": str(half)}

        def most_arrived() -> bool:
            return sum(sizes(tmp_path)) > half + half // 2

        async with Connection(server.host) as client:
            await kill_when(most_arrived, server, client, put, split(content[half:], 60), announced)
        server.start()
        await assert_absent_then_resume(server, session, content, half)
        check(tmp_path)


@WORKERS
async def test_kill_between_the_bytes_and_the_fact(tmp_path: Path, workers: int) -> None:
    """A PUT killed when its bytes are durable and its fact is not stated was not done, and can be done again."""
    content = random.randbytes(MEBIBYTE)
    half = len(content) // 2
    with running(tmp_path, "--workers", str(workers)) as server:
        session = await start(server, content[:half])
        put = f"{session}?digest={digest_of(content)}"
        async with Connection(server.host) as client:
            await settled(client)
            with facts_held(tmp_path) as awaited:
                whole = lambda: len(content) in sizes(tmp_path) and awaited()  # noqa: E731
                await kill_when(whole, server, client, put, content[half:])
        server.start()
        await assert_absent_then_resume(server, session, content, half)
        check(tmp_path)


@WORKERS
async def test_kill_between_a_manifest_and_its_answer(tmp_path: Path, workers: int) -> None:
    """A manifest with many tags that waits for its transaction when it is killed has none of them."""
    content = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    tags = [f"t{n}" for n in range(20)]
    path = f"/v2/crash/manifests/{digest_of(content)}?{'&'.join(f'tag={tag}' for tag in tags)}"
    typed = {"Content-Type": OCI_MANIFEST}
    with running(tmp_path, "--workers", str(workers)) as server:
        async with Connection(server.host) as client:
            await settled(client)
            with facts_held(tmp_path) as awaited:
                await kill_when(awaited, server, client, path, content, typed)
        server.start()
        async with Connection(server.host) as client:
            for reference in (*tags, digest_of(content)):
                assert (await client.request("GET", f"/v2/crash/manifests/{reference}")).status == 404
            assert (await client.request("PUT", path, content, typed)).status == 201
            listed = (await client.request("GET", "/v2/crash/tags/list")).body
        assert json.loads(listed)["tags"] == sorted(tags)
        check(tmp_path)


async def test_kill_of_one_worker(tmp_path: Path) -> None:
    """Another takes its place; the port stays open and all that was acknowledged is there."""
    content = random.randbytes(100_000)
    with running(tmp_path, "--workers", "4") as server:
        session = await start(server, content[:50_000])
        for _ in range(2):
            before = workers_of(server)
            os.kill(min(before), signal.SIGKILL)
            async with asyncio.timeout(10):
                while len(workers_of(server) - {min(before)}) < 4:
                    await asyncio.sleep(0.02)
        await assert_absent_then_resume(server, session, content, 50_000)
        assert server.stop() == 0
    check(tmp_path)


@WORKERS
async def test_stop_lets_transfers_end(tmp_path: Path, workers: int) -> None:
    """What SIGTERM finds under way is answered while the server drains, and kept; nobody else gets in."""
    contents = [random.randbytes(3 * MEBIBYTE) for _ in range(4)]
    with running(tmp_path, "--workers", str(workers)) as server:
        session = await start(server, contents[0][:MEBIBYTE])

        async def push(content: bytes, path: str, method: str) -> int:
            async with Connection(server.host) as client:
                return (await client.request(method, path, split(content, 400))).status

        async with asyncio.TaskGroup() as group:
            blobs = [
                group.create_task(push(each, f"/v2/crash/blobs/uploads/?digest={digest_of(each)}", "POST"))
                for each in contents[1:]
            ]
            patch = group.create_task(push(contents[0][MEBIBYTE:], session, "PATCH"))
            while len(sizes(tmp_path)) < 5:
                await asyncio.sleep(0.005)
            stopping = group.create_task(asyncio.to_thread(server.stop))
            await asyncio.sleep(0.2)
            assert not any(task.done() for task in (*blobs, patch, stopping))
            async with Connection(server.host) as client:
                with pytest.raises((Unsent, Unanswered)):
                    await client.request("GET", "/v2/")
        assert [task.result() for task in blobs] == [201, 201, 201]
        assert patch.result() == 202
        assert stopping.result() == 0, server.log
        assert "Traceback" not in server.log, server.log
        assert "no fact names" not in check(tmp_path)

        server.start()
        async with Connection(server.host) as client:
            put = f"{session}?digest={digest_of(contents[0])}"
            assert (await client.request("PUT", put)).status == 201
            for content in contents:
                assert (await client.request("GET", f"/v2/crash/blobs/{digest_of(content)}")).body == content


@WORKERS
async def test_stop_ends_in_time(tmp_path: Path, workers: int) -> None:
    """A transfer that outlasts the draining is cut off: nothing of it is visible, and what came before is kept."""
    content = random.randbytes(4 * MEBIBYTE)
    with running(tmp_path, "--workers", str(workers), MOORAGE_DRAIN_TIMEOUT="1") as server:
        session = await start(server, content[:MEBIBYTE])
        answer = await outlast_the_stop(server, session, content, MEBIBYTE)
        assert answer is None or answer.status >= 500, answer
        server.start()
        await assert_absent_then_resume(server, session, content, MEBIBYTE)
        assert "no fact names" not in check(tmp_path)


@WORKERS
async def test_stop_that_cuts_off_says_so(tmp_path: Path, workers: int) -> None:
    """A transfer that is cut off gets a 503 in the specification's form, or no answer."""
    content = random.randbytes(4 * MEBIBYTE)
    with running(tmp_path, "--workers", str(workers), MOORAGE_DRAIN_TIMEOUT="1") as server:
        session = await start(server, content[:MEBIBYTE])
        answer = await outlast_the_stop(server, session, content, MEBIBYTE)
    if answer is not None:
        assert answer.status == 503
        assert json.loads(answer.body)["errors"]
    assert "Traceback" not in server.log


async def outlast_the_stop(server: Server, session: str, content: bytes, received: int) -> Answer | None:
    """The answer, if any, to a closing PUT that is longer under way than the server drains, when that has ended."""
    put = f"{session}?digest={digest_of(content)}"
    announced = {"Content-Length": str(len(content) - received)}
    soon = received + 2 * MEBIBYTE
    async with Connection(server.host) as client:
        body = [content[received:soon], *split(content[soon:], 2_000)]
        sent = asyncio.create_task(client.request("PUT", put, body, announced))
        async with asyncio.timeout(20):
            while sum(sizes(server.root)) <= received:
                await asyncio.sleep(0.005)
        assert await asyncio.to_thread(server.stop, 10) == 0, server.log
        try:
            return await sent
        except Unanswered:
            return None


async def test_check_beside_a_session_that_ends(tmp_path: Path) -> None:
    """A session that is closed while a check looks at it, and whose segments go, is no fault."""
    deleted, forgotten = asyncio.Event(), asyncio.Event()

    class Deleting(FilesystemBlobStore):
        async def delete(self, keys: Sequence[Key]) -> None:
            await super().delete(keys)
            deleted.set()
            await forgotten.wait()

    class Looking(FilesystemBlobStore):
        async def size(self, key: Key) -> int:
            if not deleted.is_set():
                await registry.uploads.finish("crash", session.id, digest_of(b"onetwo"))
                await deleted.wait()
            return await super().size(key)

    metadata = SQLiteMetadata(tmp_path / "moorage.db")
    async with Registry(Deleting(tmp_path / "blobs"), metadata) as registry, Looking(tmp_path / "blobs") as store:
        session = await registry.uploads.start("crash")
        for chunk in (b"one", b"two"):
            await registry.uploads.append("crash", session.id, pieces(chunk))
        wrong = [problem async for problem in look(store, metadata)]
        forgotten.set()
    assert wrong == []


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def start(server: Server, content: bytes) -> str:
    """The location of an upload session of which ``content`` was acknowledged."""
    async with Connection(server.host) as client:
        session = (await client.request("POST", "/v2/crash/blobs/uploads/")).headers["location"]
        answer = await client.request("PATCH", session, content)
    assert (answer.status, answer.headers["range"]) == (202, f"0-{len(content) - 1}")
    return session


async def settled(client: Connection) -> None:
    """What the client's worker does by itself at its start is done: a later change was acknowledged."""
    assert (await client.request("POST", "/v2/crash/blobs/uploads/")).status == 202


async def kill_when(
    ready: Callable[[], bool],
    server: Server,
    client: Connection,
    path: str,
    body: bytes | list[bytes],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send a PUT and kill the server once it is ``ready``, which is before it has answered."""
    sent = asyncio.create_task(client.request("PUT", path, body, headers))
    async with asyncio.timeout(20):
        while not ready():
            await asyncio.sleep(0.002)
    assert not sent.done(), sent
    server.kill()
    with pytest.raises(Unanswered):
        await sent


async def assert_absent_then_resume(server: Server, session: str, content: bytes, received: int) -> None:
    """The blob is not there, the session has ``received`` bytes, and with the rest the blob is there."""
    blob = f"/v2/crash/blobs/{digest_of(content)}"
    async with Connection(server.host) as client:
        assert (await client.request("GET", blob)).status == 404
        assert (await client.request("HEAD", blob)).status == 404
        status = await client.request("GET", session)
        assert (status.status, status.headers["range"]) == (204, f"0-{received - 1}")
        assert (
            await client.request("PUT", f"{session}?digest={digest_of(content)}", content[received:])
        ).status == 201
        assert (await client.request("GET", blob)).body == content
        assert (await client.request("GET", session)).status == 404


@contextmanager
def facts_held(root: Path) -> Iterator[Callable[[], bool]]:
    """While nothing can state a fact, whether something is about to: this is the lock for which writers queue."""
    with (root / "moorage.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        inode = os.fstat(lock.fileno()).st_ino

        def awaited() -> bool:
            lines = Path("/proc/locks").read_text("ascii").splitlines()
            return any(" -> FLOCK" in line and f":{inode} " in line for line in lines)

        yield awaited


def workers_of(server: Server) -> set[int]:
    assert server.process is not None
    pid = server.process.pid
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()}


def check(root: Path) -> str:
    """What ``moorage check --full`` says of a root where nothing is wrong."""
    command = [sys.executable, "-m", "moorage", "check", "--full", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
