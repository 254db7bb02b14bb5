"""``python -m benchmarks``: compare Moorage with its peers; README.md says what the figures mean."""

import argparse
import asyncio
import compileall
import dataclasses
import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import uvloop

import moorage
from benchmarks.content import MIB
from benchmarks.loads import Work, all_loads
from benchmarks.peers import PEERS, Peer, certificate
from benchmarks.picture import draw
from benchmarks.process import Cores, machine
from benchmarks.report import ONE, OURS, TWO, Document, entry, failures, merged, read_json, table, write_json
from benchmarks.run import Stage, run_load
from benchmarks.scale import SMOKE, Scale
from benchmarks.summary import in_block, sizing, summary

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
SMOKE_TWO = {"manifest-get-tag", "blob-put-4k", "image-push"}  # enough to see that two cores work


def main() -> int:
    """Run what was asked for; 1 if anything failed, or if Moorage itself is missing."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else servers and files would stay
    options = arguments()
    compileall.compile_dir(Path(moorage.__file__).parent, quiet=1)  # as pip does; PYTHONDONTWRITEBYTECODE or not
    peers, missing = present(options.peers)
    for name, why in missing.items():
        print(f"missing: {name}: {why}", file=sys.stderr)
    with ExitStack() as stack:
        scratch, memory = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=folder))
            for folder in (options.scratch, memory_folder(options.scratch))
        )
        whole = len(options.peers) == len(PEERS) and not options.smoke
        where = options.output or (RESULTS / "bench" if whole else Path(scratch) / "results")
        document = measured(options, peers, missing, Path(scratch), Path(memory), where)
        drawn = pictured(document, where)
        print(table(document))
        print(summary(document))
        if options.smoke:
            look_at(document, where)
    for failure in failures(document):
        print(f"FAILED: {failure}", file=sys.stderr)
    unfit = OURS in missing or (options.smoke and not drawn)
    return 1 if failures(document) or unfit else 0


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
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a turn (0.4)")
    parser.add_argument("--tags", type=int, metavar="N", help="tags in the repository whose tags are listed (100000)")
    parser.add_argument("--cores", choices=(ONE, TWO), help="only this table")
    parser.add_argument("--requests", type=int, metavar="N", help="requests of the load endurance (1000000)")
    parser.add_argument("--large", type=int, metavar="MIB", help="size of the blob of 1 GiB, on a small disk")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where the peers' roots are made, on the disk to measure"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="results, without .json (benchmarks/results/bench, if all peers run)",
    )
    return parser.parse_args()


def scale_of(options: argparse.Namespace) -> Scale:
    given = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "tags": options.tags,
        "requests": options.requests,
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
    options: argparse.Namespace,
    peers: Sequence[Peer],
    missing: dict[str, str],
    scratch: Path,
    memory: Path,
    where: Path,
) -> Document:
    """Run the loads one after the other; what is known is written after each, so that a run can be taken up again."""
    scale = scale_of(options)
    check_room(options.loads, peers, scale, scratch)
    document: Document = {
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine(scratch),
        "scale": dataclasses.asdict(scale),
        "peers": {peer.name: {"version": peer.version(), "durability": peer.durability} for peer in peers},
        "missing": missing,
        "tables": {ONE: {}, TWO: {}},
    }
    document = merged(read_json(where.with_suffix(".json")), document, all_loads())
    for name, loads in plan(options).items():
        cores = Cores.apart() if name == ONE else Cores.shared()
        stage = Stage(halved(scale) if name == TWO else scale, scratch, memory, cores, certificate(scratch))
        usable = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores.load)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for load in loads:
                print(f"{time.strftime('%H:%M:%S')} {load.name}, {name}", file=sys.stderr, flush=True)
                results = runner.run(run_load(load, [peer for peer in peers if name == ONE or not peer.aside], stage))
                found = entry(load.what, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), revision(), results)
                document = merged(document, document | {"tables": {name: {load.name: found}}}, all_loads())
                write(document, where)
        os.sched_setaffinity(0, usable)
    return document


def plan(options: argparse.Namespace) -> dict[str, list[type[Work]]]:
    """The loads of each table."""
    loads = [all_loads()[name] for name in options.loads]
    both = [load for load in loads if not load.apart and (not options.smoke or load.name in SMOKE_TWO)]
    tables = {ONE: loads, TWO: both if len(os.sched_getaffinity(0)) > 1 else []}
    return {name: found for name, found in tables.items() if options.cores in {None, name}}


def halved(scale: Scale) -> Scale:
    """The table of two cores is the second one: fewer and shorter turns of it say enough."""
    return dataclasses.replace(scale, rounds=max(1, scale.rounds - 1), seconds=scale.seconds * 0.75)


def memory_folder(otherwise: Path | None) -> Path | None:
    """A file system in memory, if there is one with room."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() and shutil.disk_usage(folder).free > 2 * 1024 * MIB else otherwise


def check_room(loads: Sequence[str], peers: Sequence[Peer], scale: Scale, scratch: Path) -> None:
    registries = sum(peer.kind == "registry" for peer in peers)
    need = scale.large * (registries + 2) * 2 if any(name.endswith("-1g") for name in loads) else 0
    if (free := shutil.disk_usage(scratch).free) < need:
        sys.exit(f"{scratch} has {free // MIB} MiB free, {need // MIB} are needed; see --large and --scratch")


def revision() -> str:
    """The commit that is measured, where the code lies in a git work tree."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "of no known commit"


def write(document: Document, where: Path) -> None:
    """JSON, table, summary, and the figures of the page."""
    where.parent.mkdir(parents=True, exist_ok=True)
    write_json(document, where.with_suffix(".json"))
    where.with_suffix(".txt").write_text(table(document))
    (where.parent / "summary.md").write_text(summary(document))
    if where.resolve().parent == RESULTS.resolve():
        page = in_block(PAGE.read_text("utf-8"), "figures", summary(document))
        PAGE.write_text(in_block(page, "sizing", sizing(document)), "utf-8")


def pictured(document: Document, where: Path) -> bool:
    """Draw the picture; False if that cannot be done."""
    try:
        draw(document, where.with_suffix(".png"))
    except ImportError as error:
        print(f"no picture: {error} (requirements/bench.txt has what it needs)", file=sys.stderr)
        return False
    return True


def look_at(document: Document, where: Path) -> None:
    """Raise unless what was written holds every result."""
    assert read_json(where.with_suffix(".json"))["tables"] == document["tables"]
    for entries in document["tables"].values():
        for load, one in entries.items():
            assert one["peers"], load
            for peer, found in one["peers"].items():
                assert found.get("failure") or found.get("unsupported") or found["samples"], (load, peer)
    assert OURS in where.with_suffix(".txt").read_text()
    assert "| manifest GET by tag |" in (where.parent / "summary.md").read_text()
    picture = where.with_suffix(".png")
    assert not picture.exists() or picture.read_bytes().startswith(b"\x89PNG")


if __name__ == "__main__":
    sys.exit(main())
