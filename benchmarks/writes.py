"""Loads that write: blobs each way, whole images, and many small artifacts; nothing is ever pushed twice."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import ClassVar

from benchmarks.client import Wire
from benchmarks.content import Blob, Mint
from benchmarks.loads import Load, check_bytes
from benchmarks.scale import Scale
from benchmarks.verbs import EMPTY, blob_of, digest_of, manifest_of

REPOSITORY = "bench/write"
WRITERS = frozenset({"registry", "floor"})


class BlobPush(Load):
    kinds = WRITERS
    clients = 4
    size: ClassVar[str]

    @classmethod
    def writes(cls, scale: Scale) -> list[int]:
        return [int(getattr(scale, cls.size))]

    async def prepare(self) -> None:
        self.mint = Mint(self.moved(self.scale))

    async def push(self, wire: Wire, blob: Blob) -> None:
        await self.verbs.put(wire, REPOSITORY, blob)

    async def check(self, wires: list[Wire]) -> None:
        blob = self.mint.blob()
        await self.push(wires[0], blob)
        if blob.size < self.scale.large:  # else it takes too long, and the same load with 10 MB looks at them
            await check_bytes(wires[0], self.verbs.get(REPOSITORY, blob.digest), blob.digest, blob.size)

    async def operate(self, wires: list[Wire]) -> None:
        await self.push(wires[0], self.mint.blob())


class BlobPutSmall(BlobPush):
    name, what, size, clients = "blob-put-4k", "a blob of 4 KiB by POST and PUT", "small", 32


class BlobPutMedium(BlobPush):
    name, what, size = "blob-put-10m", "a blob of 10 MB by POST and PUT", "medium"


class BlobPutLarge(BlobPush):
    name, what, size, clients = "blob-put-1g", "a blob of 1 GiB by POST and PUT", "large", 1
    apart = True


class BlobPatch(BlobPush):
    async def push(self, wire: Wire, blob: Blob) -> None:
        await self.verbs.patch(wire, REPOSITORY, blob)


class BlobPatchSmall(BlobPatch):
    name, what, size, clients = "blob-patch-4k", "a blob of 4 KiB by POST, streamed PATCH and PUT", "small", 32


class BlobPatchMedium(BlobPatch):
    name, what, size = "blob-patch-10m", "a blob of 10 MB by POST, streamed PATCH and PUT", "medium"


class BlobPatchLarge(BlobPatch):
    name, what, size, clients = "blob-patch-1g", "a blob of 1 GiB by POST, streamed PATCH and PUT", "large", 1
    apart = True


class BlobChunks(BlobPush):
    @classmethod
    def leaves(cls, scale: Scale) -> list[int]:
        return [size := int(getattr(scale, cls.size)), scale.chunk, size % scale.chunk]

    async def push(self, wire: Wire, blob: Blob) -> None:
        await self.verbs.chunks(wire, REPOSITORY, blob, self.scale.chunk)


class BlobChunksMedium(BlobChunks):
    name, what, size = "blob-chunks-10m", "a blob of 10 MB by POST, PATCHes of 5 MiB and PUT", "medium"


class BlobChunksLarge(BlobChunks):
    name, what, size, clients = "blob-chunks-1g", "a blob of 1 GiB by POST, PATCHes of 5 MiB and PUT", "large", 1
    apart = True


class BlobAgain(BlobPush):
    name, what, size = "blob-again-10m", "a blob of 10 MB that is already there, by POST and PUT", "medium"
    kinds = frozenset({"registry"})
    forgets = False

    async def prepare(self) -> None:
        await super().prepare()
        self.known = self.mint.blob()

    async def check(self, wires: list[Wire]) -> None:
        await self.push(wires[0], self.known)
        await self.push(wires[0], self.known)
        await check_bytes(wires[0], self.verbs.get(REPOSITORY, self.known.digest), self.known.digest, self.known.size)

    async def operate(self, wires: list[Wire]) -> None:
        await self.push(wires[0], self.known)


class BlobMount(Load):
    name, what = "blob-mount", "mount of a blob that another repository has"
    kinds = frozenset({"registry"})

    async def prepare(self) -> None:
        self.blob, self.numbers = Mint(self.scale.small).blob(), itertools.count()
        await self.target.store.blob(REPOSITORY, self.blob)

    async def check(self, wires: list[Wire]) -> None:
        repository = await self._mount(wires[0])
        await check_bytes(wires[0], self.verbs.get(repository, self.blob.digest), self.blob.digest, self.blob.size)

    async def operate(self, wires: list[Wire]) -> None:
        await self._mount(wires[0])

    async def _mount(self, wire: Wire) -> str:
        repository = f"bench/mount-{next(self.numbers)}"
        await self.verbs.mount(wire, repository, self.blob.digest, REPOSITORY)
        return repository


class ImagePush(Load):
    name, what = (
        "image-push",
        "a whole image as docker pushes it: HEAD, POST, PATCH, PUT of 10 layers of 1 MB, manifest",
    )
    kinds = WRITERS
    clients = 2
    wires = 5  # docker's default of concurrent uploads

    @classmethod
    def writes(cls, scale: Scale) -> list[int]:
        return [scale.layer] * scale.layers

    async def prepare(self) -> None:
        self.layers, self.configs, self.numbers = Mint(self.scale.layer), Mint(1500, seed=1), itertools.count()

    async def check(self, wires: list[Wire]) -> None:
        tag, content, blobs = await self._push(wires)
        for blob in blobs:
            await check_bytes(wires[0], self.verbs.get(REPOSITORY, blob.digest), blob.digest, blob.size)
        await check_bytes(wires[0], self.verbs.get_manifest(REPOSITORY, tag), digest_of(content), len(content))

    async def operate(self, wires: list[Wire]) -> None:
        await self._push(wires)

    async def _push(self, wires: list[Wire]) -> tuple[str, bytes, list[Blob]]:
        tag = f"v{next(self.numbers)}"
        blobs = [self.configs.blob(), *(self.layers.blob() for _ in range(self.scale.layers))]
        waiting = iter(blobs)

        async def push(wire: Wire) -> None:
            for blob in waiting:
                await wire.ask(self.verbs.head(REPOSITORY, blob.digest), 404, bodiless=True)
                await self.verbs.patch(wire, REPOSITORY, blob)

        async with asyncio.TaskGroup() as group:
            for wire in wires:
                group.create_task(push(wire))
        content = manifest_of(blobs[0], blobs[1:])
        await self.verbs.put_manifest(wires[0], REPOSITORY, tag, content)
        return tag, content, blobs


class Artifacts(Load):
    kinds = WRITERS
    clients = 200
    many: ClassVar[bool]

    @classmethod
    def writes(cls, scale: Scale) -> list[int]:  # noqa: ARG003 always the same
        return [1024, 600]  # the artifact, and about what its manifest has

    async def prepare(self) -> None:
        self.mint, self.numbers = Mint(1024), itertools.count()
        self.config = blob_of(b"{}")
        count = self.scale.repositories if self.many else 1
        self.repositories = [f"bench/artifacts-{number}" for number in range(count)]
        waiting = iter(self.repositories)

        async def push() -> None:
            wire = await self.target.server.open()
            for repository in waiting:
                await self.verbs.put(wire, repository, self.config)
            wire.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(32):
                group.create_task(push())

    async def check(self, wires: list[Wire]) -> None:
        repository, tag, content, blob = await self._push(wires[0])
        await check_bytes(wires[0], self.verbs.get(repository, blob.digest), blob.digest, blob.size)
        await check_bytes(wires[0], self.verbs.get_manifest(repository, tag), digest_of(content), len(content))

    async def operate(self, wires: list[Wire]) -> None:
        await self._push(wires[0])

    async def _push(self, wire: Wire) -> tuple[str, str, bytes, Blob]:
        number = next(self.numbers)
        repository = self.repositories[number % len(self.repositories)]
        blob = self.mint.blob()
        content = manifest_of(self.config, [blob], config_type=EMPTY, layer_type="application/octet-stream")
        await wire.ask(self.verbs.head(repository, self.config.digest), 200, bodiless=True)
        await self.verbs.put(wire, repository, blob)
        await self.verbs.put_manifest(wire, repository, f"v{number}", content)
        return repository, f"v{number}", content, blob


class ArtifactsOne(Artifacts):
    name, what, many = "artifacts-one", "artifacts of 1 KiB from 200 clients into one repository", False


class ArtifactsMany(Artifacts):
    name, what, many = "artifacts-many", "artifacts of 1 KiB from 200 clients over 1,000 repositories", True
    apart = True  # as into one, and long to prepare


LOADS: Sequence[type[Load]] = (
    BlobPutSmall,
    BlobPutMedium,
    BlobPutLarge,
    BlobPatchSmall,
    BlobPatchMedium,
    BlobPatchLarge,
    BlobChunksMedium,
    BlobChunksLarge,
    BlobAgain,
    BlobMount,
    ImagePush,
    ArtifactsOne,
    ArtifactsMany,
)
