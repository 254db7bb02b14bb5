"""The document that a run leaves (as JSON, with every sample), and the table that is made from it."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.run import Result

OURS = "moorage"
ONE, TWO = "one core", "two cores"  # the tables: one core each for server and load, two for both together
BUSY = 0.1

Document = dict[str, Any]
Entry = dict[str, Any]  # of a load in a table: "what", "measured", "revision", "peers" → figures


def entry(what: str, measured: str, revision: str, results: Sequence[Result]) -> Entry:
    """What a load has shown."""
    return {
        "what": what,
        "measured": measured,
        "revision": revision,
        "peers": {one.peer: figures(one, results) for one in results},
    }


def figures(result: Result, group: Sequence[Result]) -> dict[str, Any]:
    """A peer's medians, their ratios to Moorage's (or to the first of a load that has Moorage alone), its samples."""
    if result.unsupported is not None:
        return {"unsupported": result.unsupported}
    if result.failure is not None:
        return {"failure": result.failure}
    found: dict[str, Any] = {
        "cpu_seconds_per_operation": result.median("cpu"),
        "operations_per_second": result.median("rate"),
        "p50_seconds": result.median("p50"),
        "p99_seconds": result.median("p99"),
        "peak_kib": result.median("peak_kib"),
        "idle_kib": result.idle_kib,
    }
    if result.moved >= 1_000_000:
        found["cpu_seconds_per_gb"] = result.median("cpu") * 1e9 / result.moved
    alone = all(one.peer != OURS for one in group)
    if base := next((one for one in group if one.samples and (alone or one.peer == OURS)), None):
        found["cpu_ratio"] = ratio(result.median("cpu"), base.median("cpu"))
        found["rate_ratio"] = ratio(result.median("rate"), base.median("rate"))
    found["samples"] = [
        dataclasses.asdict(sample) | {"cpu": sample.cpu, "rate": sample.rate} for sample in result.samples
    ]
    return found


def ratio(theirs: float, ours: float) -> float | None:
    """None where ours is too little for the clock to see."""
    return theirs / ours if ours else None


def merged(old: Document, new: Document, order: Iterable[str]) -> Document:
    """``new``, and the loads of ``old`` that it lacks, in the order of the table."""
    tables: dict[str, dict[str, Entry]] = {}
    for name in (ONE, TWO):
        entries = old.get("tables", {}).get(name, {}) | new["tables"].get(name, {})
        tables[name] = {load: entries[load] for load in order if load in entries}
    peers = old.get("peers", {}) | new["peers"]
    missing = {
        name: why for name, why in (old.get("missing", {}) | new["missing"]).items() if name not in new["peers"]
    }
    return new | {"tables": tables, "peers": peers, "missing": missing}


def read_json(path: Path) -> Document:
    """The document of an earlier run; empty if there is none."""
    document: Document = json.loads(path.read_text()) if path.exists() else {}
    return document if "tables" in document else {}


def write_json(document: Document, path: Path) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


def each(document: Document) -> Iterator[tuple[str, str, Entry]]:
    """Every load with its table and its entry."""
    for table_name, entries in document["tables"].items():
        for load, found in entries.items():
            yield table_name, load, found


def failures(document: Document) -> list[str]:
    return [
        f"{load}, {table_name}, {peer}: {found['failure']}"
        for table_name, load, one in each(document)
        for peer, found in one["peers"].items()
        if "failure" in found
    ]


def table(document: Document) -> str:
    """For each load what each peer needs, and how that compares with Moorage (above 1: theirs is more)."""
    lines = [f"{key}: {value}" for key, value in document["machine"].items()]
    lines += ["", "peers, and what each makes durable before it answers:"]
    lines += [f"  {name:<16} {facts['version']} - {facts['durability']}" for name, facts in document["peers"].items()]
    lines += [f"  {name:<16} MISSING: {why}" for name, why in document["missing"].items()]
    about = {
        ONE: "ONE CORE: the server on one core, the load on the other",
        TWO: "TWO CORES: two workers of the server, and the load, on the same two cores",
    }
    for name, entries in document["tables"].items():
        if entries:
            lines += ["", "", about[name]]
        for load, found in entries.items():
            lines += ["", f"{load}: {found['what']}", *rows(found["peers"])]
    return "\n".join([*lines, "", *quiet(document)]) + "\n"


def rows(peers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    header = ("", "CPU/op", "CPU/GB", "op/s", "p50", "p99", "peak MiB", "CPU ratio", "op/s ratio")
    cells = [header, *(row(peer, found) for peer, found in peers.items())]
    full = [one for one in cells if len(one) == len(header)]
    widths = [max(9, *(len(one[column]) for one in full)) for column in range(len(header))]
    for one in cells:
        if len(one) < len(header):
            yield f"  {one[0]:<18} {one[1]}"
            continue
        padded = (cell.rjust(width) for cell, width in zip(one[1:], widths[1:], strict=True))
        yield "  " + " ".join([one[0].ljust(18), *padded])


def row(peer: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    if why := found.get("unsupported"):
        return peer, f"not supported: {why}"
    if why := found.get("failure"):
        return peer, f"FAILED: {why}"
    per_gb, rate = found.get("cpu_seconds_per_gb"), found["operations_per_second"]
    return (
        peer,
        duration(found["cpu_seconds_per_operation"]),
        "" if per_gb is None else f"{per_gb:.2f} s",
        f"{rate:,.{0 if rate >= 100 else 2}f}",
        duration(found["p50_seconds"]),
        duration(found["p99_seconds"]),
        f"{found['peak_kib'] / 1024:.0f}",
        times(found.get("cpu_ratio")),
        times(found.get("rate_ratio")),
    )


def quiet(document: Document) -> list[str]:
    """Whether the machine had time for the benchmark."""
    shares = sorted(
        sample["others_seconds"] / sample["seconds"]
        for _, _, one in each(document)
        for found in one["peers"].values()
        for sample in found.get("samples", ())
    )
    if not shares:
        return []
    share = statistics.median(shares)
    lines = [
        f"other work on the server's cores: {share:.0%} of a core (median of all turns), {shares[-1]:.0%} at most"
    ]
    if share > BUSY:
        lines.append("THE MACHINE WAS BUSY: rates and latencies mean little, CPU figures less than they should.")
    return lines


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} x" if value >= 0.1 else f"{value:.2g} x"


def duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds:.2f} s"
