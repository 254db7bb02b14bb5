"""Content of other registries and programs, taken in by the verbs of this one.

Children and blobs go before parents. What the repository has is not read, what the registry has is mounted, and
every digest is verified: so it may be broken off anywhere and done again, and a second time costs a look.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from moorage.metadata.referrers import is_list
from moorage.registry.layouts import Origin, origins, read_whole
from moorage.registry.registry import Registry
from moorage.spec import digest as digests
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, RegistryError
from moorage.spec.manifest import parse
from moorage.spec.names import FALLBACK_TAG, check_new
from moorage.storage.trees import Tree

ACTOR: Final = "import"
_FAILURE: Final = 500  # from this status on it is the registry that fails, and nothing else would succeed
_SCHEMA_1: Final = re.compile(rb'"schemaVersion"\s*:\s*1\b')


@dataclass(slots=True)
class Imported:
    """What was done, or would be: ``manifests`` and ``tags`` that are new, ``blobs`` read and their ``size``.

    ``mounted`` were in the registry, ``kept`` is what the repositories had; ``problems`` names what did not come.
    """

    repositories: int = 0
    manifests: int = 0
    tags: int = 0
    blobs: int = 0
    size: int = 0
    mounted: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


class Import:
    """One import of ``tree`` into ``registry``; ``jobs`` manifests, and as many blobs, are under way at once.

    ``name`` is as in ``origins``. ``told`` hears of each step. With ``dry_run`` nothing is changed.
    """

    def __init__(
        self,
        registry: Registry,
        tree: Tree,
        *,
        name: str | None = None,
        jobs: int = 4,
        dry_run: bool = False,
        told: Callable[[Imported], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._tree = tree
        self._name = name
        self._jobs = jobs
        self._dry_run = dry_run
        self._told = told
        self._done = Imported()
        self._read: set[str] = set()

    async def run(self) -> Imported:
        """Do it; raises ``SourceUnknown``, and what says that the registry itself fails (``StorageFull``…)."""
        async for origin in origins(self._tree, self._name, self._done.problems.append):
            try:
                check_new(origin.repository)
            except RegistryError as error:
                self._done.problems.append(f"{origin.repository}: {said(error)}")
                continue
            await self._repository(origin)
        return self._done

    async def _repository(self, origin: Origin) -> None:
        taken = await self._taken(origin)
        tags: dict[Digest, list[str]] = {each: [] for each in origin.manifests}
        for tag, digest in origin.tags:
            tags.setdefault(digest, []).append(tag)
        waiting = iter(tags.items())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._jobs):
                    group.create_task(self._work(taken, waiting))
        except ExceptionGroup as several:
            first: Exception = several
            while isinstance(first, ExceptionGroup):
                first = first.exceptions[0]
            raise first from None
        self._done.repositories += 1

    async def _taken(self, origin: Origin) -> "Taken":
        slots = asyncio.Semaphore(self._jobs)
        return Taken(self._registry, self._tree, origin, self._done, slots, self._dry_run, self._read)

    async def _work(self, taken: "Taken", waiting: Iterator[tuple[Digest, list[str]]]) -> None:
        for digest, tags in waiting:
            await taken.tagged(digest, tags)
            self._told(self._done)


@dataclass(slots=True)
class Taken:
    """What is taken into one repository, each thing once; ``there`` are the manifests that came or had come."""

    registry: Registry
    tree: Tree
    origin: Origin
    done: Imported
    slots: asyncio.Semaphore
    dry_run: bool
    read: set[str]  # what came before, of which a dry run finds nothing in the registry
    under_way: dict[str, "asyncio.Future[None]"] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    async def tagged(self, digest: Digest, tags: list[str]) -> None:
        """Take a manifest with all that it needs, and let ``tags`` name it."""
        await self._once(digest, partial(self._manifest, digest, tags))
        for tag in tags:
            if digest not in self.there:
                self._problem(f":{tag}", f"names {digest}, which did not come")
                continue
            try:
                if not await self._names(tag, digest):
                    await self._tag(digest, tag)
            except RegistryError as error:
                self._failed(f":{tag}", error)

    async def _once(self, digest: Digest, take: Callable[[], Awaitable[None]]) -> None:
        if (known := self.under_way.get(digest)) is not None:
            await asyncio.wait([known])
            return
        future = self.under_way[digest] = asyncio.get_running_loop().create_future()
        try:
            await take()
        except RegistryError as error:
            self._failed(f"@{digest}", error)
        finally:
            future.set_result(None)

    async def _manifest(self, digest: Digest, tags: list[str]) -> None:
        if await self._has(digest):
            self.done.kept += 1
            self.there.add(digest)
            return
        try:
            content = await self._content(digest)
            facts = parse(content, None, allow_unknown=self.registry.policy.unknown_manifests)
            children = [(each, Digest.parse(each.digest)) for each in facts.references]
        except (RegistryError, OSError) as error:
            self._failed(f"@{digest}", error)
            return
        listing = is_list(facts, tags)  # it needs nothing, and is taken for what it is by its tag
        async with asyncio.TaskGroup() as group:
            for each, child in children:
                required = each.required and not listing
                take = self._child if each.kind == "manifest" else self._blob
                group.create_task(self._once(child, partial(take, child, required=required)))
        if self.dry_run:
            lost = [child for each, child in children if each.required and not listing and child in self.lost]
            if lost:
                self._problem(f"@{digest}", f"needs {', '.join(lost)}")
                return
        else:
            named = tags[:1] if listing else []
            await self._put(digest, content, named)
            self.done.tags += len(named)
        self.done.manifests += 1
        self.there.add(digest)

    async def _content(self, digest: Digest) -> bytes:
        if (made := self.origin.made.get(digest)) is not None:
            return made
        path = self.origin.path_of(digest)
        content = await read_whole(self.tree, path, self.registry.policy.manifest_limit)
        computed = digests.compute(content, digest.algorithm)
        if computed != digest:
            raise OSError(f"the bytes of {path} have the digest {computed}" if content else f"{path} is empty")
        if _SCHEMA_1.search(content):
            raise ManifestInvalid("a manifest of schema 1, which no client pulls any more, is left out")
        return content

    async def _child(self, digest: Digest, *, required: bool) -> None:
        if required or await self.tree.size(self.origin.path_of(digest)) is not None:
            await self._manifest(digest, [])
            if digest not in self.there:
                self.lost.add(digest)

    async def _blob(self, digest: Digest, *, required: bool) -> None:
        blobs, repository = self.registry.blobs, self.origin.repository
        path = self.origin.path_of(digest)
        try:
            await blobs.get(repository, digest)
            self.done.kept += 1
        except BlobUnknown:
            if await self._mount(digest):
                self.done.mounted += 1
            elif (size := await self.tree.size(path)) is not None:
                async with self.slots:
                    await self._push(digest, path, size)
            elif required:
                self.lost.add(digest)
                self._problem(f"@{digest}", f"{path} is not there")

    async def _mount(self, digest: Digest) -> bool:
        if self.dry_run:
            known = digest in self.read or bool(await self.registry.blobs.holders(digest))
            self.read.add(digest)
            return known
        return await self.registry.blobs.mount(self.origin.repository, digest, actor=ACTOR)

    async def _push(self, digest: Digest, path: str, size: int) -> None:
        unreadable = None

        async def body() -> AsyncIterator[bytes]:
            nonlocal unreadable
            try:
                async for piece in self.tree.read(path):
                    yield piece
            except OSError as error:
                unreadable = error
                raise

        if not self.dry_run:
            try:
                await self.registry.uploads.push(self.origin.repository, digest, body(), actor=ACTOR)
            except (RegistryError, OSError) as error:
                if isinstance(error, OSError) and error is not unreadable:
                    raise
                self._failed(f"@{digest}", error)
                return
        self.done.blobs += 1
        self.done.size += size

    async def _tag(self, digest: Digest, tag: str) -> None:
        if not self.dry_run:
            content = (await self.registry.manifests.get(self.origin.repository, digest)).content
            await self._put(digest, content or b"", [tag])
        self.done.tags += 1

    async def _put(self, digest: Digest, content: bytes, tags: list[str]) -> None:
        await self.registry.manifests.put(self.origin.repository, digest, content, also=tags, actor=ACTOR)

    async def _has(self, digest: Digest) -> bool:
        try:
            await self.registry.manifests.get(self.origin.repository, digest, content=False)
        except ManifestUnknown:
            return False
        return True

    async def _names(self, tag: str, digest: Digest) -> bool:
        """Whether the repository's tag names it; a fallback tag has gone on to a list that holds more."""
        try:
            found = await self.registry.manifests.get(self.origin.repository, tag, content=False)
        except ManifestUnknown:
            return False
        return found.digest == digest or (FALLBACK_TAG.fullmatch(tag) is not None and await self._has(digest))

    def _problem(self, what: str, why: str) -> None:
        self.done.problems.append(f"{self.origin.repository}{what}: {why}")

    def _failed(self, what: str, error: RegistryError | OSError) -> None:
        """Tell of what did not come; raises ``error`` where it is the registry that fails."""
        if isinstance(error, RegistryError) and error.status >= _FAILURE:
            raise error
        self._problem(what, said(error) if isinstance(error, RegistryError) else str(error))


def said(error: RegistryError) -> str:
    """What an error says, with its details."""
    details = [f"{key}={value}" for each in error.details if isinstance(each, dict) for key, value in each.items()]
    return error.text + (f" ({', '.join(details)})" if details else "")
