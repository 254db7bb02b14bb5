"""The servers that are compared, each started with equal settings: deletion on, no access log, loopback, one core."""

import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage-ci" / "bin"


def tool(name: str) -> Path | None:
    """An executable on PATH, else among the tools that CI builds."""
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    return Path(found) if found else None


class Peer(ABC):
    """A server that can be started over an empty folder; ``missing`` says why it cannot be had here."""

    name: ClassVar[str]
    kind: ClassVar[str] = "registry"  # or "files" (reads only), or "floor" (writes only, no HTTP)
    durability: ClassVar[str]
    environment: ClassVar[Mapping[str, str]] = {}
    unsupported: ClassVar[Mapping[str, str]] = {}  # load's name → why this server has no such thing

    def missing(self) -> str | None:
        """Why this peer cannot run here, or None if it can."""
        return None

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def command(self, root: Path, port: int) -> list[str]:
        """The command that serves ``root``; files that it needs are written beside that folder."""


class Moorage(Peer):
    name = "moorage"
    durability = "fsync of each blob's file and of its folders; every fact in SQLite's WAL, fdatasynced"

    def missing(self) -> str | None:
        run = subprocess.run(
            [sys.executable, "-m", "moorage", "--version"], capture_output=True, text=True, check=False
        )
        return None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["it does not start"])[-1]

    def version(self) -> str:
        return said(sys.executable, "-m", "moorage", "--version")

    def command(self, root: Path, port: int) -> list[str]:
        return [
            sys.executable,
            "-m",
            "moorage",
            "serve",
            "--host",
            "127.0.0.1",
            "-p",
            str(port),
            "--root",
            str(root),
        ]


class Distribution(Peer):
    name = "distribution"
    durability = "fsync of each file; of the folders of links and manifests, not after a blob's rename"
    environment: ClassVar[Mapping[str, str]] = {"OTEL_TRACES_EXPORTER": "none"}  # else it sends traces
    binary = "registry"
    build = "go module github.com/distribution/distribution/v3/cmd/registry v3.1.2"

    def missing(self) -> str | None:
        return None if tool(self.binary) else f"no {self.binary} on PATH or in the cache of tools ({self.build})"

    def version(self) -> str:
        return said(str(tool(self.binary)), "--version")

    def command(self, root: Path, port: int) -> list[str]:
        config = root.with_suffix(".yml")
        config.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            "storage:\n"
            f"  filesystem: {{rootdirectory: '{root}'}}\n"
            "  delete: {enabled: true}\n"
            "  cache: {blobdescriptor: inmemory}\n"
            f"http: {{addr: '127.0.0.1:{port}', secret: benchmark}}\n"
        )
        return [str(tool(self.binary)), "serve", str(config)]


class DockerRegistry(Distribution):
    name = "docker-registry"
    durability = "fsync of each file (blob, link, manifest), of no folder"
    unsupported: ClassVar[Mapping[str, str]] = {
        "tags-first": "2.8 has no pages, it answers with every tag",
        "tags-middle": "2.8 has no pages, it answers with every tag",
    }
    binary = "docker-registry"
    build = "Debian package docker-registry"


class Olareg(Peer):
    name = "olareg"
    durability = "none: no fsync anywhere"

    def missing(self) -> str | None:
        build = "go module github.com/olareg/olareg/cmd/olareg v0.2.2"
        return None if tool("olareg") else f"no olareg on PATH or in the cache of tools ({build})"

    def version(self) -> str:
        return said(str(tool("olareg")), "version")

    def command(self, root: Path, port: int) -> list[str]:
        options = ["--api-delete", "--api-blob-delete", "--verbosity", "error"]
        return [
            str(tool("olareg")),
            "serve",
            "--addr",
            "127.0.0.1",
            "--port",
            str(port),
            "--dir",
            str(root),
            *options,
        ]


class Zot(Peer):
    name = "zot"
    durability = "none by default (its `commit` setting is off)"

    def missing(self) -> str | None:
        return None if tool("zot") else "no zot on PATH or in the cache of tools (no package holds it)"

    def version(self) -> str:
        return said(str(tool("zot")), "--version")

    def command(self, root: Path, port: int) -> list[str]:
        config = root.with_suffix(".json")
        config.write_text(
            f'{{"storage": {{"rootDirectory": "{root}"}}, "log": {{"level": "error"}}, '
            f'"http": {{"address": "127.0.0.1", "port": "{port}"}}}}'
        )
        return [str(tool("zot")), "serve", str(config)]


class Nginx(Peer):
    name = "nginx"
    kind = "files"
    durability = "writes nothing: the same bytes as static files, the limit for reads"

    def missing(self) -> str | None:
        return None if self._binary() else "no nginx (Debian package nginx-light)"

    def _binary(self) -> str | None:
        return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

    def version(self) -> str:
        return said(str(self._binary()), "-v")

    def command(self, root: Path, port: int) -> list[str]:
        config = root.with_suffix(".conf")
        config.write_text(f"""
            daemon off; pid {root}.pid; worker_processes 1; error_log stderr error;
            {"user root;" if os.geteuid() == 0 else ""}
            events {{ worker_connections 1024; }}
            http {{
              access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
              default_type application/octet-stream;
              client_body_temp_path {root}.t1; proxy_temp_path {root}.t2; fastcgi_temp_path {root}.t3;
              uwsgi_temp_path {root}.t4; scgi_temp_path {root}.t5;
              server {{ listen 127.0.0.1:{port}; root {root}; }}
            }}
        """)
        return [str(self._binary()), "-e", "stderr", "-c", str(config)]


class Floor(Peer):
    name = "floor"
    kind = "floor"
    durability = "SHA-256, write and fsync of the same bytes by one Python process without HTTP: the limit for writes"

    def version(self) -> str:
        return sys.version.split()[0]

    def command(self, root: Path, port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.floor", str(root), str(port)]


PEERS: Sequence[type[Peer]] = (Moorage, Distribution, DockerRegistry, Olareg, Zot, Nginx, Floor)


def said(*command: str) -> str:
    """The version in what a command prints, on whichever stream."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(?<![\w.])v?\d+\.\d+\.\d[\w.+~-]*|(?<=nginx/)[\d.]+", run.stdout + run.stderr)
    return found.group() if found else "unknown"
