"""Clients in a home of their own, and a plain view of what the registry holds."""

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from tests.certificates import Pair
from tests.server import CI

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    *INDEX_TYPES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# The control group above those of all containers of this process, so that they can be told from others and removed.
OURS = f"moorage-{os.getpid()}"
BUILT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moorage-ci" / "bin"
# Debian's folders come first: a newer docker beside them would speak to another engine.
FOLDERS = os.pathsep.join([str(BUILT), "/usr/bin", "/usr/sbin", "/bin", "/sbin", os.environ.get("PATH", "")])


def own_address() -> str:
    """An address of this machine that is not loopback, or nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


OWN_ADDRESS = own_address()


def missing(what: str) -> NoReturn:
    """Fail in CI, where everything must be there; skip elsewhere."""
    if CI:
        pytest.fail(f"{what} (CI must have it; .ci/run installs it)")
    pytest.skip(what)


def tool(name: str) -> str:
    """The path of a client; without it the test is skipped, or fails in CI."""
    return shutil.which(name, path=FOLDERS) or missing(f"{name} is not on this machine")


@dataclass(frozen=True)
class Done:
    """What a client printed."""

    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.split()


@dataclass(frozen=True)
class Home:
    """A home directory for clients, so that neither this machine's settings nor its credentials matter."""

    path: Path
    variables: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> "Home":
        """Write the settings that containers' tools, docker and helm would else read from the machine."""
        settings = {
            "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}',
            "auth.json": "{}",
            "registries.conf": "unqualified-search-registries = []\n",
            "storage.conf": (
                f'[storage]\ndriver = "vfs"\ngraphroot = "{self.path}/graph"\nrunroot = "{self.path}/run"\n'
            ),
            # runc knows every control group layout; raising a limit needs a right that a small VM may lack.
            "containers.conf": (
                "[containers]\n"
                'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
                "[engine]\n"
                'cgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n'
                'lock_type = "file"\n'  # the default is one memory for all of this machine
                f'tmp_dir = "{self.path}/run/libpod"\n'
                f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{self.path}/networks"\n'
            ),
        }
        containers = self.path / ".config" / "containers"
        for folder in (containers, self.path / "run", self.path / "tmp", self.path / "docker"):
            folder.mkdir(parents=True)
        for name, text in settings.items():
            (containers / name).write_text(text)
        self.variables.update(
            {
                "PATH": FOLDERS,
                "HOME": str(self.path),
                "LANG": "C.UTF-8",
                "TMPDIR": str(self.path / "tmp"),
                "XDG_RUNTIME_DIR": str(self.path / "run"),
                "DOCKER_CONFIG": str(self.path / "docker"),
                "DOCKER_BUILDKIT": "0",
                "REGISTRY_AUTH_FILE": str(containers / "auth.json"),
                "CONTAINERS_CONF": str(containers / "containers.conf"),
                "CONTAINERS_STORAGE_CONF": str(containers / "storage.conf"),
                "CONTAINERS_REGISTRIES_CONF": str(containers / "registries.conf"),
                "BUILDAH_ISOLATION": "chroot",
                "COSIGN_PASSWORD": "",
                # Loopback never goes through a proxy, everything else does: nothing here may reach further.
                "HTTP_PROXY": "http://127.0.0.1:9",
                "HTTPS_PROXY": "http://127.0.0.1:9",
                "NO_PROXY": f"127.0.0.1,localhost,{OWN_ADDRESS}",
            }
        )
        return self

    def __call__(
        self,
        name: str,
        *arguments: str | Path,
        timeout: float = 120,
        cwd: Path | None = None,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a client to its end; anything but exit code 0 in time fails the test with all that it printed."""
        __tracebackhide__ = True
        command = [tool(name), *map(str, arguments)]
        try:
            process = subprocess.run(
                command,
                cwd=cwd or self.path,
                env=self.variables | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            printed = b"".join(part for part in (late.stdout, late.stderr) if isinstance(part, bytes))
            pytest.fail(f"{' '.join(command)}\ndid not end within {timeout} s\n{printed.decode(errors='replace')}")
        if check and process.returncode:
            pytest.fail(f"{' '.join(command)}\nended with {process.returncode}\n{process.stdout}\n{process.stderr}")
        return Done(process.stdout, process.stderr)


@dataclass(frozen=True)
class Layout:
    """An image in an OCI image layout: a folder and the tag in its ``index.json``."""

    root: Path
    tag: str

    @property
    def descriptor(self) -> dict[str, Any]:
        """What ``index.json`` says about the tag, or about its only entry where a client wrote no tag."""
        entries = json.loads((self.root / "index.json").read_text())["manifests"]
        named = [e for e in entries if e.get("annotations", {}).get("org.opencontainers.image.ref.name") == self.tag]
        found: dict[str, Any]
        (found,) = named or entries
        return found

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "/")

    def manifest(self, digest: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path(digest).read_bytes())
        return content

    def walk(self, descriptor: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Each descriptor that the image reaches, its own first."""
        descriptor = descriptor or self.descriptor
        yield descriptor
        if descriptor["mediaType"] in MANIFEST_TYPES:
            content = self.manifest(descriptor["digest"])
            for child in content.get("manifests", []):
                yield from self.walk(child)
            yield from [content[key] for key in ("config",) if key in content]
            yield from content.get("layers", [])

    @property
    def layers(self) -> list[str]:
        """The digests of the layers of all platforms."""
        return [d["digest"] for d in self.walk() if ".layer." in d["mediaType"]]


def remove_control_groups() -> None:
    """Remove the empty control groups that engines leave behind."""
    groups = Path("/sys/fs/cgroup")
    for group in [*groups.glob(OURS), *groups.glob(f"*/{OURS}")]:
        for folder, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def assert_same(pulled: Layout, original: Layout) -> None:
    """The pulled image has every byte of the original: manifests, configurations and layers."""
    assert pulled.digest == original.digest
    for descriptor in original.walk():
        path = pulled.path(descriptor["digest"])
        assert path.stat().st_size == descriptor["size"]
        assert sha256(path) == descriptor["digest"]


@dataclass(frozen=True)
class Door:
    """The registry without a client, to see what clients left there and what they will find.

    With TLS, ``authority`` is whom to trust and ``own`` the certificate to show.
    """

    url: str
    authority: Path | None = None
    own: Pair | None = None

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if self.own is not None:
            context.load_cert_chain(self.own.certificate, self.own.key)
        return context

    def request(self, method: str, path: str, **headers: str) -> httpx.Response:
        url = f"{self.url}/v2/{path}"
        return httpx.request(method, url, headers=headers, timeout=60, trust_env=False, verify=self._trust)

    def manifest(self, repository: str, reference: str) -> bytes:
        """A manifest's bytes, which match the digest that the registry says and the one asked for."""
        response = self.request("GET", f"{repository}/manifests/{reference}", accept=", ".join(MANIFEST_TYPES))
        assert response.status_code == 200, response.text
        digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
        assert response.headers["docker-content-digest"] == digest
        assert reference == digest or ":" not in reference
        return response.content

    def digest(self, repository: str, reference: str) -> str:
        return f"sha256:{hashlib.sha256(self.manifest(repository, reference)).hexdigest()}"

    def blob(self, repository: str, digest: str) -> str:
        """The digest of the bytes that the registry sends for a blob; it reads them piece by piece."""
        total = hashlib.sha256()
        url = f"{self.url}/v2/{repository}/blobs/{digest}"
        options: dict[str, Any] = {"timeout": 60, "trust_env": False, "verify": self._trust}
        with httpx.stream("GET", url, follow_redirects=True, **options) as response:
            assert response.status_code == 200
            for piece in response.iter_bytes():
                total.update(piece)
        return f"sha256:{total.hexdigest()}"

    def has(self, repository: str, kind: str, reference: str) -> bool:
        """Whether HEAD finds it; any answer but 200 or 404 is a failure."""
        status = self.request(
            "HEAD", f"{repository}/{kind}/{reference}", accept=", ".join(MANIFEST_TYPES)
        ).status_code
        assert status in {200, 404}
        return status == 200

    def tags(self, repository: str) -> list[str]:
        response = self.request("GET", f"{repository}/tags/list")
        assert response.status_code in {200, 404}
        return response.json()["tags"] or [] if response.status_code == 200 else []

    def referrers(self, repository: str, digest: str) -> list[dict[str, Any]]:
        response = self.request("GET", f"{repository}/referrers/{digest}")
        assert response.status_code == 200
        entries: list[dict[str, Any]] = response.json()["manifests"]
        return entries

    def assert_holds(self, repository: str, reference: str, image: Layout) -> None:
        """The repository serves every byte of the image under the reference."""
        assert self.manifest(repository, reference) == image.path(image.digest).read_bytes()
        for descriptor in image.walk():
            if descriptor["mediaType"] in MANIFEST_TYPES:
                assert self.digest(repository, descriptor["digest"]) == descriptor["digest"]
            else:
                assert self.blob(repository, descriptor["digest"]) == descriptor["digest"]
