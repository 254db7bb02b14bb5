"""The limit for writes: SHA-256, write and fsync of the same bytes in one process; ``run`` asks it over a socket."""

import hashlib
import json
import os
import socket
import sys
import time
from pathlib import Path

from benchmarks.content import Blob, Mint


def main() -> None:
    """Answer each line ``SECONDS SIZE...`` with the latencies of as many operations as fit in that time."""
    root, port = Path(sys.argv[1]), int(sys.argv[2])
    mints: dict[int, Mint] = {}
    folder = os.open(root, os.O_RDONLY)
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            peer, _ = server.accept()
            with peer, peer.makefile("rw") as lines:
                for line in lines:
                    seconds, *sizes = line.split()
                    lines.write(
                        json.dumps(operate(root, folder, mints, float(seconds), list(map(int, sizes)))) + "\n"
                    )
                    lines.flush()


def operate(root: Path, folder: int, mints: dict[int, Mint], seconds: float, sizes: list[int]) -> list[float]:
    """Run until ``seconds`` are over, at least once; a negative time makes the content and writes nothing."""
    latencies: list[float] = []
    for size in sizes:
        if size not in mints:
            mints[size] = Mint(size)
    if seconds < 0:
        return latencies
    deadline = time.perf_counter() + seconds
    while True:
        blobs = [mints[size].blob() for size in sizes]
        started = time.perf_counter()
        for blob in blobs:
            write(root, folder, blob)
        now = time.perf_counter()
        latencies.append(now - started)
        if now >= deadline:
            return latencies


def write(root: Path, folder: int, blob: Blob) -> None:
    """Make a blob durable under its digest, as a registry has to."""
    state = hashlib.sha256()
    temporary = root / "temporary"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for piece in blob.pieces:
            state.update(piece)
            os.write(file, piece)
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(temporary, root / state.hexdigest())  # noqa: PTH104 the system call, nothing around it
    os.fsync(folder)


if __name__ == "__main__":
    main()
