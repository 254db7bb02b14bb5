"""A storage tree of distribution, served where it lies: its facts are taken in at once, its bytes in their own time.

Facts come by reading links and manifests, never layers; of these the size is compared. What was seen in the tree is
remembered in the transaction that takes it in. So a second run takes only what came since, and what was deleted or
moved here never comes again: a tag follows the tree only while it names what the tree's named before.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from moorage.metadata import adoption
from moorage.registry.imports import Import, Imported, Taken
from moorage.registry.layouts import Origin
from moorage.registry.registry import Registry
from moorage.spec.digest import Digest
from moorage.spec.errors import ManifestBlobUnknown, PreconditionFailed
from moorage.spec.manifest import parse
from moorage.spec.names import FALLBACK_TAG
from moorage.spec.preconditions import ALWAYS, Precondition
from moorage.storage.base import key_in_tree
from moorage.storage.trees import Tree, data_path, storage_place

ACTOR: Final = "adopt"
_SAMPLE: Final = 500


class Adoption(Import):
    """One adoption of ``tree``, which the registry's store must read too; ``place`` says where it is.

    ``jobs`` and ``told`` are as in ``Import``.
    """

    def __init__(
        self,
        registry: Registry,
        tree: Tree,
        place: str,
        *,
        jobs: int = 16,
        told: Callable[[Imported], None] = lambda _: None,
    ) -> None:
        super().__init__(registry, tree, jobs=jobs, told=told)
        self._place = place

    async def run(self) -> Imported:
        """Do it; ``blobs`` and ``size`` are of what lies in the tree. Raises as ``Import.run`` does.

        And ``RuntimeError`` where it is no tree of distribution, or bytes are read from another one.
        """
        metadata = self._registry.metadata
        folder = await storage_place(self._tree)
        if folder is None:
            raise RuntimeError(f"{self._place}: allowed: a storage tree of distribution (docker/registry/v2)")
        before = [Digest(digest) for digest, *_ in await metadata.fetch("blobs_in_tree", "", _SAMPLE)]
        paths = [data_path(folder, each.algorithm, each.encoded) for each in before]
        if paths and not any([await self._tree.size(path) is not None for path in paths]):
            raise RuntimeError(
                f"{self._place}: bytes are read from {await adoption.tree(metadata)}, and none of them is here; "
                "allowed: one tree at a time, the next one after `moorage adopt --finish`"
            )
        await metadata.transact(adoption.begin, self._place, self._registry.clock())
        return await super().run()

    async def _taken(self, origin: Origin) -> Taken:
        seen = await adoption.seen(self._registry.metadata, origin.repository)
        slots = asyncio.Semaphore(self._jobs)
        return _Adopted(self._registry, self._tree, origin, self._done, slots, dry_run=False, read=set(), seen=seen)


@dataclass(kw_only=True)  # slots would need super() spelled out
class _Adopted(Taken):
    """What is taken into one repository. ``seen`` is what earlier runs saw of it, ``sizes`` those of blobs."""

    seen: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)

    async def tagged(self, digest: Digest, tags: list[str]) -> None:
        await super().tagged(digest, [tag for tag in tags if self.seen.get(tag) != digest])

    async def _manifest(self, digest: Digest, tags: list[str]) -> None:
        if digest in self.seen:
            if await self._has(digest):
                self.done.kept += 1
                self.there.add(digest)
            return  # else it was deleted here
        if await self._has(digest):  # it came by a push
            await self._saw(digest, digest)
        await super()._manifest(digest, tags)

    async def _blob(self, digest: Digest, *, required: bool) -> None:
        async with self.slots:
            size = await self.tree.size(self.origin.path_of(digest))
        if size is None:
            await super()._blob(digest, required=required)
            return
        self.sizes[digest] = size
        self.done.blobs += 1
        self.done.size += size

    async def _put(self, digest: Digest, content: bytes, tags: list[str]) -> None:
        lying = []
        for each in parse(content, None, allow_unknown=True).references:
            size, blob = self.sizes.get(each.digest), Digest(each.digest)
            if size == each.size:
                lying.append((blob, size, key_in_tree(blob)))
            elif size is not None and each.required:
                detail = {"digest": each.digest, "size": size, "expected": each.size}
                raise ManifestBlobUnknown("a blob is cut short, or another", detail=detail)
        await self._adopt(digest, content, tags, ALWAYS, lying=lying, names=[(digest, digest)])

    async def _names(self, tag: str, digest: Digest) -> bool:
        if not await super()._names(tag, digest):
            return False
        await self._saw(tag, digest)
        return True

    async def _tag(self, digest: Digest, tag: str) -> None:
        before = self.seen.get(tag)
        unchanged = Precondition(none_match="*") if before is None else Precondition(match=f'"{before}"')
        if FALLBACK_TAG.fullmatch(tag):  # the registry itself moves it on, so it only has to be there still
            unchanged = ALWAYS if before is None else Precondition(match="*")
        content = (await self.registry.manifests.get(self.origin.repository, digest)).content or b""
        try:
            await self._adopt(digest, content, [tag], unchanged, names=[(tag, digest)])
            self.done.tags += 1
        except PreconditionFailed:
            self._problem(f":{tag}", f"was changed here, and stays so; the tree's names {digest}")
            await self._saw(tag, digest)

    async def _adopt(
        self, digest: Digest, content: bytes, tags: list[str], unchanged: Precondition, **facts: Any
    ) -> None:
        await self.registry.manifests.put(
            self.origin.repository,
            digest,
            content,
            also=tags,
            precondition=unchanged,
            actor=ACTOR,
            unit=partial(adoption.adopt, **facts),
        )

    async def _saw(self, name: str, digest: Digest) -> None:
        await self.registry.metadata.transact(adoption.saw, self.origin.repository, [(name, digest)])
