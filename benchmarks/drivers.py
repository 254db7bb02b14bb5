"""What keeps a running peer busy: clients over HTTP, the floor's process, or zb."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import zb
from benchmarks.client import LoadError, Server, Wire
from benchmarks.loads import Load
from benchmarks.scale import Scale


@dataclass(frozen=True, slots=True)
class Turn:
    """What a driver has done in one turn; times are seconds."""

    operations: int
    p50: float
    p99: float


def turn_of(latencies: list[float]) -> Turn:
    latencies.sort()
    count = len(latencies)
    return Turn(count, latencies[count // 2], latencies[min(count - 1, count * 99 // 100)])


class Driver(Protocol):
    """Keeps a running peer busy."""

    async def prepare(self) -> None: ...
    async def connect(self) -> None: ...
    async def drive(self, seconds: float) -> Turn: ...


class Requests:
    """Clients in a closed loop: each sends its next operation when it has the last one's answer."""

    def __init__(self, load: Load, server: Server) -> None:
        self._load = load
        self._count = load.operations(load.scale)
        self._server = server
        self._clients: list[list[Wire]] = []

    async def prepare(self) -> None:
        await self._load.prepare()
        await self.connect()
        await self._load.check(self._clients[0])

    async def connect(self) -> None:
        """Open the connections that are not there: a server may close what was idle during the others' turns."""
        if not self._clients:
            self._clients = [[] for _ in range(min(self._load.clients, self._load.scale.clients))]
        for wires in self._clients:
            wires[:] = [wire for wire in wires if not wire.closed]
            while len(wires) < self._load.wires:
                wires.append(await self._server.open())

    async def drive(self, seconds: float) -> Turn:
        latencies: list[float] = []
        deadline = time.perf_counter() + seconds
        operate, clock, count = self._load.operate, time.perf_counter, self._count

        async def client(wires: list[Wire]) -> None:
            now = clock()
            while True:
                started = now
                await operate(wires)
                now = clock()
                latencies.append(now - started)
                if now >= deadline if count is None else len(latencies) >= count:
                    return

        async with asyncio.TaskGroup() as group:
            for wires in self._clients:
                group.create_task(client(wires))
        return turn_of(latencies)


class FloorDriver:
    """Asks the floor's process, which has no HTTP, to write what one operation of the load brings."""

    def __init__(self, port: int, sizes: Sequence[int]) -> None:
        self._port = port
        self._sizes = sizes

    async def prepare(self) -> None:
        await self._ask(-1)

    async def connect(self) -> None:
        """Each turn has a connection of its own."""

    async def drive(self, seconds: float) -> Turn:
        return turn_of(await self._ask(seconds))

    async def _ask(self, seconds: float) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**26)
        writer.write(f"{seconds} {' '.join(map(str, self._sizes))}\n".encode())
        line = await reader.readline()
        writer.close()
        if not line:
            raise LoadError("the floor's process ended")
        return list(map(float, json.loads(line)))


class ZbDriver:
    """Lets zb do its test; a turn is a run."""

    def __init__(self, load: type[zb.Zb], port: int, folder: Path, scale: Scale) -> None:
        self._load = load
        self._address = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._scale = scale

    async def prepare(self) -> None:
        await self._run(zb.CLIENTS)

    async def connect(self) -> None:
        """It connects by itself."""

    async def drive(self, seconds: float) -> Turn:  # noqa: ARG002 it counts requests, not seconds
        return await self._run(self._scale.competitor)

    async def _run(self, requests: int) -> Turn:
        told = await zb.run(self._load.test, self._address, self._folder, requests)
        return Turn(told.requests, told.p50, told.p99)
