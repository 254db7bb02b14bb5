"""Servers with buckets: SeaweedFS (a distributed engine), moto (strict about S3), Azurite and Google's emulator.

Each starts when a test first asks for it and ends with the run.
"""

import base64
import hashlib
import hmac
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from moorage.build import store_of
from moorage.config import load
from moorage.storage.base import BlobStore
from tests.certificates import Pair
from tests.clients.kit import missing, tool
from tests.google.bucket import BUCKET
from tests.server import free_port

ACCESS, SECRET = "moorage-access", "moorage-secret"
AZURE_ACCOUNT = "devstoreaccount1"
# The key that every Azurite has, as its documentation says.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Engine:
    """A running server: the settings by name that reach its bucket, and a new prefix in it each time."""

    settings: dict[str, Any]
    process: "subprocess.Popen[bytes] | None" = None
    _prefixes: "itertools.count[int]" = field(default_factory=itertools.count)

    def place(self, **more: Any) -> dict[str, Any]:
        """The settings of a place in the bucket that nothing was written to."""
        storage = f"{self.settings['storage']}/place-{next(self._prefixes)}"
        return {**self.settings, "storage": storage, **more}

    def store(self, **more: Any) -> BlobStore:
        """A store over a place of its own, not opened."""
        return store_of(load(arguments=self.place(**more)))

    @property
    def endpoint(self) -> str:
        return str(self.settings["object_endpoint"])

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """Start what was killed with all that it holds; returns once it takes objects."""
        assert self.process is not None
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.process.args, stdin=quiet, stdout=quiet, stderr=quiet)
        _write_once(self)


@contextmanager
def _running(command: list[str], folder: Path, ready: Callable[[], bool], timeout: float = 60.0) -> Iterator[Any]:
    """The process of ``command`` from when it is ``ready``; its output goes to a file that a failure shows."""
    log = folder / "output.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + timeout
        while not ready():
            told = log.read_text(errors="replace")[-4000:]
            assert process.poll() is None, f"{command} ended with {process.returncode}: {told}"
            assert time.monotonic() < deadline, f"{command} is not ready: {told}"
            time.sleep(0.1)
        yield process
    finally:
        process.kill()  # nothing of it is kept
        process.wait()


def _answers(method: str, url: str, *statuses: int, **request: Any) -> bool:
    try:
        return httpx.request(method, url, trust_env=False, timeout=10, **request).status_code in statuses
    except httpx.TransportError:
        return False


def _credentials(folder: Path) -> str:
    file = folder / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n")
    return str(file)


def _s3(endpoint: str, folder: Path) -> dict[str, Any]:
    return {
        "storage": f"s3://{BUCKET}",
        "object_endpoint": endpoint,
        "object_region": "us-east-1",
        "object_allow_http": True,
        "object_credentials": _credentials(folder),
    }


def _bucket_address(endpoint: str) -> str:
    """A signed address whose PUT makes the bucket: with virtual hosts, the path is what stands for it here."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "any",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=ACCESS,
        secret_access_key=SECRET,
        virtual_hosted_style_request=True,
        client_options={"allow_http": True},
    )
    return str(obstore.sign(store, "PUT", BUCKET, timedelta(hours=1)))


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """SeaweedFS for the whole run."""
    with seaweed(tmp_path_factory.mktemp("seaweedfs")) as engine:
        yield engine


@contextmanager
def seaweed(folder: Path) -> Iterator[Engine]:
    """SeaweedFS in ``folder``: master, volume server, filer and S3 gateway. It can be killed and started again."""
    weed = tool("weed")
    (folder / "data").mkdir()
    rights = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "moorage", "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}], "actions": rights}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer": "true",
        "s3": "true",
        "s3.port": port,
        "s3.config": folder / "s3.json",
        "master.volumeSizeLimitMB": 256,
        "master.telemetry": "false",
        "volume.max": 200,
        **{f"{each}.port": free_port() for each in ("master", "volume", "filer")},
        **{f"{each}.port.grpc": free_port() for each in ("master", "volume", "filer", "s3")},
    }
    command = [weed, "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]
    address = _bucket_address(endpoint)
    with _running(command, folder, lambda: _answers("PUT", address, 200, 409)) as process:
        engine = Engine(_s3(endpoint, folder), process)
        _write_once(engine)
        yield engine
        if engine.process is not None and engine.process is not process:
            engine.kill()


def _write_once(engine: Engine) -> None:
    """Return once an object can be written: volumes take a moment after the gateway answers."""
    import asyncio

    from moorage.spec.errors import StorageUnavailable

    async def write() -> None:
        async with engine.store(object_retry_timeout=20.0) as store:
            for attempt in range(30):
                try:
                    async with store.write("re/ady") as writer:
                        await writer.write([b"ready"])
                except StorageUnavailable:
                    assert attempt < 29
                    await asyncio.sleep(0.5)
                else:
                    break
            await store.delete(["re/ady"])

    asyncio.run(write())


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """moto's S3, in memory: strict about conditions, ranges and the sizes of parts."""
    program = Path(sys.executable).with_name("moto_server")
    if not program.exists():
        missing("moto_server is not in the virtual environment; make .venv/stores brings it")
    folder = tmp_path_factory.mktemp("moto")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    address = _bucket_address(endpoint)
    command = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    with _running(command, folder, lambda: _answers("PUT", address, 200, 409)) as process:
        yield Engine(_s3(endpoint, folder), process)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Azurite: Microsoft's own emulator of Azure Blob Storage."""
    program = tool("azurite-blob")
    folder = tmp_path_factory.mktemp("azurite")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    file = folder / "connection"
    parts = {"AccountName": AZURE_ACCOUNT, "AccountKey": AZURE_KEY, "BlobEndpoint": endpoint}
    file.write_text(";".join(f"{name}={value}" for name, value in parts.items()) + "\n")
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "data")]
    command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]

    def ready() -> bool:
        url = f"{endpoint}/{BUCKET}?restype=container"
        return _answers("PUT", url, 201, 409, headers=_shared_key(f"/{BUCKET}", "restype:container"))

    with _running(command, folder, ready) as process:
        settings = {"storage": f"az://{BUCKET}", "object_credentials": str(file), "object_allow_http": True}
        yield Engine({**settings, "object_endpoint": endpoint}, process)


def _shared_key(path: str, query: str) -> dict[str, str]:
    """The headers of a PUT without a body, signed as Azure wants it."""
    version, date = "2021-08-06", format_datetime(datetime.now(UTC), usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    text = f"PUT{chr(10) * 12}{headers}\n/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}{path}\n{query}"
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), hashlib.sha256)).decode()
    return {
        "Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}",
        "x-ms-date": date,
        "x-ms-version": version,
        "Content-Length": "0",
    }


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """``tests.google``: none of the emulators that packages bring knows the XML interface, which we speak."""
    with emulated_google(tmp_path_factory.mktemp("google")) as engine:
        yield engine


@contextmanager
def emulated_google(folder: Path, certificate: Pair | None = None) -> Iterator[Engine]:
    """``tests.google`` and the file of its service account; behind TLS with ``certificate``."""
    account = folder / "account.json"
    account.write_text(json.dumps(service_account()))
    port = free_port()
    command = ["env", f"PYTHONPATH={Path(__file__).parents[1]}", sys.executable, "-m", "tests.google"]
    command += ["--port", str(port), "--account", str(account)]
    if certificate:
        command += ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    scheme = "https" if certificate else "http"
    endpoint = f"{scheme}://127.0.0.1:{port}"
    settings = {"storage": f"gs://{BUCKET}", "object_credentials": str(account)}
    ready = partial(_answers, "GET", f"{endpoint}/{BUCKET}", 403, verify=False)
    with _running(command, folder, ready) as process:
        yield Engine({**settings, "object_allow_http": not certificate, "object_endpoint": endpoint}, process)


def service_account() -> dict[str, str]:
    """A service account of Google's with a key of its own, as its file has it."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    email = "moorage@tests.iam.gserviceaccount.com"
    return {"type": "service_account", "client_email": email, "private_key_id": "one", "private_key": pem}
