"""The verbs of the specification that the loads are made of, and how a peer gets the content that it then serves."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from benchmarks.client import Server, Wire, sha256
from benchmarks.content import MIB, Blob, Frames, Mint

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
# What docker and containerd list; without it docker-registry 2.8 hides OCI manifests.
ACCEPT = (
    "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
)


def digest_of(content: bytes) -> str:
    state = sha256()
    state.update(content)
    return f"sha256:{state.hexdigest()}"


def blob_of(content: bytes) -> Blob:
    return Blob(digest_of(content), len(content), (content,))


def manifest_of(config: Blob, layers: Sequence[Blob], *, config_type: str = CONFIG, layer_type: str = LAYER) -> bytes:
    """An image manifest, written as the common builders do: indented, 2 to 3 KB for ten layers."""

    def descriptor(media_type: str, blob: Blob) -> dict[str, str | int]:
        return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}

    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config_type, config),
        "layers": [descriptor(layer_type, layer) for layer in layers],
        "annotations": {"org.opencontainers.image.created": "2026-07-01T00:00:00Z"},
    }
    return json.dumps(document, indent=2).encode()


class Store(ABC):
    """Where content is put so that a peer serves it."""

    @abstractmethod
    async def blob(self, repository: str, blob: Blob) -> None: ...

    @abstractmethod
    async def manifest(self, repository: str, reference: str, content: bytes) -> None: ...

    async def image(self, repository: str, tag: str, layers: int, size: int) -> tuple[bytes, list[Blob]]:
        """Put an image; returns its manifest and its blobs, the config first."""
        mint, config = Mint(size), Mint(1500, seed=1).blob()
        blobs = [config, *(mint.blob() for _ in range(layers))]
        for blob in blobs:
            await self.blob(repository, blob)
        content = manifest_of(config, blobs[1:])
        await self.manifest(repository, tag, content)
        return content, blobs


class Files(Store):
    """A tree that a static file server shows under the registry's own paths."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def blob(self, repository: str, blob: Blob) -> None:
        with self._path(repository, "blobs", blob.digest).open("wb") as file:
            file.writelines(blob.pieces)

    async def manifest(self, repository: str, reference: str, content: bytes) -> None:
        for name in (reference, digest_of(content)):
            self._path(repository, "manifests", name).write_bytes(content)

    def _path(self, repository: str, kind: str, name: str) -> Path:
        folder = self._root / "v2" / repository / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


class Verbs(Store):
    """Pushes over HTTP, on whichever wire; each answer's status is checked."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self._server = server
        self._wire = wire
        self._frames = Frames()
        self._starts: dict[str, bytes] = {}

    async def blob(self, repository: str, blob: Blob) -> None:
        await self.put(self._wire, repository, blob)

    async def manifest(self, repository: str, reference: str, content: bytes) -> None:
        await self.put_manifest(self._wire, repository, reference, content)

    async def start(self, wire: Wire, repository: str) -> str:
        """POST: a new upload session's place."""
        request = self._starts.get(repository)
        if request is None:
            path = f"/v2/{repository}/blobs/uploads/"
            request = self._starts[repository] = self._server.request("POST", path, "Content-Length: 0")
        await wire.ask(request, 202)
        return wire.location

    async def put(self, wire: Wire, repository: str, blob: Blob) -> None:
        """POST, then PUT with all of the bytes."""
        place = await self.start(wire, repository)
        await self._close(wire, place, blob.digest, blob.pieces, blob.size)

    async def patch(self, wire: Wire, repository: str, blob: Blob) -> None:
        """POST, one PATCH without a length, PUT without a body: docker's way."""
        place = await self.start(wire, repository)
        request = self._server.request(
            "PATCH", place, "Transfer-Encoding: chunked", "Content-Type: application/octet-stream"
        )
        await wire.ask(request, 202, body=self._frames.of(blob))
        await self._close(wire, wire.location, blob.digest, (), 0)

    async def chunks(self, wire: Wire, repository: str, blob: Blob, size: int) -> None:
        """POST, a PATCH with Content-Range for each ``size`` bytes (whole MiB), PUT without a body."""
        place = await self.start(wire, repository)
        start, count = 0, size // MIB
        for first in range(0, len(blob.pieces), count):
            chunk = blob.pieces[first : first + count]
            stop = start + sum(map(len, chunk))
            request = self._server.request(
                "PATCH",
                place,
                f"Content-Length: {stop - start}",
                f"Content-Range: {start}-{stop - 1}",
                "Content-Type: application/octet-stream",
            )
            await wire.ask(request, 202, body=chunk)
            place, start = wire.location, stop
        await self._close(wire, place, blob.digest, (), 0)

    async def _close(self, wire: Wire, place: str, digest: str, body: Sequence[bytes], size: int) -> None:
        request = self._server.request(
            "PUT",
            f"{place}{'&' if '?' in place else '?'}digest={digest}",
            f"Content-Length: {size}",
            "Content-Type: application/octet-stream",
        )
        await wire.ask(request, 201, body=body)

    async def put_manifest(self, wire: Wire, repository: str, reference: str, content: bytes) -> None:
        path = f"/v2/{repository}/manifests/{reference}"
        fields = (f"Content-Type: {MANIFEST}", f"Content-Length: {len(content)}")
        await wire.ask(self._server.request("PUT", path, *fields) + content, 201)

    async def mount(self, wire: Wire, repository: str, digest: str, source: str) -> None:
        """POST that takes a blob over from another repository."""
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        await wire.ask(self._server.request("POST", path, "Content-Length: 0"), 201)

    def head(self, repository: str, digest: str) -> bytes:
        return self._server.request("HEAD", f"/v2/{repository}/blobs/{digest}")

    def get(self, repository: str, digest: str) -> bytes:
        return self._server.request("GET", f"/v2/{repository}/blobs/{digest}")

    def get_manifest(self, repository: str, reference: str, method: str = "GET") -> bytes:
        return self._server.request(method, f"/v2/{repository}/manifests/{reference}", ACCEPT)
