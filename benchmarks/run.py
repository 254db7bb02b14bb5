"""Runs one load: starts its peers, checks them, and samples them in turns."""

import asyncio
import os
import re
import shutil
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import LoadError, Server
from benchmarks.content import MIB
from benchmarks.drivers import Driver, FloorDriver, Requests, Turn, ZbDriver
from benchmarks.loads import Load, Target, Work
from benchmarks.peers import Certificate, Peer, Place
from benchmarks.process import (
    Cores,
    Process,
    core_seconds,
    cpu_seconds,
    forget_peak,
    free_port,
    own_seconds,
    peak_kib,
    resident_kib,
)
from benchmarks.scale import Scale
from benchmarks.start import Start
from benchmarks.verbs import Files, Verbs
from benchmarks.zb import Zb

START_TIMEOUT = 20.0
SLOW = 5  # times as long as asked for


@dataclass(frozen=True, slots=True)
class Stage:
    """What all loads of a table have in common."""

    scale: Scale
    scratch: Path  # on the disk that is measured
    memory: Path  # for what is only read, and from the page cache anyway
    cores: Cores
    certificate: Certificate | None

    @property
    def workers(self) -> int:
        return len(self.cores.server)

    def tls(self) -> ssl.SSLContext | None:
        return None if self.certificate is None else ssl.create_default_context(cafile=self.certificate.chain)


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer's turn at a load."""

    operations: int
    seconds: float
    cpu_seconds: float
    user_seconds: float  # the part of it that was not the kernel's
    others_seconds: float  # what the server's cores did besides, for neither server nor load
    p50: float
    p99: float
    peak_kib: int
    resident_kib: int  # at the end of the turn

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


class Meter:
    """Measures what a process tree uses from here on."""

    def __init__(self, pid: int, cores: Cores) -> None:
        self._pid = pid
        self._cores = cores
        self._before = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        """CPU time: the server's, the user's part of it, the server's cores', and what was the load's there."""
        load = own_seconds() if self._cores.load & self._cores.server else 0.0
        return *cpu_seconds(self._pid), core_seconds(self._cores.server), load

    def sample(self, turn: Turn, elapsed: float) -> Sample:
        spent, user, worked, load = (now - then for now, then in zip(self._now(), self._before, strict=True))
        return Sample(
            operations=turn.operations,
            seconds=elapsed,
            cpu_seconds=spent,
            user_seconds=user,
            others_seconds=max(0.0, worked - spent - load),
            p50=turn.p50,
            p99=turn.p99,
            peak_kib=peak_kib(self._pid),
            resident_kib=resident_kib(self._pid),
        )


@dataclass(slots=True)
class Stand:
    """A running peer with its load."""

    process: Process
    driver: Driver
    result: Result
    root: Path
    cores: Cores
    aside: bool

    def slow(self, scale: Scale) -> bool:
        """Whether one turn has to be enough; large blobs take long with every peer, so they have all turns."""
        samples = self.result.samples
        large = self.result.moved >= scale.large
        return bool(samples) and samples[0].seconds > SLOW * scale.seconds and (self.aside or not large)

    async def sample(self, seconds: float) -> Sample:
        await self.driver.connect()
        forget_peak(self.process.pid)
        meter, started = Meter(self.process.pid, self.cores), time.perf_counter()
        turn = await self.driver.drive(seconds)
        return meter.sample(turn, time.perf_counter() - started)


async def run_load(load: type[Work], peers: Sequence[Peer], stage: Stage) -> list[Result]:
    """Every peer's result; one that cannot do the load or fails at it is in the list with the reason."""
    scale, lack = stage.scale, load.needs()
    among = load.among(peers, scale)
    results = [
        Result(load.name, peer.name, load.moved(scale), unsupported=lack or peer.lacks(load.name)) for peer in among
    ]
    able = [(peer, result) for peer, result in zip(among, results, strict=True) if result.unsupported is None]
    if issubclass(load, Start):
        await run_starts(able, stage)
        return results
    async with AsyncExitStack() as stack:
        stands: list[Stand] = []
        for peer, result in able:
            with failing(result):
                stands.append(await stack.enter_async_context(standing(load, peer, result, stage)))
        counted = load.operations(scale) is not None  # then the turn's length says nothing
        for _ in range(load.rounds(scale)):
            for stand in stands:
                if stand.result.failure is None and (counted or not stand.slow(scale)):
                    if load.forgets:
                        forget(stand.root, load.leaves(scale))
                    with failing(stand.result):
                        stand.result.samples.append(await stand.sample(scale.seconds))
                    if load.writes(scale):
                        os.sync()  # what one peer left to the kernel must not slow down the next
    return results


async def run_starts(able: Sequence[tuple[Peer, Result]], stage: Stage) -> None:
    """A turn is a start: its operation ends with the first answer."""
    for _ in range(Start.rounds(stage.scale)):
        for peer, result in able:
            with failing(result):
                async with started(Start, peer, stage) as (process, _):
                    elapsed = time.perf_counter() - process.started
                    spent, user = cpu_seconds(process.pid)
                    held = resident_kib(process.pid)
                    result.samples.append(Sample(1, elapsed, spent, user, 0.0, elapsed, elapsed, held, held))


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
async def started(load: type[Work], peer: Peer, stage: Stage) -> AsyncIterator[tuple[Process, Place]]:
    """The peer after its first answer; its processes and files are gone afterwards, but for what was seeded."""
    folder = stage.scratch / plain(f"{load.name} {peer.name}")
    folder.mkdir()
    try:
        place = Place(
            root=await root_of(load, peer, stage, folder),
            folder=folder,
            port=free_port(),
            workers=stage.workers,
            certificate=stage.certificate if load.tls else None,
            accounts=load.accounts,
        )
        command, environment = peer.command(place), peer.environment(place)
        process = Process(command, stage.cores.server, folder / "log", environment)
        try:
            await ready(process, place.port, stage.tls() if load.tls else None, http=peer.kind != "floor")
            yield process, place
        except OSError as error:
            raise LoadError(process.ended() or str(error)) from error
        finally:
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def root_of(load: type[Work], peer: Peer, stage: Stage, folder: Path) -> Path:
    """An empty folder, or the one that holds what the load reads, which is made once."""
    if not (load.seeded and peer.seeds):
        root = folder / "root"
        root.mkdir()
        return root
    owner = peer.seeds.__name__ if peer.seeds.shared else peer.name
    root = (stage.memory if peer.seeds.scattered else stage.scratch) / plain(
        f"seeds {load.seed.__qualname__} {owner}"
    )
    if not root.exists():
        root.mkdir()
        await asyncio.to_thread(load.seed, peer.seeds(root), peer.scale(stage.scale))
        os.sync()
    return root


def plain(name: str) -> str:
    """``name`` as that of a folder."""
    return re.sub(r"[^\w-]+", "-", name)


@asynccontextmanager
async def standing(load: type[Work], peer: Peer, result: Result, stage: Stage) -> AsyncIterator[Stand]:
    """The peer, checked and warm."""
    scale = peer.scale(stage.scale)
    async with started(load, peer, stage) as (process, place):
        result.start_seconds = time.perf_counter() - process.started
        result.idle_kib = resident_kib(process.pid)
        async with Server(place.port, stage.tls() if load.tls else None) as server:
            driver: Driver
            if peer.kind == "floor":
                driver = FloorDriver(place.port, load.writes(scale))
            elif issubclass(load, Zb):
                driver = ZbDriver(load, place.port, place.folder / "zb", scale)
            else:
                assert issubclass(load, Load)
                verbs = Verbs(server, await server.open())
                store = Files(place.root) if peer.kind == "files" else verbs
                driver = Requests(load(Target(peer.kind, server, verbs, store), scale), server)
            await driver.prepare()
            if load.moved(scale) < scale.large and scale.warm and not issubclass(load, Zb):
                await driver.drive(scale.seconds if load.writes(scale) else scale.warm)
            os.sync()
            yield Stand(process, driver, result, place.root, stage.cores, peer.aside)


async def ready(process: Process, port: int, tls: ssl.SSLContext | None, *, http: bool) -> None:
    """Return at the first answer; raise ``LoadError`` if the process ends or keeps silent."""
    deadline = time.perf_counter() + START_TIMEOUT
    while time.perf_counter() < deadline:
        if why := process.ended():
            raise LoadError(why)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
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
