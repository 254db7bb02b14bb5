"""Real nodes over one PostgreSQL and one SeaweedFS, behind nginx with the configuration that Moorage ships."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.clients.kit import tool
from tests.postgres import Databases
from tests.server import Server, administer, as_environment, free_port

COUNT = 4
SHIPPED = Path(__file__).parents[2] / "deploy" / "compose" / "nginx.conf"


@dataclass
class Nodes:
    """``host`` is the balancer's; each server has a root of its own, as on a machine of its own."""

    host: str
    servers: Sequence[Server]
    settings: Mapping[str, str]
    folder: Path

    @property
    def log(self) -> str:
        """What all of them have printed since they started."""
        return "".join(server.log for server in self.servers)

    def stop(self) -> int:
        """SIGTERM to all; 0 if that is the exit code of each."""
        with ThreadPoolExecutor() as pool:
            return max(pool.map(Server.stop, self.servers))

    def command(self, *arguments: str) -> str:
        """What ``moorage`` says with these arguments and the settings of the nodes; raises where it fails."""
        return administer(self.folder / "administrator", self.settings, *arguments)

    def check(self) -> str:
        """What ``moorage check --full`` says; raises if it finds anything wrong."""
        return self.command("check", "--full")


class Places(Protocol):
    """What gives places for bytes: the settings by name of one that nothing was written to."""

    def place(self) -> Mapping[str, Any]: ...


@contextmanager
def nodes(
    folder: Path,
    postgres: Databases,
    bucket: Places,
    count: int = COUNT,
    *,
    ahead: Mapping[int, str] | None = None,
    **environment: str,
) -> Iterator[Nodes]:
    """``count`` nodes over a database and a place in the bucket of their own, started at once.

    ``ahead``: the number of a node and by how much its clock is ahead, as faketime wants it.
    """
    nginx = tool("nginx")
    database = postgres.make_database()
    settings = {**as_environment(bucket.place()), "MOORAGE_METADATA": database, **environment}
    faked = {number: (tool("faketime"), "--exclude-monotonic", "-f", by) for number, by in (ahead or {}).items()}
    servers = [Server(folder / f"node-{n}", (), settings, faked.get(n, ())) for n in range(count)]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Server.start, servers))
        with _balancer(nginx, folder / "nginx", servers) as host:
            yield Nodes(host, servers, settings, folder)
    finally:
        for server in servers:
            if server.process is not None:
                server.kill()
        postgres.drop(database)


@contextmanager
def _balancer(nginx: str, folder: Path, servers: Sequence[Server]) -> Iterator[str]:
    """``host:port`` of nginx before the servers, which take turns; its configuration is the Compose file's."""
    folder.mkdir(parents=True)
    port = free_port()
    upstream = "".join(f"server {server.host} fail_timeout=1s; " for server in servers)
    text = SHIPPED.read_text()
    for shipped, here in {
        "worker_processes auto;": f"worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;",
        "access_log /dev/stdout;": (
            f"client_body_temp_path {folder}/body; log_format nodes '$upstream_addr \"$request\" $status'; "
            f"access_log {folder}/access.log nodes;"
        ),
        "resolver 127.0.0.11 valid=5s;": f"upstream nodes {{ {upstream} }}",
        "node:8968": "nodes",
        "listen 8080;": f"listen 127.0.0.1:{port};",
    }.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(
        [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
        start_new_session=True,
    )
    host = f"127.0.0.1:{port}"
    try:
        _wait(f"http://{host}/v2/", process, folder / "error.log")
        yield host
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            assert httpx.get(url, trust_env=False).status_code in (200, 401)
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return
