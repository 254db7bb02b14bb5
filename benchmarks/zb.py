"""Loads by ``zb``, the benchmark that comes with zot: written by a competitor, run against each registry alike."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.client import LoadError
from benchmarks.loads import Work
from benchmarks.peers import tool
from benchmarks.scale import Scale

MIB = 1024 * 1024
CLIENTS = 4
UNITS = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Zb(Work):
    """One of zb's tests; a run counts all that zb does, preparing and tidying up too, in the server's CPU time."""

    kinds = frozenset({"registry"})
    apart = True  # it makes its load with as many threads as it has cores
    test: ClassVar[str]

    @classmethod
    def needs(cls) -> str | None:
        return None if tool("zb") else "no zb on PATH or in the cache of tools (no package or Go module holds it)"

    @classmethod
    def moved(cls, scale: Scale) -> int:  # noqa: ARG003 always the same
        return MIB


class ZbPush(Zb):
    name, what, test = "zb-push-1m", "zb: images of 1 MiB by POST and PUT, 4 clients", "Push Monolith 1MB"


class ZbChunk(Zb):
    name, what, test = "zb-chunk-1m", "zb: images of 1 MiB by chunks, 4 clients", "Push Chunk Streamed 1MB"


class ZbPull(Zb):
    name, what, test = "zb-pull-1m", "zb: pulls of an image of 1 MiB, 4 clients", "Pull 1MB"


class ZbMixed(Zb):
    name, what = "zb-mixed-1m", "zb: 75 % pulls, 25 % pushes of 1 MiB, 4 clients"
    test = "Pull 75% and Push 25% Mixed 1MB"


LOADS: Sequence[type[Zb]] = (ZbPush, ZbChunk, ZbPull, ZbMixed)


@dataclass(frozen=True, slots=True)
class Summary:
    """What zb says of a test; times are seconds."""

    requests: int
    failed: int
    seconds: float
    p50: float
    p99: float


def parse(text: str) -> Summary:
    """The one test in zb's output; raises ``LoadError`` where it is not told, or in words of zb's own."""

    def value(label: str) -> str:
        found = re.search(rf"^{re.escape(label)}:\s*(\S+)\s*$", text, re.MULTILINE)
        if found is None:
            told = text.strip().splitlines()
            raise LoadError(f"zb names no {label!r}: {' / '.join(told[-3:])[:300]}")
        return found.group(1)

    return Summary(
        requests=int(value("Complete requests")),
        failed=int(value("Failed requests")),
        seconds=seconds_of(value("Time taken for tests")),
        p50=seconds_of(value("p50")),
        p99=seconds_of(value("p99")),
    )


def seconds_of(duration: str) -> float:
    """Seconds of a duration as Go writes it: ``1m2.5s``, ``3.2ms``, ``85µs``; raises ``LoadError``."""
    parts = re.findall(r"([\d.]+)(ns|µs|us|ms|s|m|h)", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise LoadError(f"zb tells a time as {duration!r}")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


async def run(test: str, address: str, folder: Path, requests: int) -> Summary:
    """Let zb do ``test`` against the registry at ``address``, its files in ``folder``; raises ``LoadError``."""
    process = await asyncio.create_subprocess_exec(
        str(tool("zb")),
        *("-c", str(CLIENTS), "-n", str(requests), "-d", str(folder), "-r", "bench/zb", "-t", f"^{test}$", address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await process.communicate()
    except BaseException:
        process.kill()
        raise
    summary = parse(told.decode())
    if summary.failed:
        raise LoadError(f"zb: {summary.failed} of {summary.requests + summary.failed} requests failed")
    return summary
