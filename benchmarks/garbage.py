"""What collecting garbage costs beside distribution's ``garbage-collect``: ``python -m benchmarks.garbage``.

Both hold the same images; a tenth of them is deleted, then both collect in turns, each time from a new copy.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.content import Mint
from benchmarks.peers import Distribution, Place, said, tool
from benchmarks.seeds import LinkSeeds
from moorage.build import registry_of
from moorage.config import load
from moorage.registry.imports import Import
from moorage.spec.digest import compute
from moorage.storage.trees import FolderTree

REPOSITORY = "app"
LAYERS = 9  # and a config, of each image
SIZE = 1024  # bytes of a blob
Spent = tuple[float, float, float]  # seconds, seconds of CPU, MiB at most (0: not known)
_RUN = """
import os, sys, time
started = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status, used = os.wait4(pid, 0)[1:]
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Tree(LinkSeeds):
    """distribution's storage with images whose blobs are their own; ``digests`` are the manifests'."""

    def build(self, images: int) -> list[str]:
        mint, digests = Mint(SIZE), list[str]()
        home = self.root / "docker/registry/v2/repositories" / REPOSITORY
        for n in range(images):
            config, *layers = [mint.blob() for _ in range(LAYERS + 1)]
            described = [
                {"mediaType": f"application/vnd.oci.image.{kind}", "digest": blob.digest, "size": blob.size}
                for blob, kind in ((config, "config.v1+json"), *((layer, "layer.v1.tar") for layer in layers))
            ]
            document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
            for blob in (config, *layers):
                self._link(home / "_layers", self._data(bytes(blob)))
            content = json.dumps(document).encode()
            self.manifests(REPOSITORY, [([f"v{n}"], content)])
            digests.append(compute(content))
        return digests

    def delete(self, images: Sequence[tuple[int, str]]) -> None:
        """What ``DELETE`` of these manifests leaves."""
        home = self.root / "docker/registry/v2/repositories" / REPOSITORY / "_manifests"
        for n, digest in images:
            shutil.rmtree(home / "revisions" / digest.replace(":", "/"))
            shutil.rmtree(home / "tags" / f"v{n}")


def run(*command: str) -> Spent:
    """What a command takes. A small process starts it: the kernel counts its parent's memory as its own at first."""
    done = subprocess.run([sys.executable, "-ISc", _RUN, *command], capture_output=True, text=True, check=True)
    wall, cpu, kib = map(float, done.stderr.splitlines()[-1].split())
    return wall, cpu, kib / 1024


def collected_by_moorage(root: Path) -> Spent:
    command = ("collect", "--grace", "0", "--history", "0", "--root", str(root))
    return run(sys.executable, "-m", "moorage", *command)


def collected_by_distribution(root: Path, folder: Path) -> Spent:
    peer = Distribution()
    binary, _, configuration = peer.command(Place(root, folder, 0))
    return run(binary, "garbage-collect", configuration)


async def imported(tree: Path, root: Path) -> None:
    async with registry_of(load(arguments={"root": str(root)}), housekeeping=False) as registry:
        done = await Import(registry, FolderTree(tree), jobs=16).run()
        if done.problems:
            raise RuntimeError(done.problems[0])


async def deleted(root: Path, digests: Sequence[str]) -> Spent:
    """Delete manifests, and where it is one let the registry that is open collect what it leaves."""
    settings = load(arguments={"root": str(root), "collect_grace": 0, "history_days": 0})
    async with registry_of(settings, housekeeping=False) as registry:
        for digest in digests:
            await registry.manifests.delete(REPOSITORY, digest)
        started, cpu = time.perf_counter(), time.process_time()
        if len(digests) == 1:
            await registry.clean()
        return time.perf_counter() - started, time.process_time() - cpu, 0.0


def copied(source: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def files(root: Path) -> int:
    """How many blobs the storage has."""
    return sum(1 for each in root.rglob("*") if each.is_file() and each.stat().st_size == SIZE)


def measure(scratch: Path, images: int, rounds: int) -> None:
    tree, root = scratch / "tree", scratch / "root"
    digests = Tree(tree).build(images)
    asyncio.run(imported(tree, root))
    garbage = list(enumerate(digests))[::10]
    rows: dict[str, list[Spent]] = {}
    for _ in range(rounds):
        for share in (garbage[:1], garbage):
            gone = len(share) * (LAYERS + 1)
            theirs, ours = copied(tree, scratch / "theirs"), copied(root, scratch / "ours")
            Tree(theirs).delete(share)
            at_once = asyncio.run(deleted(ours, [digest for _, digest in share]))
            if len(share) == 1:
                rows.setdefault(f"a serving moorage, {gone} blobs go", []).append(at_once)
            else:
                rows.setdefault(f"moorage collect, {gone} blobs go", []).append(collected_by_moorage(ours))
            rows.setdefault(f"garbage-collect, {gone} blobs go", []).append(
                collected_by_distribution(theirs, scratch)
            )
            if not files(ours) == files(theirs) == images * (LAYERS + 1) - gone:
                raise RuntimeError(f"{files(ours)} and {files(theirs)} blobs are left")
    version = said(str(tool("registry")), "--version")
    print(f"{images} images, {images * (LAYERS + 1)} blobs, medians of {rounds} rounds; distribution {version}")
    for name, measured in rows.items():
        wall, cpu, memory = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:42} {wall:8.3f} s  {cpu:8.3f} s CPU  {memory:6.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.garbage", description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="where both storages are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        measure(Path(scratch), options.images, options.rounds)


if __name__ == "__main__":
    main()
