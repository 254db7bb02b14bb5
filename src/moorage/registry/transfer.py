"""A registry taken elsewhere as it is at one moment: for backups, for restoring them, for moving to other engines.

The source goes on serving. First its facts go into a staging database; then the bytes that these name are copied and
verified, those that the target has already left out; then the facts of the staging database replace the target's in
one transaction. So the target is at each moment what it was or what it shall be, and a transfer that was broken off
goes on where it was. What was taken before is not taken again: a second transfer copies what came since.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from moorage.metadata.base import Metadata, MovableMetadata, run
from moorage.spec import digest as digests
from moorage.storage.base import PREFIXES, BlobStore, Key

_PASSES: Final = 10
_BATCH: Final = 1024 * 1024  # bytes handed on at once
_AFTER: Final = chr(ord("/") + 1)  # what comes after every key of a prefix


class TransferRefused(RuntimeError):
    """The target holds something else, or the source does not stand still enough."""


@dataclass(frozen=True, slots=True)
class Place:
    """A registry's bytes and facts, open."""

    store: BlobStore
    metadata: MovableMetadata


@dataclass(slots=True)
class Transferred:
    """What was done: objects and bytes ``copied``, objects ``kept`` from before, what is ``damaged`` at the source.

    What is damaged is at the target as it is at the source.
    """

    copied: int = 0
    size: int = 0
    kept: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Object:
    """Bytes that a fact names; ``digest`` is empty for a segment of an upload session."""

    key: Key
    size: int
    digest: str

    def __str__(self) -> str:
        return self.digest or f"the segment {self.key}"


class Transfer:
    """One transfer. ``staging`` is an empty ``Metadata``; ``jobs`` objects are copied at once.

    ``told`` hears how many of how many bytes are at the target.
    """

    def __init__(
        self,
        source: Place,
        target: Place,
        staging: MovableMetadata,
        *,
        jobs: int = 4,
        told: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._source = source
        self._target = target
        self._staging = staging
        self._jobs = jobs
        self._told = told
        self._there = self._total = 0
        self._done: Transferred

    async def run(self) -> Transferred:
        """Do it; raises ``TransferRefused`` before anything is changed."""
        await self._look_at_target()
        self._done = Transferred()
        for _ in range(_PASSES):
            await self._staging.load(self._source.metadata.dump())
            if not await self._copy_all():
                break
        else:
            raise TransferRefused("the source loses bytes faster than they are copied; try again")
        await self._staging.transact(run, "forget_adopted_trees")  # what was there is copied, too
        await self._staging.transact(run, "mark_transferred", 0.0, str(await _last_event(self._staging)))
        await self._target.metadata.load(self._staging.dump())
        await self._tidy()
        return self._done

    async def _look_at_target(self) -> None:
        metadata = self._target.metadata
        if not await metadata.fetch("is_used"):
            return
        marks = await metadata.fetch("transferred")
        if not marks:
            raise TransferRefused(
                "the target holds a registry of its own; allowed: an empty one, or an earlier transfer"
            )
        if marks[0][0] != str(await _last_event(metadata)):
            raise TransferRefused("the target was changed since the last transfer into it; its changes would be lost")

    async def _copy_all(self) -> bool:
        """Copy what the target lacks; whether anything went from the source meanwhile, so that its facts are old."""
        ((self._total,),) = await self._staging.fetch("bytes_named")
        self._there = 0
        for prefix in PREFIXES:
            known = {each.key for each in await _named(self._target.metadata, prefix)}
            present = {key async for key in self._target.store.list(prefix)}
            waiting = iter(await _named(self._staging, prefix))
            work = functools.partial(self._work, waiting, known & present, present)
            try:
                async with asyncio.TaskGroup() as group:
                    workers = [group.create_task(work()) for _ in range(self._jobs)]
            except ExceptionGroup as several:
                raise several.exceptions[0] from None
            if any(worker.result() for worker in workers):
                return True
        return False

    async def _work(self, waiting: Iterator[_Object], known: set[Key], present: set[Key]) -> bool:
        for each in waiting:
            if each.key in known or (each.key in present and await self._is_whole(each)):
                self._done.kept += 1
            else:
                if each.key in present:
                    await self._target.store.delete([each.key])
                try:
                    await self._copy(each)
                except FileNotFoundError:
                    if each not in await _named(self._source.metadata, each.key):
                        return True
                    self._done.damaged.append(f"{each}: its bytes are gone")
            self._there += each.size
            self._told(self._there, self._total)
        return False

    async def _is_whole(self, each: _Object) -> bool:
        """Whether the target has the bytes that a transfer left there which did not come to its end."""
        return await self._target.store.size(each.key) == each.size and await self._digest(self._target, each) is None

    async def _digest(self, place: Place, each: _Object) -> str | None:
        """What is wrong with an object's bytes."""
        hasher = _hasher(each)
        async with aclosing(place.store.read(each.key)) as pieces:
            async for piece in pieces:
                hasher.update(piece)
        return _fault(each, hasher)

    async def _copy(self, each: _Object) -> None:
        hasher, size, batch, batched = _hasher(each), 0, list[bytes](), 0
        async with (
            self._target.store.write(each.key) as writer,
            aclosing(self._source.store.read(each.key)) as pieces,
        ):
            async for piece in pieces:
                hasher.update(piece)
                batch.append(bytes(piece))
                batched += len(piece)
                if batched >= _BATCH:
                    await writer.write(batch)
                    size, batch, batched = size + batched, [], 0
            await writer.write(batch)
            size += batched
        self._done.copied += 1
        self._done.size += size
        if fault := f"{size} bytes, not {each.size}" if size != each.size else _fault(each, hasher):
            self._done.damaged.append(f"{each}: {fault}")

    async def _tidy(self) -> None:
        """Delete what an earlier transfer brought and no fact names any more."""
        for prefix in PREFIXES:
            named = {each.key for each in await _named(self._target.metadata, prefix)}
            if spare := [key async for key in self._target.store.list(prefix) if key not in named]:
                await self._target.store.delete(spare)


def _hasher(each: _Object) -> digests.Hasher:
    return digests.new_hasher(each.digest.partition(":")[0] or digests.DEFAULT_ALGORITHM)


def _fault(each: _Object, hasher: digests.Hasher) -> str | None:
    if not each.digest:
        return None
    computed = digests.digest_of(hasher, each.digest.partition(":")[0])
    return None if computed == each.digest else f"its bytes have the digest {computed}"


async def _named(metadata: Metadata, prefix: str) -> list[_Object]:
    """What facts name of the keys that start with ``prefix``."""
    return [_Object(*row) for row in await metadata.fetch("keys_between", prefix, prefix.rstrip("/") + _AFTER)]


async def _last_event(metadata: Metadata) -> int:
    return int((await metadata.fetch("last_event"))[0][0])
