"""Runs one load: starts its peers, checks them, and samples them in turns."""

import asyncio
import json
import os
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.client import LoadError, Server, Wire
from benchmarks.content import MIB
from benchmarks.loads import Load, Scale, Target
from benchmarks.peers import Peer
from benchmarks.process import (
    Cores,
    Process,
    core_seconds,
    cpu_seconds,
    forget_peak,
    free_port,
    peak_kib,
    resident_kib,
)
from benchmarks.verbs import Files, Verbs

START_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer's turn at a load."""

    operations: int
    seconds: float
    cpu_seconds: float
    user_seconds: float  # the part of it that was not the kernel's
    others_seconds: float  # what the server's core did besides
    p50: float
    p99: float
    peak_kib: int

    @property
    def cpu(self) -> float:
        """CPU seconds of the server for one operation."""
        return self.cpu_seconds / self.operations

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


@dataclass(slots=True)
class Result:
    """What one peer showed under one load."""

    load: str
    peer: str
    moved: int
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None
    unsupported: str | None = None
    start_seconds: float = 0.0
    idle_kib: int = 0

    def median(self, figure: str) -> float:
        return float(statistics.median(getattr(sample, figure) for sample in self.samples))


class Driver(Protocol):
    """Keeps a running peer busy."""

    async def prepare(self) -> None: ...
    async def connect(self) -> None: ...
    async def drive(self, seconds: float) -> list[float]: ...


@dataclass(slots=True)
class Stand:
    """A running peer with its load."""

    process: Process
    driver: Driver
    result: Result
    root: Path
    core: int

    async def sample(self, seconds: float) -> Sample:
        pid = self.process.pid
        await self.driver.connect()
        forget_peak(pid)
        before, core, started = cpu_seconds(pid), core_seconds(self.core), time.perf_counter()
        latencies = await self.driver.drive(seconds)
        elapsed, after = time.perf_counter() - started, cpu_seconds(pid)
        spent, user = (now - then for now, then in zip(after, before, strict=True))
        latencies.sort()
        return Sample(
            operations=len(latencies),
            seconds=elapsed,
            cpu_seconds=spent,
            user_seconds=user,
            others_seconds=max(0.0, core_seconds(self.core) - core - spent),
            p50=latencies[len(latencies) // 2],
            p99=latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)],
            peak_kib=peak_kib(pid),
        )


class Requests:
    """Clients in a closed loop: each sends its next operation when it has the last one's answer."""

    def __init__(self, load: Load, server: Server) -> None:
        self._load = load
        self._server = server
        self._clients: list[list[Wire]] = []

    async def prepare(self) -> None:
        await self._load.prepare()
        await self.connect()
        await self._load.check(self._clients[0])

    async def connect(self) -> None:
        """Open the connections that are not there: a server may close what was idle during the others' turns."""
        if not self._clients:
            self._clients = [[] for _ in range(self._load.clients)]
        for wires in self._clients:
            wires[:] = [wire for wire in wires if not wire.closed]
            while len(wires) < self._load.wires:
                wires.append(await self._server.open())

    async def drive(self, seconds: float) -> list[float]:
        latencies: list[float] = []
        deadline = time.perf_counter() + seconds
        operate, clock = self._load.operate, time.perf_counter

        async def client(wires: list[Wire]) -> None:
            now = clock()
            while True:
                started = now
                await operate(wires)
                now = clock()
                latencies.append(now - started)
                if now >= deadline:
                    return

        async with asyncio.TaskGroup() as group:
            for wires in self._clients:
                group.create_task(client(wires))
        return latencies


class FloorDriver:
    """Asks the floor's process, which has no HTTP, to write what one operation of the load brings."""

    def __init__(self, port: int, sizes: Sequence[int]) -> None:
        self._port = port
        self._sizes = sizes

    async def prepare(self) -> None:
        await self.drive(-1)

    async def connect(self) -> None:
        """Each turn has a connection of its own."""

    async def drive(self, seconds: float) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**26)
        writer.write(f"{seconds} {' '.join(map(str, self._sizes))}\n".encode())
        line = await reader.readline()
        writer.close()
        if not line:
            raise LoadError("the floor's process ended")
        return list(map(float, json.loads(line)))


async def run_load(
    load: type[Load], peers: Sequence[Peer], scale: Scale, scratch: Path, cores: Cores
) -> list[Result]:
    """Every peer's result; one that cannot do the load or fails at it is in the list with the reason."""
    results: list[Result] = []
    async with AsyncExitStack() as stack:
        stands: list[Stand] = []
        for peer in peers:
            if peer.kind not in load.kinds:
                continue
            result = Result(load.name, peer.name, load.moved(scale), unsupported=peer.unsupported.get(load.name))
            results.append(result)
            if result.unsupported is None:
                with failing(result):
                    stands.append(
                        await stack.enter_async_context(standing(load, peer, result, scale, scratch, cores))
                    )
        for _ in range(min(scale.rounds, load.rounds or scale.rounds)):
            for stand in stands:
                if stand.result.failure is None:
                    forget(stand.root, load.writes(scale))
                    with failing(stand.result):
                        stand.result.samples.append(await stand.sample(scale.seconds))
                    if load.writes(scale):
                        os.sync()  # what one peer left to the kernel must not slow down the next
    return results


def forget(root: Path, sizes: Collection[int]) -> None:
    """Remove large content that was written before, so that its pages are what the next sample writes to.

    A guest whose free memory goes back to the host pays 2 s of CPU for each GiB of page cache that is new to it:
    more than all of the work that is to be measured, and another amount every time.
    """
    large = {size for size in sizes if size >= MIB // 2}
    for path in root.rglob("*") if large else ():
        if path.is_file() and path.stat().st_size in large:
            path.unlink()


class failing:  # noqa: N801 a context manager, read as a word
    """Turn a load that fails into its result's ``failure``; the other peers go on."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, LoadError | OSError):
            self._result.failure = str(error)
            self._result.samples.clear()
            return True
        return False


@asynccontextmanager
async def standing(
    load: type[Load], peer: Peer, result: Result, scale: Scale, scratch: Path, cores: Cores
) -> AsyncIterator[Stand]:
    """The peer on an empty folder, checked and warm; its processes and files are gone afterwards."""
    folder = scratch / f"{load.name}.{peer.name}"
    root, port = folder / "root", free_port()
    root.mkdir(parents=True)
    process = Process(peer.command(root, port), cores.server, folder / "log", peer.environment)
    try:
        await ready(process, port, http=peer.kind != "floor")
        result.start_seconds = time.perf_counter() - process.started
        result.idle_kib = resident_kib(process.pid)
        async with Server(port) as server:
            driver: Driver
            if peer.kind == "floor":
                driver = FloorDriver(port, load.writes(scale))
            else:
                verbs = Verbs(server, await server.open())
                store = Files(root) if peer.kind == "files" else verbs
                driver = Requests(load(Target(peer.kind, server, verbs, store), scale), server)
            await driver.prepare()
            if load.moved(scale) < scale.large and scale.warm:
                await driver.drive(scale.seconds if load.writes(scale) else scale.warm)
            os.sync()
            yield Stand(process, driver, result, root, cores.server)
    except OSError as error:
        raise LoadError(process.ended() or str(error)) from error
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def ready(process: Process, port: int, *, http: bool) -> None:
    """Return at the first answer; raise ``LoadError`` if the process ends or keeps silent."""
    deadline = time.perf_counter() + START_TIMEOUT
    while time.perf_counter() < deadline:
        if why := process.ended():
            raise LoadError(why)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            await asyncio.sleep(0.002)
            continue
        if not http:
            writer.close()
            return
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if answer.startswith(b"HTTP/1.1 ") and answer[9:10] != b"5":
            return
        await asyncio.sleep(0.002)
    raise LoadError(f"no answer within {START_TIMEOUT} s: {process.log.read_text(errors='replace')[-500:]}")
