"""Releases on a real server that is killed, and that many read and release at once: all of one or nothing of it."""

import asyncio
import contextlib
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.server import running
from tests.test_crash import WORKERS, check, facts_held, kill_when, settled
from tests.torture.model import digest_of
from tests.torture.pushes import OCI_MANIFEST
from tests.torture.wire import Connection, Unanswered, Unsent

SERVICES: Final = [f"shop/s{n}" for n in range(8)]
VERSIONS: Final = 40
CONTENTS: Final = [
    json.dumps({"schemaVersion": 2, "layers": [], "annotations": {"version": str(n)}}).encode()
    for n in range(VERSIONS)
]
DIGESTS: Final = [digest_of(each) for each in CONTENTS]


def body(version: int, expected: int | None = None) -> bytes:
    """A release of that version of all services."""
    was = {} if expected is None else {"expected": DIGESTS[expected]}
    moves = [{"repository": name, "tag": "stable", "digest": DIGESTS[version], **was} for name in SERVICES]
    return json.dumps({"changes": moves}).encode()


async def prepare(client: Connection) -> None:
    """Push every version of every service by its digest, and let the first be ``stable``."""
    for name in SERVICES:
        for content, digest in zip(CONTENTS, DIGESTS, strict=True):
            path = f"/v2/{name}/manifests/{digest}{'?tag=stable' if content is CONTENTS[0] else ''}"
            assert (await client.request("PUT", path, content, {"Content-Type": OCI_MANIFEST})).status == 201


async def version(client: Connection, name: str, at: str = "") -> int:
    """Which version of a service is ``stable``."""
    answer = await client.request("HEAD", f"/v2/{at}{name}/manifests/stable")
    return DIGESTS.index(answer.headers["docker-content-digest"])


async def release(client: Connection, number: int, expected: int | None = None) -> int:
    """The status of a release of that version."""
    return (await client.request("PUT", f"/v2/_moorage/releases/v{number}", body(number, expected))).status


@WORKERS
async def test_kill_between_a_release_and_its_answer(tmp_path: Path, workers: int) -> None:
    """A release that waits for its transaction when the server is killed moved no tag, and can be sent again."""
    with running(tmp_path, "--workers", str(workers)) as server:
        async with Connection(server.host) as client:
            await prepare(client)
            await settled(client)
            with facts_held(tmp_path) as awaited:
                await kill_when(awaited, server, client, "/v2/_moorage/releases/v1", body(1))
        server.start()
        async with Connection(server.host) as client:
            assert {await version(client, name) for name in SERVICES} == {0}
            assert (await client.request("GET", "/v2/_moorage/releases/v1")).status == 404
            assert await release(client, 1) == 201
            assert {await version(client, name) for name in SERVICES} == {1}
        check(tmp_path)


@WORKERS
async def test_kills_among_releases(tmp_path: Path, workers: int) -> None:
    """Killed anywhere, all tags name one version: the last that was acknowledged or the one that was under way."""
    with running(tmp_path, "--workers", str(workers)) as server:
        async with Connection(server.host) as client:
            await prepare(client)
        acknowledged = 0
        while acknowledged + 8 < VERSIONS:

            async def on() -> None:
                nonlocal acknowledged
                async with Connection(server.host) as client:
                    while acknowledged + 1 < VERSIONS:
                        assert await release(client, acknowledged + 1) in (200, 201)
                        acknowledged += 1

            going = asyncio.create_task(on())
            await asyncio.sleep(random.uniform(0.01, 0.06))
            server.kill()
            with contextlib.suppress(Unanswered, Unsent):
                await going
            server.start()
            async with Connection(server.host) as client:
                (found,) = {await version(client, name) for name in SERVICES}
                assert found in (acknowledged, acknowledged + 1)
                state = await client.request("GET", f"/v2/_moorage/releases/v{acknowledged + 1}")
                assert state.status == (200 if found > acknowledged else 404)
        check(tmp_path)


async def test_readers_and_rivals(tmp_path: Path) -> None:
    """Four workers: of two that release the next version one wins whole; whoever saw a tag of it sees no older one;
    and as of any moment all tags are of one version."""
    with running(tmp_path, "--workers", "4") as server:
        async with Connection(server.host) as client:
            await prepare(client)
        seen, ended = [0] * 4, asyncio.Event()

        async def read(reader: int) -> None:
            async with Connection(server.host) as client:
                while not ended.is_set():
                    for name in random.sample(SERVICES, len(SERVICES)):
                        found = await version(client, name)
                        assert found >= seen[reader], (name, found)
                        seen[reader] = found
                    client.close()  # another worker may take the next

        async def rival(at_once: asyncio.Barrier, number: int) -> list[int]:
            won = []
            for turn in range(1, VERSIONS // 2):
                path, to = f"/v2/_moorage/releases/r{number}.{turn}", 2 * turn - number
                async with Connection(server.host) as client:
                    was = await version(client, SERVICES[0])
                    await at_once.wait()
                    answer = await client.request("PUT", path, body(to, was))
                    assert answer.status in (201, 412), answer.body
                    await at_once.wait()
                    won += [to] * (answer.status == 201)
            return won

        begun = datetime.now(UTC)
        readers = [asyncio.create_task(read(n)) for n in range(4)]
        barrier = asyncio.Barrier(2)
        winners = await asyncio.gather(rival(barrier, 0), rival(barrier, 1))
        ended.set()
        await asyncio.gather(*readers)
        assert len(winners[0]) + len(winners[1]) == VERSIONS // 2 - 1
        assert min(seen) > 0
        await asyncio.sleep(2)
        async with Connection(server.host) as client:
            assert {await version(client, name) for name in SERVICES} == {max(*winners[0], *winners[1])}
            for second in range(int(begun.timestamp()) + 1, int(datetime.now(UTC).timestamp())):
                moment = datetime.fromtimestamp(second, UTC).strftime("at-%Y-%m-%dt%H%M%Sz/")
                assert len({await version(client, name, moment) for name in SERVICES}) == 1
    check(tmp_path)
