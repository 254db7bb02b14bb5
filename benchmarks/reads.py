"""Loads that read: manifests, blobs, whole images."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar

from benchmarks.client import LoadError, Wire
from benchmarks.content import MIB, Mint
from benchmarks.loads import Load, check_bytes
from benchmarks.scale import Scale
from benchmarks.verbs import digest_of

REPOSITORY = "bench/read"
SERVERS = frozenset({"registry", "files"})
REGISTRIES = frozenset({"registry"})


class Manifest(Load):
    kinds = SERVERS
    method: ClassVar[str] = "GET"
    by: ClassVar[str] = "tag"

    async def prepare(self) -> None:
        self.content, _ = await self.target.store.image(REPOSITORY, "v1", self.scale.layers, 1024)
        self.digest = digest_of(self.content)
        reference = "v1" if self.by == "tag" else self.digest
        self.request = self.verbs.get_manifest(REPOSITORY, reference, self.method)

    async def check(self, wires: list[Wire]) -> None:
        if self.method == "GET":
            await check_bytes(wires[0], self.request, self.digest, len(self.content))
            return
        answer = await wires[0].ask(self.request, 200, bodiless=True, length=len(self.content))
        if self.target.kind == "registry" and answer.header(b"docker-content-digest") != self.digest.encode():
            raise LoadError(f"HEAD of a manifest without its digest: {answer.head!r}")

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(self.request, 200, bodiless=self.method == "HEAD", length=len(self.content))


class ManifestGetTag(Manifest):
    name, what = "manifest-get-tag", "GET of a manifest (2-3 KB) by tag"


class ManifestHeadTag(Manifest):
    name, what, method = "manifest-head-tag", "HEAD of a manifest by tag", "HEAD"


class ManifestGetDigest(Manifest):
    name, what, by = "manifest-get-digest", "GET of a manifest by digest", "digest"
    apart = True  # as by tag


class ManifestHeadDigest(Manifest):
    name, what = "manifest-head-digest", "HEAD of a manifest by digest"
    method, by = "HEAD", "digest"
    apart = True  # as by tag


class BlobGet(Load):
    kinds = SERVERS
    clients = 4
    size: ClassVar[str]

    @classmethod
    def moved(cls, scale: Scale) -> int:
        return int(getattr(scale, cls.size))

    async def prepare(self) -> None:
        self.blob = Mint(self.moved(self.scale)).blob()
        await self.target.store.blob(REPOSITORY, self.blob)
        self.request = self.verbs.get(REPOSITORY, self.blob.digest)

    async def check(self, wires: list[Wire]) -> None:
        await check_bytes(wires[0], self.request, self.blob.digest, self.blob.size)

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(self.request, 200, length=self.blob.size)


class BlobGetSmall(BlobGet):
    name, what, size, clients = "blob-get-4k", "GET of a blob of 4 KiB", "small", 32


class BlobGetMedium(BlobGet):
    name, what, size = "blob-get-10m", "GET of a blob of 10 MB", "medium"


class BlobGetLarge(BlobGet):
    name, what, size, clients = "blob-get-1g", "GET of a blob of 1 GiB", "large", 1
    apart = True


class BlobRange(Load):
    name, what = "blob-range-1m", "GET of 1 MiB within a blob of 128 MiB"
    kinds = SERVERS
    clients = 4

    @classmethod
    def moved(cls, scale: Scale) -> int:  # noqa: ARG003 always the same
        return MIB

    async def prepare(self) -> None:
        self.blob = Mint(max(3 * MIB, self.scale.large // 8)).blob()
        await self.target.store.blob(REPOSITORY, self.blob)
        # Off the blob's own grid of 1 MiB, as a client that resumes would ask.
        starts = range(12_345, self.blob.size - MIB, max(1, self.blob.size // 61))
        self.requests: Iterator[bytes] = itertools.cycle([self._range(start) for start in starts])

    def _range(self, start: int) -> bytes:
        line = f"Range: bytes={start}-{start + MIB - 1}\r\n\r\n"
        return self.verbs.get(REPOSITORY, self.blob.digest)[:-2] + line.encode()

    async def check(self, wires: list[Wire]) -> None:
        start = self.blob.size - MIB  # the last MiB holds what makes this blob unlike every other
        expected = b"".join(self.blob.pieces[-2:])[-MIB:]
        await check_bytes(wires[0], self._range(start), digest_of(expected), MIB, 206)

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(next(self.requests), 206, length=MIB)


class BlobHead(Load):
    name, what = "blob-head", "HEAD of a blob that is there"
    kinds = SERVERS
    status: ClassVar[int] = 200

    async def prepare(self) -> None:
        mint = Mint(self.scale.small)
        self.blob, absent = mint.blob(), mint.blob()
        await self.target.store.blob(REPOSITORY, self.blob)
        self.request = self.verbs.head(REPOSITORY, (self.blob if self.status == 200 else absent).digest)

    async def check(self, wires: list[Wire]) -> None:
        answer = await wires[0].ask(self.request, self.status, bodiless=True)
        if self.status == 200 and answer.length != self.blob.size:
            raise LoadError(f"HEAD of a blob names {answer.length} bytes instead of {self.blob.size}")

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(self.request, self.status, bodiless=True)


class BlobHeadMissing(BlobHead):
    name, what, status = "blob-head-missing", "HEAD of a blob that is not there", 404
    apart = True  # as of one that is there


class ImagePull(Load):
    name, what = "image-pull", "a whole image: manifest by tag, config, 10 layers of 1 MB, 3 at a time"
    kinds = SERVERS
    clients = 2
    wires = 3  # docker's default of concurrent downloads

    @classmethod
    def moved(cls, scale: Scale) -> int:
        return scale.layers * scale.layer

    async def prepare(self) -> None:
        store = self.target.store
        self.manifest, self.blobs = await store.image(REPOSITORY, "v1", self.scale.layers, self.scale.layer)
        self.get_manifest = self.verbs.get_manifest(REPOSITORY, "v1")
        self.get_blob = {blob.digest: self.verbs.get(REPOSITORY, blob.digest) for blob in self.blobs}

    async def check(self, wires: list[Wire]) -> None:
        await check_bytes(wires[0], self.get_manifest, digest_of(self.manifest), len(self.manifest))
        for blob in self.blobs:
            await check_bytes(wires[0], self.get_blob[blob.digest], blob.digest, blob.size)

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(self.get_manifest, 200, length=len(self.manifest))
        waiting = iter(self.blobs)

        async def fetch(wire: Wire) -> None:
            for blob in waiting:
                await wire.ask(self.get_blob[blob.digest], 200, length=blob.size)

        async with asyncio.TaskGroup() as group:
            for wire in wires:
                group.create_task(fetch(wire))


LOADS: Sequence[type[Load]] = (
    ManifestGetTag,
    ManifestHeadTag,
    ManifestGetDigest,
    ManifestHeadDigest,
    BlobGetSmall,
    BlobGetMedium,
    BlobGetLarge,
    BlobRange,
    BlobHead,
    BlobHeadMissing,
    ImagePull,
)
