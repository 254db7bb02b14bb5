"""Blobs and upload sessions, from many clients at once, with one worker and with four."""

import asyncio
import os
import time
from typing import Any

from tests.fuzz.profile import FACTOR
from tests.races.client import Client, at_once, crowd, image
from tests.races.model import digest_of
from tests.server import Server
from tests.support import sizes


def outcomes(answers: list[Any]) -> list[int]:
    return sorted(answer.status for answer in answers)


async def _push(client: Client, way: int, repository: str, content: bytes) -> int:
    """The blob's push in one of the three ways."""
    digest = digest_of(content)
    if way == 0:
        return (await client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", body=content)).status
    session = await client.open_session(repository)
    if way == 1:
        return (await client.ask("PUT", f"{session}?digest={digest}", body=content)).status
    half = len(content) // 2
    for first, part in ((0, content[:half]), (half, content[half:])):
        span = [("Content-Range", f"{first}-{first + len(part) - 1}")]
        assert (await client.ask("PATCH", session, span, part)).status == 202
    return (await client.ask("PUT", f"{session}?digest={digest}")).status


async def test_the_same_blob(server: Server, repository: str) -> None:
    "Everyone is told 201, in every repository, and the bytes are stored once."
    content = os.urandom(150_001)
    async with crowd(server.host, 12) as clients:
        pushed = [_push(client, n % 3, f"{repository}/{n % 2}", content) for n, client in enumerate(clients)]
        assert set(await asyncio.gather(*pushed)) == {201}
        for n in (0, 1):
            pulled = await clients[n].ask("GET", f"/v2/{repository}/{n}/blobs/{digest_of(content)}")
            assert (pulled.status, pulled.body) == (200, content)

    deadline = time.monotonic() + 10
    while sizes(server.root).count(len(content)) > 1 and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert sizes(server.root).count(len(content)) == 1


async def test_one_chunk_wins_each_offset(server: Server, repository: str) -> None:
    "Of the chunks for one offset exactly one is taken, the others are told where the session is."
    async with crowd(server.host, 8) as clients:
        session = await clients[0].open_session(repository)
        whole = b""
        for step in range(8 * FACTOR):
            size = 1000 if step % 2 else 200_000
            parts = [os.urandom(1) * size for _ in clients]
            span = [("Content-Range", f"{len(whole)}-{len(whole) + size - 1}")]
            answers = await asyncio.gather(
                *(client.ask("PATCH", session, span, part) for client, part in zip(clients, parts, strict=True))
            )
            assert outcomes(answers) == [202] + [416] * 7
            for answer, part in zip(answers, parts, strict=True):
                if answer.status == 202:
                    whole += part
                    assert answer.header("range") == f"0-{len(whole) - 1}"
                else:
                    assert answer.codes == ["BLOB_UPLOAD_INVALID"]
                    assert answer.header("location") == session
            status = await clients[step % 8].ask("GET", session)
            assert status.header("range") == f"0-{len(whole) - 1}"
        assert (await clients[1].ask("PUT", f"{session}?digest={digest_of(whole)}")).status == 201
        pulled = await clients[2].ask("GET", f"/v2/{repository}/blobs/{digest_of(whole)}")
        assert pulled.body == whole


async def test_streams_into_one_session(server: Server, repository: str) -> None:
    "Without Content-Range each that is taken follows the one before; what is answered 416 left no byte."
    async with crowd(server.host, 8) as clients:
        session = await clients[0].open_session(repository)
        parts = [bytes([65 + n]) * (100 + n) for n in range(8)]
        answers = await at_once(
            *(client.ask("PATCH", session, (), part) for client, part in zip(clients, parts, strict=True))
        )
        assert set(outcomes(answers)) <= {202, 416}
        taken = [
            (int((answer.header("range") or "").removeprefix("0-")), part)
            for answer, part in zip(answers, parts, strict=True)
            if answer.status == 202
        ]
        whole = b"".join(part for _, part in sorted(taken))
        assert max(taken)[0] == len(whole) - 1
        assert (await clients[0].ask("PUT", f"{session}?digest={digest_of(whole)}")).status == 201
        assert (await clients[1].ask("GET", f"/v2/{repository}/blobs/{digest_of(whole)}")).body == whole


async def test_one_close_wins(server: Server, repository: str) -> None:
    "Whether with the same bytes or each with a last chunk of its own."
    async with crowd(server.host, 8) as clients:
        for same in (True, False) * 4 * FACTOR:
            session = await clients[0].open_session(repository)
            start = os.urandom(1000)
            assert (await clients[0].ask("PATCH", session, (), start)).status == 202
            ends = [b"" if same else os.urandom(10) for _ in clients]
            answers = await asyncio.gather(
                *(
                    client.ask("PUT", f"{session}?digest={digest_of(start + end)}", (), end)
                    for client, end in zip(clients, ends, strict=True)
                )
            )
            assert outcomes(answers) == [201] + [404] * 7
            for answer, end in zip(answers, ends, strict=True):
                if answer.status == 404:
                    assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]
                if answer.status == 201 or not same:
                    pulled = await clients[0].ask("GET", f"/v2/{repository}/blobs/{digest_of(start + end)}")
                    assert pulled.status == (200 if answer.status == 201 else 404)


async def test_a_chunk_against_the_close(server: Server, repository: str) -> None:
    "One of them is first, and the other is refused; what was acknowledged is there."
    async with crowd(server.host, 2) as (one, other):
        for _ in range(25 * FACTOR):
            session = await one.open_session(repository)
            start, end = os.urandom(1000), os.urandom(10)
            assert (await one.ask("PATCH", session, (), start)).status == 202
            chunk, close = await at_once(
                one.ask("PATCH", session, [("Content-Range", "1000-1009")], end),
                other.ask("PUT", f"{session}?digest={digest_of(start)}"),
            )
            if close.status == 201:
                assert chunk.status == 404
                assert (await one.ask("GET", f"/v2/{repository}/blobs/{digest_of(start)}")).body == start
            else:
                assert chunk.status == 202
                assert close.status in (400, 416)
                assert (await one.ask("PUT", f"{session}?digest={digest_of(start + end)}")).status == 201


async def test_cancel_against_the_close(server: Server, repository: str) -> None:
    "Exactly one of them finds the session, and the blob is there if it was the close."
    async with crowd(server.host, 2) as (one, other):
        for n in range(25 * FACTOR):
            session = await one.open_session(repository)
            content = os.urandom(1000)
            for part in (content[:500], content[500:])[: 1 + n % 2]:
                assert (await one.ask("PATCH", session, (), part)).status == 202
            whole = content if n % 2 else content[:500]
            cancel, close = await at_once(
                one.ask("DELETE", session), other.ask("PUT", f"{session}?digest={digest_of(whole)}")
            )
            assert (cancel.status, close.status) in ((204, 404), (404, 201))
            pulled = await one.ask("GET", f"/v2/{repository}/blobs/{digest_of(whole)}")
            assert (pulled.status == 200) == (close.status == 201)
            assert (await one.ask("GET", session)).status == 404


async def test_delete_against_push_of_a_blob(server: Server, repository: str) -> None:
    "Both succeed, in some order: the blob is there whole or not at all."
    async with crowd(server.host, 3) as (one, other, third):
        for _ in range(25 * FACTOR):
            content = os.urandom(1000)
            digest = await one.push_blob(repository, content)
            target = f"/v2/{repository}/blobs/{digest}"
            delete, push, read = await at_once(
                one.ask("DELETE", target),
                other.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", body=content),
                third.ask("GET", target),
            )
            assert push.status == 201
            assert delete.status == 202
            for pulled in (read, await third.ask("GET", target)):
                assert pulled.status in (200, 404)
                assert pulled.status == 404 or pulled.body == content
            await other.push_blob(repository, content)
            assert (await third.ask("GET", target)).body == content


async def test_mount_against_delete(server: Server, repository: str) -> None:
    "The mount comes first and the blob is in the other repository, or it opens a session; never a broken link."
    source, target = f"{repository}/source", f"{repository}/target"
    mounted = 0
    async with crowd(server.host, 4) as (one, other, third, fourth):
        for _ in range(25 * FACTOR):
            content = os.urandom(1000)
            digest = await one.push_blob(source, content)
            query = f"mount={digest}&from={source}"
            mount, delete, anywhere = await at_once(
                other.ask("POST", f"/v2/{target}/blobs/uploads/?{query}"),
                one.ask("DELETE", f"/v2/{source}/blobs/{digest}"),
                third.ask("POST", f"/v2/{target}/x/blobs/uploads/?mount={digest}"),
            )
            assert delete.status == 202
            for answer, name in ((mount, target), (anywhere, f"{target}/x")):
                assert answer.status in (201, 202)
                mounted += answer.status == 201
                pulled = await fourth.ask("GET", f"/v2/{name}/blobs/{digest}")
                assert pulled.status == (200 if answer.status == 201 else 404)
                assert answer.status == 202 or pulled.body == content
                if answer.status == 201:
                    assert (await one.put(name, "latest", image(digest))).status == 201
            assert (await fourth.ask("GET", f"/v2/{source}/blobs/{digest}")).status == 404
