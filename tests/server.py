"""A real server in a process of its own, for tests that go through the door."""

import os
import queue
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

READY = re.compile(r"https?://[^\s/]+")
CI = bool(os.environ.get("CI"))


class Bytes:
    """Where bytes are instead of the root or memory; ``--store`` and ``--redirect`` say so for the whole run."""

    place: Callable[..., dict[str, Any]] = staticmethod(lambda **_: {})
    _places: ClassVar[dict[Path, dict[str, Any]]] = {}

    @classmethod
    def of(cls, root: Path) -> dict[str, Any]:
        """The settings by name that go with ``root``, the same each time."""
        return cls._places.setdefault(root, cls.place())

    @classmethod
    def variables(cls, root: Path) -> dict[str, str]:
        """The same as variables."""
        return as_environment(cls.of(root))


def as_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The variables that stand for settings."""
    return {
        f"MOORAGE_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }


def environment_of(root: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process over ``root``, and ``more``; none of those that this machine has for a registry."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    return {**inherited, **Bytes.variables(root), **more}


def administer(root: Path, settings: Mapping[str, str], *arguments: str) -> str:
    """What ``moorage`` prints; raises with all that it said where it fails."""
    command = [sys.executable, "-m", "moorage", *arguments]
    environment = {**environment_of(root, settings), "MOORAGE_ROOT": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    """A port that no client's own end of a connection takes while nobody listens there."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    except FileNotFoundError:  # not Linux: those of IANA are used
        first = 49_152
    most = min(first, 32_000) if first > 11_000 else 32_000  # where nearly all are clients', one of them has to do
    while True:
        port = random.randrange(10_000, most)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Serving(Protocol):
    """What clients speak to at ``host``: one server, or several nodes behind a balancer."""

    @property
    def host(self) -> str: ...
    @property
    def log(self) -> str: ...
    def stop(self) -> int: ...
    def command(self, *arguments: str) -> str: ...


@dataclass
class Server:
    """``moorage serve`` on a free port over ``root``; it can be killed, stopped and started again."""

    root: Path
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    through: Sequence[str] = ()  # a command that runs it
    port: int = field(default_factory=free_port)  # the same when it starts again
    url: str = ""
    output: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def start(self, timeout: float = 30.0) -> Self:
        """Start the server and return once it has printed its URL; raises with its output if it ends first."""
        self.output.clear()
        command = [
            *self.through,
            sys.executable,
            "-m",
            "moorage",
            "serve",
            "--port",
            str(self.port),
            "--root",
            str(self.root),
        ]
        self.process = subprocess.Popen(
            [*command, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment_of(self.root, {**self.environment, "PYTHONUNBUFFERED": "1"}),
            start_new_session=True,
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, lines), daemon=True).start()
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise TimeoutError(f"no URL within {timeout} s: {''.join(self.output)}") from None
            if line is None:
                raise RuntimeError(f"the server ended with {self.process.wait()}: {''.join(self.output)}")
            if found := READY.search(line):
                self.url = found.group()
                return self

    def _read(self, process: subprocess.Popen[str], lines: "queue.Queue[str | None]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line)
            lines.put(line)
        process.stdout.close()
        lines.put(None)

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as clients want it in a reference."""
        return self.url.partition("://")[2]

    @property
    def log(self) -> str:
        """All that the server has printed since it started."""
        return "".join(self.output)

    def command(self, *arguments: str) -> str:
        """What ``moorage`` says with these arguments over the same root; raises where it fails."""
        return administer(self.root, self.environment, *arguments)

    def kill(self) -> None:
        """SIGKILL to the server and all its workers, as a power cut would."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, and the exit code; raises ``TimeoutExpired`` if the server does not end in time."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()


@contextmanager
def running(root: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """A server over ``root`` for the length of the block."""
    server = Server(root, arguments, environment).start()
    try:
        yield server
    finally:
        server.kill()
