"""Pushes and pulls per second of several nodes over one PostgreSQL: ``python -m benchmarks.nodes --nodes 2``.

Starts a throwaway PostgreSQL, the nodes and the load on this machine, so it shows what a node costs and that nodes do
not stand in each other's way; how far they scale it shows only as far as there are cores for all.
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests import server
from tests.postgres import cluster

from benchmarks.client import Server
from benchmarks.content import Mint
from benchmarks.verbs import Verbs

SIZE = 4096


async def pushes(ports: list[int], clients: int, seconds: float) -> tuple[float, float]:
    """Pushes of a small blob by POST and PUT, then pulls of its bytes, each per second."""
    mint = Mint(SIZE)
    pushed: list[tuple[str, str]] = []
    pulled = 0

    async def push(number: int, until: float) -> None:
        async with Server(ports[number % len(ports)]) as door:
            wire = await door.open()
            verbs = Verbs(door, wire)
            while time.monotonic() < until:
                repository = f"bench/{number}"
                blob = mint.blob()
                await verbs.put(wire, repository, blob)
                pushed.append((repository, blob.digest))

    async def pull(number: int, until: float) -> None:
        nonlocal pulled
        async with Server(ports[number % len(ports)]) as door:
            wire = await door.open()
            verbs = Verbs(door, wire)
            while time.monotonic() < until:
                await wire.ask(verbs.get(*pushed[pulled % len(pushed)]), 200)
                pulled += 1

    rates = []
    for work in (push, pull):
        until = time.monotonic() + seconds
        await asyncio.gather(*(work(number, until) for number in range(clients)))
        rates.append((len(pushed) if work is push else pulled) / seconds)
    return rates[0], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    with cluster(durable=True) as database, ExitStack() as stack:
        root, url = Path(stack.enter_context(tempfile.TemporaryDirectory())), database.make_database()
        nodes = [stack.enter_context(server.running(root, "--metadata", url)) for _ in range(asked.nodes)]
        pushed, pulled = asyncio.run(pushes([node.port for node in nodes], asked.clients, asked.seconds))
    print(f"{asked.nodes} nodes, {asked.clients} clients: {pushed:.0f} pushes/s, {pulled:.0f} pulls/s of 4 KiB")


if __name__ == "__main__":
    main()
