"""Pushes to a bucket take memory by their number, not by their size."""

import asyncio
import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.buckets import Engine
from tests.server import Server, as_environment, running

pytestmark = [pytest.mark.stores, pytest.mark.slow]

MIB = 1024 * 1024
PUSHES, SIZE = 64, 100
# What docs/storage.md promises for each upload: a part for each that is sent and one more, and 2 MiB.
EACH = 8 * (2 + 1) + 2


def peak(server: Server) -> int:
    """The most MiB that the server ever held."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


async def push(server: Server, block: bytes, common: "hashlib._Hash", n: int) -> None:
    """A blob of its own, of which only the last block differs."""
    last = os.urandom(16) + block[16:]
    whole = common.copy()
    whole.update(last)
    host, _, port = server.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v2/memory/{n}/blobs/uploads/?digest=sha256:{whole.hexdigest()} HTTP/1.1\r\nHost: {server.host}\r\n"
        f"Content-Length: {SIZE * MIB}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    for each in [block] * (SIZE - 1) + [last]:
        writer.write(each)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 201"), answer


async def push_as_clients_do(server: Server, block: bytes, common: "hashlib._Hash", n: int) -> None:
    """Once more where the bucket was overloaded: this machine is not made for so many."""
    for attempt in range(4):
        try:
            await push(server, block, common, n)
        except (AssertionError, ConnectionError):
            if attempt == 3:
                raise
            await asyncio.sleep(2)
        else:
            return


async def test_pushes_at_once(seaweedfs: Engine, tmp_path: Path) -> None:
    """64 pushes of 100 MiB at once stay within 64 times what one may take."""
    block = os.urandom(MIB)
    common = hashlib.sha256()
    for _ in range(SIZE - 1):
        common.update(block)
    with running(
        tmp_path, **as_environment(seaweedfs.place(object_read_timeout=300.0, object_retry_timeout=120.0))
    ) as server:
        await push(server, block, common, PUSHES)
        before = peak(server)
        async with asyncio.timeout(1200):
            failed = await asyncio.gather(
                *(push_as_clients_do(server, block, common, n) for n in range(PUSHES)), return_exceptions=True
            )
        assert not any(failed), (failed, server.log)
        taken = peak(server)
        print(f"one push: {before} MiB; {PUSHES} at once: {taken} MiB")
        assert before < 80 + 2 * EACH  # most of it is Python and the libraries
        assert taken < before + PUSHES * EACH
        assert server.stop() == 0
