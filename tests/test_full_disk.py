"""A disk without room: a clear refusal, nothing lost, and pushes again once there is room."""

import asyncio
import contextlib
import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.server import CI, Server, running
from tests.torture.clients import CLIENTS, Client
from tests.torture.ground import unmount
from tests.torture.model import Model, digest_of
from tests.torture.pushes import OCI_MANIFEST
from tests.torture.verify import verify
from tests.torture.wire import Answer, Connection

MEBIBYTE = 1024 * 1024


class SmallDisk:
    """A tmpfs, with a file in it that takes up room."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "registry"
        self._filler = folder / "filler"

    def fill(self, spare: int = 0) -> None:
        """Leave ``spare`` bytes of room."""
        with self._filler.open("ab", buffering=0) as file:
            while (room := self.room() - spare) > 0:
                with contextlib.suppress(OSError):  # the server took some of it meanwhile
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)

    def free(self) -> None:
        self._filler.unlink()

    def room(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def objects(self) -> list[str]:
        """The files in which bytes are kept."""
        return sorted(name for _, _, names in os.walk(self.root / "blobs") for name in names)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 24 MiB, or of as many as the test asks for."""
    folder = tmp_path / "small"
    folder.mkdir()
    why = "only root may mount a small disk" if os.geteuid() != 0 else ""
    if not why:
        size = f"size={getattr(request, 'param', 24)}m"
        command = ["mount", "-t", "tmpfs", "-o", size, "moorage-test", str(folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        why = done.stderr.strip() if done.returncode else ""
    if why:
        pytest.fail(why) if CI else pytest.skip(why)
    try:
        yield SmallDisk(folder)
    finally:
        unmount(folder)


@pytest.fixture(params=[1, 4], ids=["one worker", "four workers"])
def server(request: pytest.FixtureRequest, disk: SmallDisk) -> Iterator[Server]:
    with running(disk.root, "--workers", str(request.param)) as server:
        yield server


def manifest(number: int, size: int) -> bytes:
    """A manifest of about ``size`` bytes that needs no blob."""
    annotations = {"org.example.n": str(number), "org.example.x": "x" * size}
    return json.dumps({"schemaVersion": 2, "layers": [], "annotations": annotations}).encode()


def assert_full(answer: Answer) -> None:
    """The answer tells a client, in the specification's form, that there is no room."""
    assert answer.status == 507, answer
    assert answer.headers["content-type"] == "application/json"
    (error,) = json.loads(answer.body)["errors"]
    assert error["code"] == "UNKNOWN"
    assert "full" in error["message"]
    assert error["detail"]["reason"]


def check(root: Path) -> str:
    """What ``moorage check --full`` says of a root where nothing is wrong."""
    command = [sys.executable, "-m", "moorage", "check", "--full", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


async def test_no_room_for_bytes(disk: SmallDisk, server: Server) -> None:
    """Blobs are refused however they are pushed, and leave nothing; a session goes on when there is room."""
    kept, content = random.randbytes(300_000), random.randbytes(3 * MEBIBYTE)
    half = len(content) // 2
    async with Connection(server.host) as client:
        post = f"/v2/full/blobs/uploads/?digest={digest_of(content)}"
        assert (await client.request("POST", post.replace(digest_of(content), digest_of(kept)), kept)).status == 201
        pushed = manifest(0, 100)
        typed = {"Content-Type": OCI_MANIFEST}
        assert (await client.request("PUT", "/v2/full/manifests/kept", pushed, typed)).status == 201
        session = (await client.request("POST", "/v2/full/blobs/uploads/")).headers["location"]
        assert (await client.request("PATCH", session, content[:half])).status == 202
        put = f"{session}?digest={digest_of(content)}"
        before = disk.objects()

        # Room for facts and for some of the bytes, then for none at all.
        for spare in (MEBIBYTE, 0):
            disk.fill(spare)
            assert_full(await client.request("POST", post, content))
            assert_full(await client.request("POST", post, [content[:MEBIBYTE], content[MEBIBYTE:]]))
            assert_full(await client.request("PATCH", session, content[half:]))
            assert_full(await client.request("PUT", put, content[half:]))
            assert disk.objects() == before
        assert_full(await client.request("POST", "/v2/full/blobs/uploads/"))
        assert_full(await client.request("PUT", "/v2/full/manifests/none", manifest(1, 100_000), typed))
        assert_full(await client.request("DELETE", "/v2/full/manifests/kept"))

        assert (await client.request("GET", f"/v2/full/blobs/{digest_of(kept)}")).body == kept
        assert (await client.request("GET", "/v2/full/manifests/kept")).body == pushed
        assert (await client.request("GET", "/v2/full/manifests/none")).status == 404
        tags = json.loads((await client.request("GET", "/v2/full/tags/list")).body)["tags"]
        assert tags == ["kept"]
        assert (await client.request("GET", session)).headers["range"] == f"0-{half - 1}"
        check(disk.root)

        disk.free()
        assert (await client.request("PATCH", session, content[half:])).status == 202
        assert (await client.request("PUT", put)).status == 201
        assert (await client.request("GET", f"/v2/full/blobs/{digest_of(content)}")).body == content
        assert (await client.request("PUT", "/v2/full/manifests/none", manifest(1, 100_000), typed)).status == 201
        assert (await client.request("DELETE", "/v2/full/manifests/kept")).status == 202
    assert "no fact names" not in check(disk.root)
    assert "Traceback" not in server.log, server.log


async def test_no_room_to_join(disk: SmallDisk, server: Server) -> None:
    """A closing PUT whose last bytes fit, but not the whole blob, leaves nothing; the session stays as it was."""
    chunks, last = [random.randbytes(500_000) for _ in range(8)], random.randbytes(200_000)
    whole = b"".join([*chunks, last])
    async with Connection(server.host) as client:
        session = (await client.request("POST", "/v2/full/blobs/uploads/")).headers["location"]
        for chunk in chunks:
            assert (await client.request("PATCH", session, chunk)).status == 202
        before = disk.objects()
        disk.fill(spare=2 * MEBIBYTE)
        put = f"{session}?digest={digest_of(whole)}"
        assert_full(await client.request("PUT", put, last))
        assert (await client.request("GET", session)).headers["range"] == f"0-{4_000_000 - 1}"
        left = disk.objects()
        disk.free()
        assert (await client.request("PUT", put, last)).status == 201
        assert (await client.request("GET", f"/v2/full/blobs/{digest_of(whole)}")).body == whole
    assert left == before


async def test_large_chunks_need_no_more_room(disk: SmallDisk, server: Server) -> None:
    """They become the blob where they are."""
    first, last = random.randbytes(4 * MEBIBYTE), random.randbytes(200_000)
    async with Connection(server.host) as client:
        session = (await client.request("POST", "/v2/full/blobs/uploads/")).headers["location"]
        assert (await client.request("PATCH", session, first)).status == 202
        disk.fill(spare=2 * MEBIBYTE)
        put = f"{session}?digest={digest_of(first + last)}"
        assert (await client.request("PUT", put, last)).status == 201
        assert (await client.request("GET", f"/v2/full/blobs/{digest_of(first + last)}")).body == first + last


async def test_no_room_for_facts(disk: SmallDisk, server: Server) -> None:
    """Manifests whose rows do not fit are refused; each that was acknowledged stays under its digest and tag."""
    typed = {"Content-Type": OCI_MANIFEST}
    pushed: dict[str, bytes] = {}
    refused: dict[str, bytes] = {}
    disk.fill(spare=6 * MEBIBYTE)
    async with Connection(server.host) as client:
        number = 0
        while len(refused) < 40:
            number += 1
            assert number < 5000, "the disk should be full by now"
            tag, content = f"t{number:04}", manifest(number, (200, 8_000, 30_000)[number % 3])
            answer = await client.request("PUT", f"/v2/full/manifests/{tag}", content, typed)
            if answer.status == 201:
                pushed[tag] = content
                continue
            assert_full(answer)
            refused[tag] = content
        assert len(pushed) > 50

        async def assert_kept() -> None:
            for tag, content in pushed.items():
                for reference in (tag, digest_of(content)):
                    assert (await client.request("GET", f"/v2/full/manifests/{reference}")).body == content
            for tag, content in refused.items():
                for reference in (tag, digest_of(content)):
                    assert (await client.request("GET", f"/v2/full/manifests/{reference}")).status == 404
            listed = await client.request("GET", "/v2/full/tags/list")
            assert json.loads(listed.body)["tags"] == sorted(pushed)

        await assert_kept()
        check(disk.root)
        disk.free()
        for tag in list(refused):
            pushed[tag] = refused.pop(tag)
            answer = await client.request("PUT", f"/v2/full/manifests/{tag}", pushed[tag], typed)
            assert answer.status == 201, answer
        await assert_kept()
        check(disk.root)
    assert "Traceback" not in server.log, server.log


@pytest.mark.parametrize("disk", [192], indirect=True, ids=["192 MiB"])
async def test_room_comes_and_goes(disk: SmallDisk, server: Server) -> None:
    """What eight clients were told holds exactly, whether 201 or 507, on a disk that keeps filling up."""
    model, seed = Model(), random.randrange(2**32)
    model.moment = f"seed {seed}"
    ended = asyncio.Event()

    async def push(number: int) -> None:
        async with Connection(server.host) as connection:
            client = Client(connection, model, Random(f"{seed} {number}"), ended.is_set, full=True)
            client.set_up(number, 0)
            await client.work()

    async def fill_and_free() -> None:
        for turn in range(8):
            await asyncio.sleep(0.15)
            disk.fill(spare=(0, 40_000, 400_000)[turn % 3])
            await asyncio.sleep(0.1)
            disk.free()
        ended.set()

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(push(number))
        group.create_task(fill_and_free())
    assert not model.unknown
    assert "storage is full" in server.log
    await verify(server.host, model, Random(seed), old=None)
    assert server.stop() == 0
    assert "no fact names" not in check(disk.root)


@pytest.fixture
def expiring(disk: SmallDisk) -> Iterator[Server]:
    """A server whose upload sessions last two seconds."""
    with running(disk.root, MOORAGE_UPLOAD_EXPIRY="2", MOORAGE_HOUSEKEEPING_INTERVAL="0.1") as server:
        yield server


async def expire_without_room(disk: SmallDisk, server: Server) -> None:
    """Let a session's time end while there is no room to say so, then make room."""
    async with Connection(server.host) as client:
        session = (await client.request("POST", "/v2/full/blobs/uploads/")).headers["location"]
        assert (await client.request("PATCH", session, random.randbytes(10_000))).status == 202
        disk.fill()
        await asyncio.sleep(2.5)
        assert (await client.request("GET", session)).status == 404
        disk.free()


async def test_session_expires_once_there_is_room(disk: SmallDisk, expiring: Server) -> None:
    """Cleaning up, which a full disk keeps from going on, is done when there is room."""
    await expire_without_room(disk, expiring)
    async with asyncio.timeout(10):
        while disk.objects():
            await asyncio.sleep(0.05)
    assert expiring.stop() == 0
    assert " 0 uploads" in check(disk.root)


async def test_cleaning_without_room_is_told_in_a_line(disk: SmallDisk, expiring: Server) -> None:
    """The log says that there is no room; a traceback would point at a fault of the program."""
    await expire_without_room(disk, expiring)
    assert "full" in expiring.log
    assert "Traceback" not in expiring.log


async def test_start_without_room(disk: SmallDisk, server: Server) -> None:
    """A server that is started on a full disk serves what is there, or ends; with room it serves again."""
    content = random.randbytes(10_000)

    async def pull() -> bytes:
        async with Connection(server.host) as client:
            return (await client.request("GET", f"/v2/full/blobs/{digest_of(content)}")).body

    async with Connection(server.host) as client:
        post = f"/v2/full/blobs/uploads/?digest={digest_of(content)}"
        assert (await client.request("POST", post, content)).status == 201
    assert server.stop() == 0
    disk.fill()
    if not start_fault(server):
        assert await pull() == content
        server.kill()
    disk.free()
    server.start()
    assert await pull() == content
    check(disk.root)


async def test_start_without_room_says_why(disk: SmallDisk, server: Server) -> None:
    """Where there is no room for what a start needs, it says so in words."""
    assert server.stop() == 0
    disk.fill()
    why = start_fault(server)
    assert not why or "full" in why or os.strerror(errno.ENOSPC) in why
    assert "Traceback" not in why


def start_fault(server: Server) -> str:
    """What a server says that ends instead of starting; nothing if it starts."""
    try:
        server.start()
    except RuntimeError as error:
        return str(error)
    return ""
