"""containerd and dockerd of this machine's distribution, with state of their own, for as long as the tests run."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.clients.kit import OURS, Done, Home, missing, tool


@dataclass(frozen=True)
class Engines:
    """Both engines; dockerd runs its containers in this containerd."""

    run: Home
    root: Path

    @property
    def socket(self) -> str:
        return f"{self.root}/containerd.sock"

    def docker(self, *arguments: str | Path, check: bool = True, **environment: str) -> Done:
        host = {"DOCKER_HOST": f"unix://{self.root}/docker.sock"}
        return self.run("docker", *arguments, check=check, environment=host | environment)

    def ctr(self, *arguments: str | Path, check: bool = True) -> Done:
        return self.run("ctr", "--address", self.socket, "--namespace", OURS, *arguments, check=check)


@contextmanager
def started(run: Home, root: Path) -> Iterator[Engines]:
    """Start both engines below ``root``; afterwards none of their processes and mounts is left."""
    if os.geteuid() != 0:
        missing("dockerd and containerd need root")
    engines = Engines(run, root)
    root.mkdir()
    (root / "docker.json").write_text("{}")
    (root / "containerd.toml").write_text(
        f'version = 2\nroot = "{root}/containerd"\nstate = "{root}/state"\n'
        # These would need the network, a folder in /opt, or a kind of disk.
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", '
        '"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", '
        '"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]\n'
        f'[grpc]\naddress = "{engines.socket}"\n'
    )
    dockerd = (
        *("dockerd", "--containerd", engines.socket, "--config-file", f"{root}/docker.json"),
        *("--data-root", f"{root}/docker", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/docker.pid"),
        *("--host", f"unix://{root}/docker.sock", "--storage-driver", "vfs", "--cgroup-parent", f"/{OURS}"),
        *("--iptables=false", "--ip6tables=false", "--bridge=none"),
    )
    with ExitStack() as stack:
        stack.callback(_clean, root)
        containerd = ("containerd", "--config", f"{root}/containerd.toml")
        stack.enter_context(_daemon(run, root, containerd, lambda: engines.ctr("version", check=False)))
        stack.enter_context(_daemon(run, root, dockerd, lambda: engines.docker("version", check=False)))
        yield engines


@contextmanager
def _daemon(run: Home, root: Path, command: tuple[str, ...], ask: Callable[[], Done]) -> Iterator[None]:
    """A daemon in the background, from its first answer until it has ended."""
    log = root / f"{command[0]}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            # Not even a test run that is killed leaves it behind.
            [tool("setpriv"), "--pdeathsig", "TERM", tool(command[0]), *command[1:]],
            env=run.variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while "Server:" not in (answer := ask()).out or "connect" in answer.err:
            if process.poll() is not None or time.monotonic() > deadline:
                missing(f"{command[0]} does not run here: {answer.text}\n{log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _clean(root: Path) -> None:
    """End the shims that outlived their engine, and unmount what they left."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if os.fsencode(root) in entry.read_bytes():
                os.kill(int(entry.parent.name), signal.SIGKILL)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)
