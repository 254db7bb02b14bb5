"""The table, and the JSON that it is made from."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.run import Result

OURS = "moorage"
BUSY = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Everything that a run has found."""

    started: str
    machine: Mapping[str, Any]
    scale: Mapping[str, Any]
    peers: Mapping[str, Mapping[str, str]]  # name → version and durability
    missing: Mapping[str, str]  # name → why
    what: Mapping[str, str]  # load → in words
    results: Sequence[Result]

    @property
    def failures(self) -> list[str]:
        return [f"{one.load}, {one.peer}: {one.failure}" for one in self.results if one.failure]

    def loads(self) -> dict[str, list[Result]]:
        grouped: dict[str, list[Result]] = {}
        for result in self.results:
            grouped.setdefault(result.load, []).append(result)
        return grouped

    def document(self) -> dict[str, Any]:
        """The run as JSON has it: every sample, and the medians and ratios that the table shows."""
        return {
            "started": self.started,
            "machine": dict(self.machine),
            "scale": dict(self.scale),
            "peers": {name: dict(facts) for name, facts in self.peers.items()},
            "missing": dict(self.missing),
            "loads": {
                load: {"what": self.what[load], "peers": {one.peer: figures(one, group) for one in group}}
                for load, group in self.loads().items()
            },
        }


def figures(result: Result, group: Sequence[Result]) -> dict[str, Any]:
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
        "start_seconds": result.start_seconds,
        "idle_kib": result.idle_kib,
    }
    if result.moved >= 1_000_000:
        found["cpu_seconds_per_gb"] = result.median("cpu") * 1e9 / result.moved
    if ours := next((one for one in group if one.peer == OURS and one.samples), None):
        found["cpu_ratio"] = ratio(result.median("cpu"), ours.median("cpu"))
        found["rate_ratio"] = ratio(result.median("rate"), ours.median("rate"))
    found["samples"] = [
        dataclasses.asdict(sample) | {"cpu": sample.cpu, "rate": sample.rate} for sample in result.samples
    ]
    return found


def ratio(theirs: float, ours: float) -> float | None:
    """None where ours is too little for the clock to see."""
    return theirs / ours if ours else None


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.document(), indent=1) + "\n")


def table(report: Report) -> str:
    """For each load what each peer needs, and how that compares with Moorage (above 1: theirs is more)."""
    lines = [f"{key}: {value}" for key, value in report.machine.items()]
    lines += ["", "peers, and what each makes durable before it answers:"]
    lines += [f"  {name:<16} {facts['version']} - {facts['durability']}" for name, facts in report.peers.items()]
    lines += [f"  {name:<16} MISSING: {why}" for name, why in report.missing.items()]
    header = ("", "CPU/op", "CPU/GB", "op/s", "p50", "p99", "peak MiB", "CPU ratio", "op/s ratio")
    for load, group in report.loads().items():
        rows = [header, *(row(result, group) for result in group)]
        full = [cells for cells in rows if len(cells) == len(header)]
        widths = [max(len(cells[column]) for cells in full) for column in range(len(header))]
        lines += ["", f"{load}: {report.what[load]}"]
        for cells in rows:
            padded = [
                cells[0].ljust(18),
                *(cell.rjust(max(w, 9)) for cell, w in zip(cells[1:], widths[1:], strict=False)),
            ]
            lines.append(("  " + " ".join(padded)).rstrip() if cells in full else f"  {cells[0]:<18} {cells[1]}")
    lines += ["", *summary(report)]
    return "\n".join(lines) + "\n"


def row(result: Result, group: Sequence[Result]) -> tuple[str, ...]:
    found = figures(result, group)
    if why := found.get("unsupported"):
        return result.peer, f"not supported: {why}"
    if why := found.get("failure"):
        return result.peer, f"FAILED: {why}"
    per_gb = found.get("cpu_seconds_per_gb")
    return (
        result.peer,
        duration(found["cpu_seconds_per_operation"]),
        "" if per_gb is None else f"{per_gb:.2f} s",
        f"{found['operations_per_second']:,.{0 if found['operations_per_second'] >= 100 else 2}f}",
        duration(found["p50_seconds"]),
        duration(found["p99_seconds"]),
        f"{found['peak_kib'] / 1024:.0f}",
        times(found.get("cpu_ratio")),
        times(found.get("rate_ratio")),
    )


def summary(report: Report) -> list[str]:
    """One line for each peer: how quickly it starts, and what it holds while it is idle."""
    lines = ["start to first answer, memory while idle (medians over all loads):"]
    for peer in report.peers:
        seen = [one for one in report.results if one.peer == peer and one.start_seconds]
        if seen:
            start = statistics.median(one.start_seconds for one in seen)
            idle = statistics.median(one.idle_kib for one in seen)
            lines.append(f"  {peer:<18} {duration(start):>9} {idle / 1024:6.0f} MiB")
    return [*lines, "", *quiet(report)]


def quiet(report: Report) -> list[str]:
    """Whether the machine had time for the benchmark."""
    shares = sorted(s.others_seconds / s.seconds for one in report.results for s in one.samples)
    if not shares:
        return []
    share = statistics.median(shares)
    lines = [
        f"other work on the server's core: {share:.0%} of the time (median of all turns), {shares[-1]:.0%} at most"
    ]
    if share > BUSY:
        lines.append("THE MACHINE WAS BUSY: rates and latencies mean little, CPU figures less than they should.")
    return lines


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} x"


def duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds:.2f} s"
