"""``gs://`` before an emulator that is as strict as Google about who asks, what is asked and what is signed."""

import asyncio
import json
import re
import ssl
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509

from moorage import Registry, create_app
from moorage.build import store_of
from moorage.config import load
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.errors import StorageUnavailable
from moorage.storage.base import BlobStore, new_key
from tests.buckets import Engine, emulated_google, service_account
from tests.certificates import Authority
from tests.google.bucket import BUCKET
from tests.google.identities import REFRESH_TOKEN
from tests.proxy import Proxy, on, status
from tests.storage.conftest import QUICK
from tests.support import Repository, served

pytestmark = pytest.mark.stores

MIB = 1024 * 1024
HOSTS = ("storage.googleapis.com", "iamcredentials.googleapis.com", "accounts.google.com")
SMALL, LARGE = b"small" * 1000, bytes(20 * MIB)


@dataclass
class Cloud:
    """Google behind its own names: ``proxy`` leads each of them to the emulator, which has ``authority``'s word."""

    engine: Engine
    authority: Authority
    proxy: str = ""
    metadata: str = ""  # the host of an instance's metadata server, which has no TLS

    def settings(self, **more: Any) -> dict[str, Any]:
        """The settings of a place in a bucket of Google's, not of an endpoint."""
        place = self.engine.place(object_ca_file=str(self.authority.certificate), **QUICK, **more)
        del place["object_endpoint"]
        return place

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(proxy=self.proxy, verify=self.trust(), trust_env=False)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.certificate)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    authority = Authority(tmp_path_factory.mktemp("authority")).make()
    pair = authority.issue("google", names=tuple(x509.DNSName(host) for host in HOSTS))
    with emulated_google(tmp_path_factory.mktemp("cloud"), pair) as engine:
        yield Cloud(engine, authority)


@pytest.fixture
async def cloud(tls: Cloud, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """Google's names, for whoever takes the proxy that the environment names."""
    port = httpx.URL(tls.engine.endpoint).port

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split(b" ")
        assert asked[:2] in [[b"CONNECT", f"{host}:443".encode()] for host in HOSTS]
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await join(reader, writer)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **tls: Any) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, **tls)
        await asyncio.gather(pipe(reader, back), pipe(there, writer), return_exceptions=True)

    plain = partial(join, ssl=tls.trust(), server_hostname=HOSTS[0])
    servers = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (connect, plain)]
    addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
    tls.proxy, tls.metadata = f"http://{addresses[0]}", addresses[1]
    monkeypatch.setenv("HTTPS_PROXY", tls.proxy)
    monkeypatch.setenv("NO_PROXY", "")
    yield tls
    for server in servers:
        server.close()


@asynccontextmanager
async def registry(settings: dict[str, Any], folder: Path) -> AsyncIterator[Repository]:
    """A repository over a place, to which clients come over HTTPS."""
    chosen = load(arguments=settings)
    async with (
        Registry(store_of(chosen), SQLiteMetadata(folder / "facts.db"), chosen.policy(), housekeeping=False) as made,
        served(create_app(made), followed=False, raise_app_exceptions=False, host="https://registry.test") as client,
    ):
        yield Repository(client)


def person(folder: Path, token: str = REFRESH_TOKEN) -> str:
    """The file that ``gcloud auth application-default login`` leaves."""
    file = folder / "person.json"
    file.write_text(
        json.dumps({"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": token})
    )
    return str(file)


async def test_clients_are_sent_to_google(cloud: Cloud, tmp_path: Path) -> None:
    """Without an endpoint ``auto`` redirects; the address is good for that blob, that verb and its time alone."""
    async with registry(cloud.settings(redirect_expiry=300.0), tmp_path) as repository, cloud.client() as client:
        path = f"blobs/{await repository.push_blob(SMALL)}"
        answer = await repository.get(path)
        assert answer.status_code == 307
        address = answer.headers["location"]
        assert address.startswith(f"https://storage.googleapis.com/{BUCKET}/place-")
        assert (await client.get(address)).content == SMALL
        part = await client.get(address, headers={"Range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, SMALL[100:200])
        found = re.search(r"X-Goog-Expires=(\d+)", address)
        assert found
        assert 300 <= int(found[1]) <= 360
        for changed in (address.replace(found[0], "X-Goog-Expires=86400"), address.replace("/place-", "/other-")):
            answer = await client.get(changed)
            assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)
        assert (await client.delete(address)).status_code == 403
        assert (await client.get(address.partition("?")[0])).status_code == 403


async def test_an_address_ends(cloud: Cloud) -> None:
    async with store_of(load(arguments=cloud.settings())) as store, cloud.client() as client:
        key = new_key()
        async with store.write(key) as writer:
            await writer.write([SMALL])
        address = await store.url(key, -59.0)  # it is given for a minute more
        assert address
        while (answer := await client.get(address)).status_code == 200:
            await asyncio.sleep(0.2)
        assert (answer.status_code, "ExpiredToken" in answer.text) == (400, True)
        await store.delete([key])


async def test_a_pod_without_a_key(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata server gives the token, and Google signs for the identity that it names."""
    monkeypatch.setenv("GCE_METADATA_HOST", cloud.metadata)
    async with registry(cloud.settings(object_credentials="auto"), tmp_path) as repository, cloud.client() as client:
        answer = await repository.get(f"blobs/{await repository.push_blob(SMALL)}")
        assert answer.status_code == 307
        assert (await client.get(answer.headers["location"])).content == SMALL


async def test_a_person(cloud: Cloud, tmp_path: Path) -> None:
    """A file of ``gcloud auth``: its refresh token gets one for access; without a key nobody is sent elsewhere."""
    async with registry(cloud.settings(object_credentials=person(tmp_path)), tmp_path) as repository:
        answer = await repository.get(f"blobs/{await repository.push_blob(SMALL)}")
        assert (answer.status_code, answer.content) == (200, SMALL)
    with pytest.raises(RuntimeError, match="refuses"):
        async with store_of(load(arguments=cloud.settings(object_credentials=person(tmp_path, "revoked")))):
            pass


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"object_credentials": "anonymous"}, "403 Forbidden AccessDenied"),
        ({}, "401 Unauthorized AuthenticationRequired"),
    ],
)
async def test_a_stranger_is_refused_at_the_start(
    google: Engine, tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    """Nobody, and somebody with the account's name and another key."""
    file = tmp_path / "account.json"
    file.write_text(json.dumps(service_account()))
    with pytest.raises(RuntimeError, match=told):
        async with google.store(**{"object_credentials": str(file), **changed}):
            pass


async def test_a_bucket_that_is_not_there(google: Engine) -> None:
    settings = {**google.settings, "storage": "gs://other"}
    with pytest.raises(RuntimeError, match="404 Not Found NoSuchBucket"):
        async with store_of(load(arguments=settings)):
            pass


def ask(engine: Engine, method: str, path: str, **more: Any) -> httpx.Response:
    """A request of the account itself."""
    account = json.loads(Path(engine.settings["object_credentials"]).read_text())
    now, email = int(time.time()), account["client_email"]
    scope = "https://www.googleapis.com/auth/cloud-platform"
    claims = {"iss": email, "sub": email, "scope": scope, "iat": now, "exp": now + 600}
    token = jwt.encode(claims, account["private_key"], "RS256", {"kid": account["private_key_id"]})
    headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
    return httpx.request(method, f"{engine.endpoint}/{path}", headers=headers, trust_env=False, **more)


@pytest.mark.parametrize("verb", ["part", "complete"])
async def test_nothing_is_left_of_what_fails(google: Engine, verb: str) -> None:
    """A multipart upload that Google breaks off is aborted."""
    with Proxy(google.endpoint).serving() as proxy:
        async with store_of(load(arguments=google.place(object_endpoint=proxy.url, **QUICK))) as store:
            proxy.rule = on(verb, status(503, "ServiceUnavailable"))
            with pytest.raises(StorageUnavailable):
                async with store.write(new_key()) as writer:
                    await writer.write([LARGE])
            assert await keys(store) == []
    assert "<Upload>" not in ask(google, "GET", f"{BUCKET}?uploads").text
    assert "abort" in proxy.verbs()


async def keys(store: BlobStore) -> list[str]:
    return [key async for key in store.list()]


PART = 5 * MIB
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "other?list-type=2", {}, 404, "NoSuchBucket"),
    ("GET", "moorage/nothing", {}, 404, "NoSuchKey"),
    ("DELETE", "moorage/nothing", {}, 404, "NoSuchKey"),
    ("GET", "moorage/there", {"headers": {"Range": "bytes=5-"}}, 416, "InvalidRange"),
    ("PUT", "moorage/there", {"headers": {"x-goog-if-generation-match": "0"}}, 412, "PreconditionFailed"),
    ("PUT", "moorage/there?acl", {}, 400, "InvalidArgument"),
    ("PUT", "moorage/new", {"headers": {"x-goog-copy-source": "moorage/there"}}, 400, "InvalidArgument"),
    ("PUT", "moorage/new?partNumber=1&uploadId=none", {}, 404, "NoSuchUpload"),
    ("DELETE", "moorage/new?uploadId=none", {}, 404, "NoSuchUpload"),
    ("GET", "moorage/there", {"headers": {"Authorization": "Bearer ya29.guessed"}}, 401, "AuthenticationRequired"),
    ("GET", "moorage/there", {"headers": {"Authorization": ""}}, 403, "AccessDenied"),
]


@pytest.mark.parametrize(("method", "path", "more", "status", "code"), REFUSED)
def test_the_emulator_refuses(
    google: Engine, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    """As Google does, in its form; so what it lets through says something."""
    assert ask(google, "PUT", "moorage/there", content=b"there").status_code == 200
    answer = ask(google, method, path, **more)
    assert (answer.status_code, ET.fromstring(answer.content).findtext("Code")) == (status, code)
    assert ask(google, "DELETE", "moorage/there").status_code == 204


@pytest.mark.parametrize(
    ("parts", "named", "code"),
    [
        ([PART, 1], [1, 2], None),
        ([PART - 1, 1], [1, 2], "EntityTooSmall"),
        ([PART, 1], [2, 1], "InvalidPartOrder"),
        ([PART], [1, 2], "InvalidPart"),
        ([], [], "InvalidPartOrder"),
    ],
)
def test_the_emulator_counts_parts(google: Engine, parts: list[int], named: list[int], code: str | None) -> None:
    begun = ET.fromstring(ask(google, "POST", "moorage/parts?uploads").content).findtext("{*}UploadId")
    etags = ["none"] * 2
    for number, size in enumerate(parts):
        query = f"partNumber={number + 1}&uploadId={begun}"
        etags[number] = ask(google, "PUT", f"moorage/parts?{query}", content=bytes(size)).headers["etag"]
    told = "".join(f"<Part><ETag>{etags[n - 1]}</ETag><PartNumber>{n}</PartNumber></Part>" for n in named)
    body = f"<CompleteMultipartUpload>{told}</CompleteMultipartUpload>"
    answer = ask(google, "POST", f"moorage/parts?uploadId={begun}", content=body)
    assert ET.fromstring(answer.content).findtext("Code") == code
    if code is None:
        assert ask(google, "DELETE", "moorage/parts").status_code == 204
    else:
        assert ask(google, "DELETE", f"moorage/parts?uploadId={begun}").status_code == 204
