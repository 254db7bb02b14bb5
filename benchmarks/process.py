"""What the kernel knows of a server's processes: CPU time, memory, and on which core they run."""

import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores serve and which make the load."""

    server: frozenset[int]
    load: frozenset[int]

    @classmethod
    def apart(cls) -> Self:
        """The first core for the server and the last for the load; one core alone has to do both."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(frozenset(usable[:1]), frozenset(usable[-1:]))

    @classmethod
    def shared(cls) -> Self:
        """Two cores for the server, and the same two for the load."""
        usable = sorted(os.sched_getaffinity(0))
        both = frozenset({usable[0], usable[-1]})
        return cls(both, both)


def tree(pid: int) -> list[int]:
    """``pid`` and every process below it that is alive."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(map(int, task.read_text().split()))
            except (FileNotFoundError, ProcessLookupError):
                continue  # a thread that ended in between
    return found


def cpu_seconds(pid: int) -> tuple[float, float]:
    """CPU time of the process tree so far, children that have ended included: all of it, and the user's part."""
    ticks = user = 0
    for one in tree(pid):
        # The command's name is in parentheses and may hold spaces; the fields are counted after it.
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        utime, stime, cutime, cstime = map(int, fields[11:15])
        ticks += utime + stime + cutime + cstime
        user += utime + cutime
    return ticks / TICK, user / TICK


def core_seconds(cores: Collection[int]) -> float:
    """How long these cores have worked so far, for whomever, added up."""
    worked = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            worked += user + nice + system + irq + softirq + steal
    return worked / TICK


def own_seconds() -> float:
    """CPU time of this process and of the programs that it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def forget_peak(pid: int) -> None:
    """Let the peak of memory start from what is in use now."""
    for one in tree(pid):
        Path(f"/proc/{one}/clear_refs").write_text("5")


def peak_kib(pid: int) -> int:
    """The most memory that the processes had resident since ``forget_peak``, added up."""
    return sum(status_kib(one, "VmHWM") for one in tree(pid))


def resident_kib(pid: int) -> int:
    return sum(status_kib(one, "VmRSS") for one in tree(pid))


def status_kib(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


class Process:
    """A server pinned to its cores, with its output in a file; ended with all its children."""

    def __init__(self, command: list[str], cores: Collection[int], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.started = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, sorted(cores))), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def ended(self) -> str | None:
        """Why the process is gone (its last output), or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"ended with {code}: {self.log.read_text(errors='replace')[-500:].strip()}"

    def stop(self) -> None:
        """End the server and its children at once: nobody needs what it has stored."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine(scratch: Path) -> dict[str, str | int]:
    """What a reader of the figures must know of the machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    kind = subprocess.run(
        ["df", "--output=fstype", str(scratch)], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    return {
        "cpu": model,
        "cores": os.cpu_count() or 0,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": kind,
        "load_before": f"{os.getloadavg()[0]:.2f}",
    }
