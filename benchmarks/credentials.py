"""What credentials cost on the hot path: ``python -m benchmarks.credentials``.

One manifest is pulled again and again over kept connections from two servers, one open to everyone and one that asks,
with a token, a password or an API key. The ways take turns, so that whatever else the machine does meets all of them.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.client import Server, Wire
from benchmarks.process import Cores, cpu_seconds

NAME, PASSWORD = "alice", "password"
PATH = "/v2/bench/app/manifests/v1"
MANIFEST = json.dumps(
    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
).encode()
TYPE = "Content-Type: application/vnd.oci.image.index.v1+json"
CONNECTIONS = 4


def moorage(root: Path, *arguments: str, text: str = "") -> str:
    command = [sys.executable, "-m", "moorage", *arguments, "--root", str(root)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def serving(root: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """``(port, process)`` of a server over ``root``."""
    command = [sys.executable, "-m", "moorage", "serve", "--port", "0", "--root", str(root)]
    environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    os.sched_setaffinity(process.pid, Cores.apart().server)
    assert process.stdout is not None
    found = re.search(r"http://[^:]+:(\d+)", process.stdout.readline())
    assert found
    try:
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def token(wire: Wire, server: Server, basic: str) -> str:
    query = "service=moorage&scope=repository:bench/app:pull"
    answer = await wire.ask(server.request("GET", f"/v2/token?{query}", basic), 200, keep=True)
    found: str = json.loads(answer.body)["token"]
    return found


async def measure(rounds: int, requests: int) -> None:
    basic = f"Authorization: Basic {base64.b64encode(f'{NAME}:{PASSWORD}'.encode()).decode()}"
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder, "closed")
        moorage(closed, "user", "add", NAME, text=f"{PASSWORD}\n")
        key = moorage(closed, "key", "create", "ci", "--scope", "bench/**:pull")
        with (
            serving(Path(folder, "open")) as (open_port, open_pid),
            serving(closed, MOORAGE_AUTHENTICATION="tokens,users,keys") as (port, pid),
        ):
            open_to_all, asks = Server(open_port), Server(port)
            wires = {server: [await server.open() for _ in range(CONNECTIONS)] for server in (open_to_all, asks)}
            for server in (open_to_all, asks):
                put = server.request("PUT", PATH, TYPE, f"Content-Length: {len(MANIFEST)}", basic)
                await wires[server][0].ask(put, 201, body=[MANIFEST])
            bearer = f"Authorization: Bearer {await token(wires[asks][0], asks, basic)}"
            ways = {
                "open": (open_to_all, open_pid, open_to_all.request("GET", PATH)),
                "token": (asks, pid, asks.request("GET", PATH, bearer)),
                "password": (asks, pid, asks.request("GET", PATH, basic)),
                "key": (asks, pid, asks.request("GET", PATH, f"Authorization: Bearer {key}")),
            }
            spent: dict[str, list[float]] = {name: [] for name in ways}
            for turn in range(rounds + 1):
                for name, (server, process, request) in ways.items():
                    before = cpu_seconds(process)[0]
                    await asyncio.gather(*(_ask(wire, request, requests // CONNECTIONS) for wire in wires[server]))
                    if turn:  # the first is to warm up
                        spent[name].append((cpu_seconds(process)[0] - before) / requests * 1e6)
    least = statistics.median(spent["open"])
    print(f"CPU of the server for one GET of a manifest by tag; median of {rounds} turns of {requests} requests")
    for name, values in spent.items():
        middle = statistics.median(values)
        print(f"{name:<10} {middle:6.1f} us  {middle / least:4.2f} x  ({min(values):.1f} to {max(values):.1f})")


async def _ask(wire: Wire, request: bytes, times: int) -> None:
    for _ in range(times):
        await wire.ask(request, 200)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=8000)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rounds, arguments.requests))
