"""The life of an upload session: workers that share it, clients that go away, time that passes."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from moorage import Registry, create_app, open_registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry.policy import Policy
from moorage.storage.memory import MemoryBlobStore
from tests.support import DISCONNECT, LAYER, Exchange, Repository, body, digest_of, door_to, errors, served
from tests.web.conftest import Opener

DIGEST = digest_of(LAYER)


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[list[Repository]]:
    """The same repository through four registries over one root, as four processes would open it."""
    async with AsyncExitStack() as stack:
        doors = []
        for _ in range(4):
            registry = await stack.enter_async_context(open_registry(tmp_path))
            doors.append(Repository(await stack.enter_async_context(door_to(registry))))
        yield doors


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
async def test_any_worker_takes_the_next_request(workers: list[Repository], algorithm: str) -> None:
    """POST, each PATCH, status and PUT may come to different workers, and the blob is pulled from any."""
    turn = itertools.cycle(workers)
    location = await next(turn).start(f"?digest-algorithm={algorithm}")
    for start in range(0, len(LAYER), 3):
        chunk = LAYER[start : start + 3]
        wanted = {"content-range": f"{start}-{start + len(chunk) - 1}"}
        response = await next(turn).client.patch(location, content=chunk, headers=wanted)
        assert (response.status_code, response.headers["range"]) == (202, f"0-{start + len(chunk) - 1}")
        assert (await next(turn).client.get(location)).headers["range"] == response.headers["range"]
    digest = digest_of(LAYER, algorithm)
    assert (await next(turn).client.put(f"{location}?digest={digest}")).status_code == 201
    for worker in workers:
        assert (await worker.get(f"blobs/{digest}")).content == LAYER


async def test_last_chunk_at_another_worker(workers: list[Repository]) -> None:
    """A worker that saw none of the chunks closes the session with the last one, right or wrong."""
    location = await workers[0].start()
    await workers[0].client.patch(location, content=LAYER[:5])
    wrong = await workers[1].client.put(f"{location}?digest={digest_of(b'x')}", content=LAYER[5:])
    errors(wrong, 400, "DIGEST_INVALID")
    right = await workers[2].client.put(f"{location}?digest={DIGEST}", content=LAYER[5:])
    assert right.status_code == 201
    errors(await workers[0].client.patch(location, content=b"more"), 404, "BLOB_UPLOAD_UNKNOWN")


async def test_stale_worker(workers: list[Repository]) -> None:
    """A worker that took the first chunk, but not the second, knows the running hash no longer and is right still."""
    location = await workers[0].start()
    await workers[0].client.patch(location, content=LAYER[:5])
    await workers[1].client.patch(location, content=LAYER[5:10])
    response = await workers[0].client.put(f"{location}?digest={DIGEST}", content=LAYER[10:])
    assert response.status_code == 201


async def test_racing_workers(workers: list[Repository]) -> None:
    """Of chunks for one place at several workers, one is taken and the others are 416."""
    location = await workers[0].start()
    wanted = {"content-range": "0-4"}
    answers = await asyncio.gather(
        *(each.client.patch(location, content=LAYER[:5], headers=wanted) for each in workers * 3)
    )
    assert sorted(each.status_code for each in answers) == [202] + [416] * 11
    closings = await asyncio.gather(
        *(each.client.put(f"{location}?digest={DIGEST}", content=LAYER[5:]) for each in workers * 3)
    )
    assert sorted(each.status_code for each in closings) == [201] + [404] * 11
    assert (await workers[0].get(f"blobs/{DIGEST}")).content == LAYER


async def test_many_sessions_at_once(repository: Repository) -> None:
    """A thousand and more open sessions are each closed with their own bytes."""
    locations = [await repository.start() for _ in range(1100)]
    for n, location in enumerate(locations):
        assert (await repository.client.patch(location, content=b"%d" % n)).status_code == 202
    for n in (0, 1, 500, 1099):
        whole = b"%d and more" % n
        response = await repository.client.put(f"{locations[n]}?digest={digest_of(whole)}", content=b" and more")
        assert response.status_code == 201


async def interrupted(app: Any, method: str, path: str, *arrived: bytes, **headers: str) -> Exchange:
    """A request whose client goes away after ``arrived``."""
    messages = [*(body(piece, more=True) for piece in arrived), DISCONNECT]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await Exchange(app, method, path, {"content-length": str(len(LAYER)), **named}, messages).run()


async def test_disconnect_keeps_what_arrived(registry: Registry) -> None:
    """A client that goes away amid a PATCH finds the bytes that arrived, and goes on after them."""
    app = create_app(registry)
    async with served(app) as client:
        location = await Repository(client).start()
        exchange = await interrupted(app, "PATCH", location, LAYER[:4], LAYER[4:7])
        assert exchange.sent == []
        assert (await client.get(location)).headers["range"] == "0-6"
        rest = {"content_length": str(len(LAYER) - 7), "content_range": f"7-{len(LAYER) - 1}"}
        exchange = await interrupted(app, "PATCH", location, LAYER[7:9], **rest)
        assert (await client.get(location)).headers["range"] == "0-8"
        response = await client.put(
            f"{location}?digest={DIGEST}", content=LAYER[9:], headers={"content-range": f"9-{len(LAYER) - 1}"}
        )
        assert response.status_code == 201


async def test_disconnect_before_any_byte(registry: Registry) -> None:
    """A client that goes away before its first byte changes nothing."""
    app = create_app(registry)
    async with served(app) as client:
        location = await Repository(client).start()
        assert (await interrupted(app, "PATCH", location)).sent == []
        assert (await client.get(location)).headers["range"] == "0-0"
        assert (await client.put(f"{location}?digest={DIGEST}", content=LAYER)).status_code == 201


async def test_disconnect_amid_the_closing_put(registry: Registry) -> None:
    """A client that goes away amid the closing PUT finds the session as it was before."""
    app = create_app(registry)
    async with served(app) as client:
        location = await Repository(client).start()
        await client.patch(location, content=LAYER[:5])
        assert (await interrupted(app, "PUT", f"{location}?digest={DIGEST}", LAYER[5:8])).sent == []
        assert (await client.get(location)).headers["range"] == "0-4"
        assert (await client.put(f"{location}?digest={DIGEST}", content=LAYER[5:])).status_code == 201


async def test_disconnect_amid_a_single_post(registry: Registry) -> None:
    """A client that goes away amid a single POST leaves nothing."""
    app = create_app(registry)
    exchange = await interrupted(app, "POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", LAYER[:5])
    assert exchange.sent == []
    assert (await registry.repositories.list()).items == []


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_disconnect_amid_a_body_that_is_refused(registry: Registry, method: str) -> None:
    """A client that goes away while what is left of its refused body is drained gets no answer, and no traceback."""
    exchange = await interrupted(create_app(registry), method, "/v2/a/tags/list", LAYER[:5])
    assert exchange.sent == []


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_expiry() -> None:
    """A session that nobody used for upload_expiry seconds is unknown, and its bytes go; use renews it."""
    clock, store = Time(), MemoryBlobStore()
    async with (
        Registry(store, SQLiteMetadata(), Policy(upload_expiry=100), clock=clock) as registry,
        door_to(registry) as client,
    ):
        used, idle = await Repository(client).start(), await Repository(client).start()
        for location in (used, idle):
            assert (await client.patch(location, content=LAYER[:5])).status_code == 202
        clock.now += 99
        assert (await client.patch(used, content=LAYER[5:])).status_code == 202
        assert (await client.get(idle)).status_code == 204
        clock.now += 1
        for response in (
            await client.get(idle),
            await client.patch(idle, content=b"x"),
            await client.put(f"{idle}?digest={DIGEST}", content=LAYER[5:]),
        ):
            errors(response, 404, "BLOB_UPLOAD_UNKNOWN")
        assert len([key async for key in store.list()]) == 3
        await registry.clean()
        assert len([key async for key in store.list()]) == 2
        errors(await client.delete(idle), 404, "BLOB_UPLOAD_UNKNOWN")
        assert (await client.put(f"{used}?digest={DIGEST}")).status_code == 201


async def test_expired_sessions_go_by_themselves(opened: Opener) -> None:
    """Without anybody's help, housekeeping ends what is over."""
    repository = await opened(upload_expiry=0.05, housekeeping_interval=0.05)
    location = await repository.start()
    async with asyncio.timeout(10):
        while (await repository.client.delete(location)).status_code != 404:
            location = await repository.start()
            await asyncio.sleep(0.12)


async def test_large_chunks_through_http(repository: Repository) -> None:
    """Chunks larger than any buffer make the blob that they are parts of."""
    content = bytes(range(251)) * 20_000
    location = await repository.start()

    async def in_pieces(part: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(part), 65536):
            yield part[start : start + 65536]

    half = len(content) // 2
    for part in (content[:half], content[half:]):
        response = await repository.client.patch(location, content=in_pieces(part))
        assert response.status_code == 202
    response = await repository.client.put(f"{location}?digest={digest_of(content)}")
    assert response.status_code == 201
    assert (await repository.get(f"blobs/{digest_of(content)}")).content == content
