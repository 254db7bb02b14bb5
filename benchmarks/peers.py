"""The servers that are compared, each started with equal settings: deletion on, no access log, loopback."""

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.scale import Scale
from benchmarks.seeds import FactSeeds, LayoutSeeds, LinkSeeds, ListedLayoutSeeds, Seeds

TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage-ci" / "bin"


USER, PASSWORD = "benchmark", "only for this machine"
# Of the password, at the least cost that there is.
BCRYPT = "$2b$04$m4HSjBadws3VQtYVQ6uhseqeGez3eqySjmjizZBcSU5WwbmXJs0Cm"


def tool(name: str) -> Path | None:
    """An executable on PATH, else among the tools that CI builds."""
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    return Path(found) if found else None


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a certificate for 127.0.0.1 that signs itself, and of its key."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a peer is to serve: over TLS with a certificate, to ``USER`` alone with ``accounts``."""

    root: Path
    folder: Path  # for files that belong to the peer but are no content of it
    port: int
    workers: int = 1
    certificate: Certificate | None = None
    accounts: bool = False

    def beside(self, suffix: str, text: str) -> Path:
        """Such a file."""
        file = self.folder / f"peer{suffix}"
        file.write_text(text)
        return file

    def htpasswd(self) -> Path:
        return self.beside(".htpasswd", f"{USER}:{BCRYPT}\n")


class Peer(ABC):
    """A server that can be started over a folder; ``missing`` says why it cannot be had here."""

    name: ClassVar[str]
    kind: ClassVar[str] = "registry"  # or "files" (reads only), "floor" (writes only, no HTTP), "bare" (a constant)
    durability: ClassVar[str]
    seeds: ClassVar[type[Seeds] | None] = None
    aside: ClassVar[bool] = False  # measured on one core only, and with one turn at the largest blobs
    unsupported: ClassVar[Mapping[str, str]] = {}  # pattern of loads' names → why this server has no such thing

    def missing(self) -> str | None:
        """Why this peer cannot run here, or None if it can."""
        return None

    def lacks(self, load: str) -> str | None:
        """Why this peer cannot do a load, or None if it can."""
        return next((why for pattern, why in self.unsupported.items() if fnmatch.fnmatch(load, pattern)), None)

    def scale(self, scale: Scale) -> Scale:
        """How much of everything this peer is to have."""
        return scale

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """The command that serves ``place``; files that it needs are written beside it."""

    def environment(self, place: Place) -> dict[str, str]:
        """What the command finds in its environment besides this process's own."""
        return {"GOMAXPROCS": str(place.workers)}


class Moorage(Peer):
    name = "moorage"
    durability = "fsync of each blob's file and of its folders; every fact in SQLite's WAL, fdatasynced"
    seeds = FactSeeds

    def missing(self) -> str | None:
        run = subprocess.run(
            [sys.executable, "-m", "moorage", "--version"], capture_output=True, text=True, check=False
        )
        return None if run.returncode == 0 else (run.stderr.strip().splitlines() or ["it does not start"])[-1]

    def version(self) -> str:
        return said(sys.executable, "-m", "moorage", "--version")

    def command(self, place: Place) -> list[str]:
        serve = [sys.executable, "-m", "moorage", "serve", "--host", "127.0.0.1", "-p", str(place.port)]
        return [*serve, "--root", str(place.root), "--workers", str(place.workers)]

    def environment(self, place: Place) -> dict[str, str]:
        settings: dict[str, str] = {}
        if place.certificate:
            settings |= {
                "MOORAGE_TLS_CERTIFICATE": str(place.certificate.chain),
                "MOORAGE_TLS_KEY": str(place.certificate.key),
            }
        if place.accounts:
            settings |= {
                "MOORAGE_AUTHENTICATION": '["htpasswd", "tokens"]',
                "MOORAGE_HTPASSWD": str(place.htpasswd()),
            }
        return settings


class Distribution(Peer):
    name = "distribution"
    durability = "fsync of each file; of the folders of links and manifests, not after a blob's rename"
    seeds = LinkSeeds
    unsupported: ClassVar[Mapping[str, str]] = {
        "referrers": "it has no referrers API",
        "zb-*": "zb drops the query of an upload's Location, without which this registry refuses the PUT",
    }
    binary = "registry"
    build = "go module github.com/distribution/distribution/v3/cmd/registry v3.1.2"

    def missing(self) -> str | None:
        return None if tool(self.binary) else f"no {self.binary} on PATH or in the cache of tools ({self.build})"

    def version(self) -> str:
        return said(str(tool(self.binary)), "--version")

    def command(self, place: Place) -> list[str]:
        text = (
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            "storage:\n"
            f"  filesystem: {{rootdirectory: '{place.root}'}}\n"
            "  delete: {enabled: true}\n"
            "  cache: {blobdescriptor: inmemory}\n"
            f"http:\n  addr: '127.0.0.1:{place.port}'\n  secret: benchmark\n"
        )
        if place.certificate:
            text += f"  tls: {{certificate: '{place.certificate.chain}', key: '{place.certificate.key}'}}\n"
        if place.accounts:
            text += f"auth: {{htpasswd: {{realm: benchmark, path: '{place.htpasswd()}'}}}}\n"
        return [str(tool(self.binary)), "serve", str(place.beside(".yml", text))]

    def environment(self, place: Place) -> dict[str, str]:
        return super().environment(place) | {"OTEL_TRACES_EXPORTER": "none"}  # else it sends traces


class DockerRegistry(Distribution):
    name = "docker-registry"
    durability = "fsync of each file (blob, link, manifest), of no folder"
    unsupported: ClassVar[Mapping[str, str]] = {
        **Distribution.unsupported,
        "tags-first": "2.8 has no pages, it answers with every tag",
        "tags-middle": "2.8 has no pages, it answers with every tag",
    }
    aside = True
    binary = "docker-registry"
    build = "Debian package docker-registry"


class Olareg(Peer):
    name = "olareg"
    durability = "none: no fsync anywhere"
    seeds = ListedLayoutSeeds
    unsupported: ClassVar[Mapping[str, str]] = {
        "catalog": "it has no catalog",
        "zb-*": "zb drops the query of an upload's Location, without which this registry refuses the PUT",
    }

    def missing(self) -> str | None:
        build = "go module github.com/olareg/olareg/cmd/olareg v0.2.2"
        return None if tool("olareg") else f"no olareg on PATH or in the cache of tools ({build})"

    def version(self) -> str:
        return said(str(tool("olareg")), "version")

    def command(self, place: Place) -> list[str]:
        serve = [str(tool("olareg")), "serve", "--addr", "127.0.0.1", "--port", str(place.port)]
        serve += ["--dir", str(place.root), "--api-delete", "--api-blob-delete", "--verbosity", "error"]
        if place.certificate:
            serve += ["--tls-cert", str(place.certificate.chain), "--tls-key", str(place.certificate.key)]
        if place.accounts:
            granted = {"repo": "*", "members": [USER], "access": ["*"]}
            access = {"users": {USER: {"cred": BCRYPT}}, "acls": [granted, granted | {"repo": ""}]}
            serve += ["--auth-token-opaque", str(place.beside(".auth", json.dumps(access)))]  # YAML, so JSON too
        return serve


class Zot(Peer):
    name = "zot"
    durability = "none by default (its `commit` setting is off)"
    seeds = LayoutSeeds

    def missing(self) -> str | None:
        return None if tool("zot") else "no zot on PATH or in the cache of tools (no package or Go module holds it)"

    def version(self) -> str:
        return said(str(tool("zot")), "--version")

    def command(self, place: Place) -> list[str]:
        http: dict[str, Any] = {"address": "127.0.0.1", "port": str(place.port)}
        if place.certificate:
            http["tls"] = {"cert": str(place.certificate.chain), "key": str(place.certificate.key)}
        if place.accounts:
            http["auth"] = {"htpasswd": {"path": str(place.htpasswd())}}
        # It collects garbage in the background as it starts; at its level "error" it logs what is no error.
        storage = {"rootDirectory": str(place.root), "gc": False}
        settings = {"storage": storage, "log": {"level": "fatal"}, "http": http}
        return [str(tool("zot")), "serve", str(place.beside(".json", json.dumps(settings)))]


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

    def command(self, place: Place) -> list[str]:
        beside, tls = place.folder / "nginx", ""
        if place.certificate:
            tls = f"ssl_certificate {place.certificate.chain}; ssl_certificate_key {place.certificate.key};"
        config = place.beside(
            ".conf",
            f"""
            daemon off; pid {beside}.pid; worker_processes {place.workers}; error_log stderr error;
            {"user root;" if os.geteuid() == 0 else ""}
            events {{ worker_connections 1024; }}
            http {{
              access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
              default_type application/octet-stream;
              client_body_temp_path {beside}.t1; proxy_temp_path {beside}.t2; fastcgi_temp_path {beside}.t3;
              uwsgi_temp_path {beside}.t4; scgi_temp_path {beside}.t5;
              server {{ listen 127.0.0.1:{place.port} {"ssl" if tls else ""}; {tls} root {place.root}; }}
            }}
            """,
        )
        return [str(self._binary()), "-e", "stderr", "-c", str(config)]


class Floor(Peer):
    name = "floor"
    kind = "floor"
    durability = "SHA-256, write and fsync of the same bytes by one Python process without HTTP: the limit for writes"

    def version(self) -> str:
        return sys.version.split()[0]

    def command(self, place: Place) -> list[str]:
        return [sys.executable, "-m", "benchmarks.floor", str(place.root), str(place.port)]


class Bare(Peer):
    name = "uvicorn"
    kind = "bare"
    durability = "writes nothing: an application that answers every request with {}, the limit for start and memory"

    def version(self) -> str:
        return metadata.version("uvicorn")

    def command(self, place: Place) -> list[str]:
        serve = [sys.executable, "-m", "uvicorn", "benchmarks.bare:app", "--host", "127.0.0.1"]
        return [*serve, "--port", str(place.port), "--no-access-log", "--log-level", "error"]


PEERS: Sequence[type[Peer]] = (Moorage, Distribution, DockerRegistry, Olareg, Zot, Nginx, Floor, Bare)


def said(*command: str) -> str:
    """The version in what a command prints, on whichever stream."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"(?<![\w.])v?\d+\.\d+\.\d[\w.+~-]*|(?<=nginx/)[\d.]+", run.stdout + run.stderr)
    return found.group() if found else "unknown"


def certificate(folder: Path) -> Certificate | None:
    """A new certificate for 127.0.0.1, or None without openssl."""
    chain, key = folder / "certificate.pem", folder / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command = [
        "openssl",
        *request.split(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        str(chain),
        "-keyout",
        str(key),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None
    return Certificate(chain, key)
