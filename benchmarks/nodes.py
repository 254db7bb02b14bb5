"""Pushes and pulls a second of several nodes over one database, and who spends what: ``python -m benchmarks.nodes``.

Starts a throwaway PostgreSQL, SeaweedFS (unless ``--folder``), the nodes and the load on this machine. So it shows
what an operation costs whom, and that nodes do not stand in each other's way; how far they scale it shows only as far
as there are cores for all. Each number of nodes has its turn in each round; told are medians.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from tests.buckets import Engine, seaweed
from tests.postgres import Cluster, cluster
from tests.server import Server as Node
from tests.server import as_environment, running

from benchmarks.client import Server, Wire
from benchmarks.content import Mint
from benchmarks.process import cpu_seconds
from benchmarks.verbs import Verbs

SIZE = 4096
RATE = "a second"
Figures = dict[str, float]  # RATE, and by part the microseconds of CPU for one operation
Operation = Callable[[Verbs, Wire, int], Awaitable[None]]


class Load:
    """Clients, each of which speaks to one of the nodes; ``spent`` tells the CPU seconds of each part so far."""

    def __init__(self, clients: int, seconds: float, spent: Callable[[], Figures]) -> None:
        self._clients = clients
        self._seconds = seconds
        self._spent = spent
        self._mint = Mint(SIZE)
        self._pushed: list[tuple[str, str]] = []
        self._done = 0

    async def push(self, verbs: Verbs, wire: Wire, number: int) -> None:
        """A new blob of 4 KiB by POST and PUT."""
        repository, blob = f"bench/{number}", self._mint.blob()
        await verbs.put(wire, repository, blob)
        self._pushed.append((repository, blob.digest))

    async def pull(self, verbs: Verbs, wire: Wire, number: int) -> None:
        """The bytes of a blob that was pushed."""
        await wire.ask(verbs.get(*self._pushed[(self._done + number) % len(self._pushed)]), 200)

    async def run(self, ports: list[int], operate: Operation) -> Figures:
        """That operation again and again, spread over the nodes at ``ports``."""
        self._done, before, began = 0, self._spent(), time.monotonic()

        async def client(number: int) -> None:
            async with Server(ports[number % len(ports)]) as door:
                wire = await door.open()
                verbs = Verbs(door, wire)
                while time.monotonic() < began + self._seconds:
                    await operate(verbs, wire, number)
                    self._done += 1

        await asyncio.gather(*(client(number) for number in range(self._clients)))
        took, after = time.monotonic() - began, self._spent()
        spent = {part: (after[part] - before[part]) / self._done * 1e6 for part in before}
        return {RATE: self._done / took, **spent}


async def measured(load: Load, ports: list[int], counts: list[int], rounds: int) -> dict[tuple[str, int], Figures]:
    """The medians of each operation and number of nodes."""
    found: dict[tuple[str, int], list[Figures]] = {}
    for _ in range(rounds):
        for count in counts:
            for name, operate in (("pushes", load.push), ("pulls", load.pull)):
                found.setdefault((name, count), []).append(await load.run(ports[:count], operate))
    return {
        which: {part: statistics.median(each[part] for each in figures) for part in figures[0]}
        for which, figures in found.items()
    }


def pids(*started: Cluster | Engine | Node) -> list[int]:
    """Of what was started, the first process of each."""
    return [each.process.pid for each in started if each.process]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", action="store_true", help="keep the bytes in a folder that all nodes share")
    asked = parser.parse_args()
    with cluster(durable=True) as database, ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parts = {"PostgreSQL": pids(database)}
        settings = {"MOORAGE_METADATA": database.make_database()}
        if not asked.folder:
            (root / "bucket").mkdir()
            bucket = stack.enter_context(seaweed(root / "bucket"))
            parts["S3"] = pids(bucket)
            settings |= as_environment(bucket.place(redirect="never"))
        nodes = [stack.enter_context(running(root / "root", **settings)) for _ in range(max(asked.nodes))]
        parts["nodes"] = pids(*nodes)

        def spent() -> Figures:
            own = os.times()
            spent = {part: sum(cpu_seconds(each)[0] for each in of) for part, of in parts.items()}
            return {**spent, "load": own.user + own.system}

        load = Load(asked.clients, asked.seconds, spent)
        figures = asyncio.run(measured(load, [node.port for node in nodes], asked.nodes, asked.rounds))
    print(f"{asked.clients} clients, 4 KiB, {os.cpu_count()} cores; microseconds of CPU for one operation")
    columns = [RATE, *parts, "load"]
    print(f"| | nodes | {RATE} |", *(f"CPU of {part} |" for part in columns[1:]))
    print("|---" * (2 + len(columns)) + "|")
    for name in ("pushes", "pulls"):
        for count in asked.nodes:
            print(f"| {name} | {count} |", *(f"{figures[name, count][each]:,.0f} |" for each in columns))


if __name__ == "__main__":
    main()
