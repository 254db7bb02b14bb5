"""``python -m benchmarks``: compare Moorage with its peers; README.md says what the figures mean."""

import argparse
import asyncio
import dataclasses
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import uvloop

from benchmarks.content import MIB
from benchmarks.loads import SMOKE, Load, Scale, all_loads
from benchmarks.peers import PEERS, Peer
from benchmarks.picture import draw
from benchmarks.process import Cores, machine
from benchmarks.report import OURS, Report, table, write_json
from benchmarks.run import Result, run_load

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what was asked for; 1 if anything failed, or if Moorage itself is missing."""
    options = arguments()
    scale = scale_of(options)
    loads = {name: all_loads()[name] for name in options.loads}
    peers, missing = present(options.peers)
    for name, why in missing.items():
        print(f"missing: {name}: {why}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=options.scratch) as scratch:
        report = measured(loads, peers, missing, scale, Path(scratch))
        where = options.output or (Path(scratch) / "smoke" if options.smoke else RESULTS / "bench")
        text = table(report)
        print(text)
        drawn = write(report, text, where)
        if options.smoke:
            look_at(report, where)
    for failure in report.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    unfit = OURS in missing or (options.smoke and not drawn)
    return 1 if report.failures or unfit else 0


def arguments() -> argparse.Namespace:
    loads, peers = list(all_loads()), [peer.name for peer in PEERS]

    def names(known: list[str], what: str, text: str) -> list[str]:
        chosen: list[str] = []
        for pattern in text.split(","):
            found = fnmatch.filter(known, pattern)
            if not found:
                raise argparse.ArgumentTypeError(f"no {what} is called {pattern!r}; there are {', '.join(known)}")
            chosen += [name for name in found if name not in chosen]
        return sorted(chosen, key=known.index)

    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--loads", type=lambda text: names(loads, "load", text), default=loads, metavar="A,B")
    parser.add_argument("--peers", type=lambda text: names(peers, "peer", text), default=peers, metavar="X,Y")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny counts: does every load work? (says nothing of speed)"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each peer at each load (3)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a turn (0.6)")
    parser.add_argument("--tags", type=int, metavar="N", help="tags in the repository whose tags are listed (1000)")
    parser.add_argument("--large", type=int, metavar="MIB", help="size of the blob of 1 GiB, on a small disk")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where the peers' roots are made, on the disk to measure"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="results, without .json (benchmarks/results/bench)"
    )
    return parser.parse_args()


def scale_of(options: argparse.Namespace) -> Scale:
    given = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "tags": options.tags,
        "large": options.large and options.large * MIB,
    }
    return dataclasses.replace(
        SMOKE if options.smoke else Scale(), **{key: value for key, value in given.items() if value is not None}
    )


def present(names: Iterable[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can run here, and why the others cannot."""
    peers: list[Peer] = []
    missing: dict[str, str] = {}
    for peer in (kind() for kind in PEERS if kind.name in names):
        if why := peer.missing():
            missing[peer.name] = why
        else:
            peers.append(peer)
    return peers, missing


def measured(
    loads: dict[str, type[Load]], peers: Sequence[Peer], missing: dict[str, str], scale: Scale, scratch: Path
) -> Report:
    """Run the loads one after the other, this process on its own core."""
    registries = sum(peer.kind == "registry" for peer in peers)
    need = scale.large * (registries + 2) * 2 if any(name.endswith("-1g") for name in loads) else 0
    if (free := shutil.disk_usage(scratch).free) < need:
        sys.exit(f"{scratch} has {free // MIB} MiB free, {need // MIB} are needed; see --large and --scratch")
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {cores.load})
    started, facts = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), machine(scratch)
    results: list[Result] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for load in loads.values():
            print(f"{time.strftime('%H:%M:%S')} {load.name}", file=sys.stderr, flush=True)
            results += runner.run(run_load(load, peers, scale, scratch, cores))
    return Report(
        started=started,
        machine=facts,
        scale=dataclasses.asdict(scale),
        peers={peer.name: {"version": peer.version(), "durability": peer.durability} for peer in peers},
        missing=missing,
        what={load.name: load.what for load in loads.values()},
        results=results,
    )


def write(report: Report, text: str, where: Path) -> bool:
    """The table, the JSON and the picture; False if the picture could not be drawn."""
    where.parent.mkdir(parents=True, exist_ok=True)
    where.with_suffix(".txt").write_text(text)
    write_json(report, where.with_suffix(".json"))
    try:
        draw(report, where.with_suffix(".png"))
    except ImportError as error:
        print(f"no picture: {error} (requirements/bench.txt has what it needs)", file=sys.stderr)
        return False
    print(f"written: {where}.json, .txt, .png", file=sys.stderr)
    return True


def look_at(report: Report, where: Path) -> None:
    """Raise unless what was written holds every result."""
    document = json.loads(where.with_suffix(".json").read_text())
    for one in report.results:
        found = document["loads"][one.load]["peers"][one.peer]
        assert one.failure or one.unsupported or found["samples"], one
    assert OURS in where.with_suffix(".txt").read_text()
    picture = where.with_suffix(".png")
    assert not picture.exists() or picture.read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    sys.exit(main())
