"""Content to push, short words for pushing it, and doors beside httpx: bare ASGI and a bare socket."""

import asyncio
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import blake3
import httpx

from moorage import Policy, Registry, create_app, open_registry
from moorage.build import store_of
from moorage.config import load
from moorage.metadata.sqlite import SQLiteMetadata
from tests.following import AsyncFollowing
from tests.server import Bytes

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
EMPTY = b"{}"
CONFIG = b'{"os": "linux"}'
LAYER = b"the bytes of a layer"
HOST = "http://registry.test"
CODES = {
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
}

OWN_CODES = {"UNKNOWN", "EXISTS", "NOT_FOUND"}  # beyond the specification's: faults, and managing access

Json = dict[str, Any]


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of ``content``, computed without Moorage."""
    hasher = blake3.blake3(content) if algorithm == "blake3" else hashlib.new(algorithm, content)
    return f"{algorithm}:{hasher.hexdigest()}"


def descriptor(content: bytes, media_type: str, algorithm: str = "sha256", **more: Any) -> Json:
    """A descriptor of ``content``."""
    return {"mediaType": media_type, "digest": digest_of(content, algorithm), "size": len(content)} | more


def image(config: bytes = CONFIG, layers: Iterable[bytes] = (LAYER,), **more: Any) -> Json:
    """An OCI image manifest; ``more`` are fields that are added or take the place of others."""
    document: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, OCI_CONFIG),
        "layers": [descriptor(layer, OCI_LAYER) for layer in layers],
    }
    return document | more


def artifact(kind: str = "application/vnd.example.sbom", subject: Json | None = None, **more: Any) -> Json:
    """An artifact of that type without content of its own, which refers to ``subject``."""
    empty = descriptor(EMPTY, EMPTY_TYPE)
    document: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
    }
    return document | ({"subject": subject} if subject else {}) | more


def index(children: Iterable[Json] = (), **more: Any) -> Json:
    """An OCI image index of descriptors."""
    document: Json = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}
    return document | more


def encode(document: Json | bytes) -> bytes:
    """The bytes of a document."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def errors(response: httpx.Response, status: int, code: str) -> list[Json]:
    """The ``errors`` of an answer that must be of that status and code, in the specification's form."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"errors"}
    assert body["errors"]
    for each in body["errors"]:
        assert each["code"] == code, body
        assert each["code"] in CODES | OWN_CODES
        assert isinstance(each["message"], str)
        assert set(each) <= {"code", "message", "detail"}
    found: list[Json] = body["errors"]
    return found


def detail(response: httpx.Response, status: int, code: str) -> Any:
    """The ``detail`` of an answer with one error; see ``errors``."""
    (error,) = errors(response, status, code)
    return error.get("detail")


def next_url(response: httpx.Response) -> str | None:
    """The address of the next page, or None."""
    link = response.headers.get("link")
    if link is None:
        return None
    found = re.fullmatch(r'<([^<>\s]+)>; rel="next"', link)
    assert found, link
    return found[1]


def no_server_error(response: httpx.Response) -> None:
    """A registry that works never says 5xx."""
    assert response.status_code < 500, response.request.url


async def _check(response: httpx.Response) -> None:
    no_server_error(response)


def new_registry(policy: Policy | None = None) -> Registry:
    """A registry whose facts are in memory, and bytes too unless ``--store`` has another place for them."""
    place = Bytes.place()
    if not place:
        return open_registry(policy=policy)
    return Registry(store_of(load(arguments=place)), SQLiteMetadata(), policy)


@asynccontextmanager
async def served(
    app: Any, *, checked: bool = True, followed: bool = True, host: str = HOST, **transport: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an ASGI application; unless not ``checked``, a 5xx fails the test.

    Redirects to a bucket are ``followed``, and look as if the registry had answered.
    """
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [_check]} if checked else {}
    door = httpx.ASGITransport(app, **transport)
    way = AsyncFollowing(door) if followed else door
    async with httpx.AsyncClient(transport=way, base_url=host, event_hooks=hooks) as client:
        yield client


@asynccontextmanager
async def door_to(registry: Registry, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a registry that is open already; ``options`` are those of ``WebOptions``."""
    async with served(create_app(registry, **options)) as client:
        yield client


@dataclass
class Repository:
    """One repository seen through the door."""

    client: httpx.AsyncClient
    name: str = "library/thing"

    def at(self, path: str) -> str:
        """The address of something in the repository."""
        return f"/v2/{self.name}/{path}"

    async def get(self, path: str, **request: Any) -> httpx.Response:
        return await self.client.get(self.at(path), **request)

    async def head(self, path: str, **request: Any) -> httpx.Response:
        return await self.client.head(self.at(path), **request)

    async def delete(self, path: str, **request: Any) -> httpx.Response:
        return await self.client.delete(self.at(path), **request)

    async def post(self, query: str = "", **request: Any) -> httpx.Response:
        """``POST`` to the uploads of the repository (end-4, end-11)."""
        return await self.client.post(self.at(f"blobs/uploads/{query}"), **request)

    async def start(self, query: str = "") -> str:
        """The location of a new upload session."""
        response = await self.post(query)
        assert response.status_code == 202, response.text
        location: str = response.headers["location"]
        return location

    async def push_blob(self, content: bytes, algorithm: str = "sha256") -> str:
        """Push a blob in one go; its digest."""
        digest = digest_of(content, algorithm)
        response = await self.post(f"?digest={digest}", content=content)
        assert response.status_code == 201, response.text
        return digest

    async def put(
        self,
        document: Json | bytes,
        reference: str | None = None,
        media_type: str | None = "",
        headers: Mapping[str, str] | None = None,
        params: Sequence[tuple[str, str]] = (),
    ) -> httpx.Response:
        """``PUT`` a manifest by ``reference`` (None: its digest); its own ``mediaType`` unless another is given."""
        content = encode(document)
        if media_type == "":
            media_type = document.get("mediaType", OCI_MANIFEST) if isinstance(document, dict) else OCI_MANIFEST
        typed = {"content-type": media_type} if media_type else {}
        address = self.at(f"manifests/{digest_of(content) if reference is None else reference}")
        return await self.client.put(
            address, content=content, headers={**typed, **(headers or {})}, params=list(params) or None
        )

    async def push(self, document: Json | bytes, reference: str | None = None, **request: Any) -> str:
        """Push a manifest that must be taken; its digest."""
        response = await self.put(document, reference, **request)
        assert response.status_code == 201, response.text
        digest: str = response.headers["docker-content-digest"]
        return digest

    async def push_image(self, reference: str | None = None, layers: Sequence[bytes] = (LAYER,), **more: Any) -> Json:
        """Push an image with its blobs; a descriptor of it."""
        for content in (CONFIG, *layers):
            await self.push_blob(content)
        document = image(CONFIG, layers, **more)
        await self.push(document, reference)
        return descriptor(encode(document), OCI_MANIFEST)

    async def push_artifact(
        self, subject: Json | None, kind: str = "application/vnd.example.sbom", **more: Any
    ) -> Json:
        """Push an artifact that refers to ``subject``; a descriptor of it."""
        await self.push_blob(EMPTY)
        document = artifact(kind, subject, **more)
        await self.push(document)
        return descriptor(encode(document), OCI_MANIFEST)

    async def tags(self) -> list[str]:
        response = await self.get("tags/list")
        assert response.status_code == 200, response.text
        found: list[str] = response.json()["tags"]
        return found

    async def referrers(self, digest: str, query: str = "") -> list[Json]:
        response = await self.get(f"referrers/{digest}{query}")
        assert response.status_code == 200, response.text
        found: list[Json] = response.json()["manifests"]
        return found


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    """A body without an announced length."""
    for content in contents:
        yield content


@dataclass
class Exchange:
    """One request over bare ASGI, and what came of it. ``messages`` are what ``receive`` gives, in order."""

    app: Any
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    messages: Iterable[Mapping[str, Any]] = ()
    query: str = ""
    scope: Mapping[str, Any] = field(default_factory=dict)
    taken: int = 0
    sent: list[Json] = field(default_factory=list)

    async def run(self) -> "Exchange":
        path, _, query = self.path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 40000),
            "server": ("registry.test", 80),
        } | dict(self.scope)
        waiting = iter(self.messages or [body(b"")])

        async def receive() -> Mapping[str, Any]:
            message = next(waiting, None)
            if message is None:  # as a server does while its client waits for the answer
                await asyncio.Event().wait()
            self.taken += 1
            return message or DISCONNECT

        async def send(message: Json) -> None:
            self.sent.append(message)
            await asyncio.sleep(0)  # as a server does whose client takes its time

        await self.app(scope, receive, send)
        return self

    @property
    def response(self) -> httpx.Response:
        """The answer; raises if there was none."""
        start = self.sent[0]
        content = b"".join(bytes(message.get("body", b"")) for message in self.sent[1:])
        return httpx.Response(start["status"], headers=start["headers"], content=content)


def body(content: bytes, *, more: bool = False) -> Json:
    """The ASGI message that brings ``content``."""
    return {"type": "http.request", "body": content, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


def connect(url: str, timeout: float = 20.0) -> socket.socket:
    """A bare connection to the server at ``url``."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout)


def raw(url: str, request: bytes) -> bytes:
    """All that the server at ``url`` answers to the bytes of a request, until it closes the connection."""
    with connect(url) as connection:
        connection.sendall(request)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def eventually(true: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Return once ``true`` holds; fails naming ``what`` if it does not in time."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def sizes(root: Path) -> list[int]:
    """How large the files below ``root`` are that hold bytes; a server may delete one meanwhile."""
    found = []
    for path in (root / "blobs").glob("??/*"):
        with suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return found
