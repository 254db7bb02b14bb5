"""The bytes of an adopted tree, copied into the registry's own storage one after the other, each verified."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from moorage.metadata import adoption, blobs
from moorage.metadata.base import Metadata, Row, run
from moorage.registry.parts import Parts
from moorage.spec import digest as digests
from moorage.storage.adopting import AdoptingBlobStore
from moorage.storage.base import BlobStore, Key, new_key

ACTOR: Final = "adopt"
_log = logging.getLogger("moorage.adopt")
_PAGE: Final = 500
_BATCH: Final = 1024 * 1024  # bytes handed on at once
_TRIES: Final = 2  # what a disk or a network gives wrongly once is no damage


@dataclass(slots=True)
class TakenIn:
    """How many blobs of how many bytes were taken in, and how many were found ``damaged`` and quarantined."""

    blobs: int = 0
    size: int = 0
    damaged: int = 0


async def require_tree(store: BlobStore, metadata: Metadata, *, serving: bool = False) -> None:
    """Raise ``RuntimeError`` where facts name bytes of a tree and ``store`` reads none."""
    place, reads = await adoption.tree(metadata), isinstance(store, AdoptingBlobStore)
    if place is None and reads and serving:
        _log.warning("adopt is set, and nothing is read from there: `moorage adopt` takes in what there is")
    if place is not None and not reads:
        raise RuntimeError(
            f"adopt is not set, and bytes are still in the storage tree {place}; allowed: adopt = {place!r}, "
            "until `moorage adopt --finish` took them in"
        )


async def take_in(parts: Parts, *, rate: float | None, jobs: int, told: Callable[[TakenIn], None]) -> TakenIn:
    """Do it until nothing is read from the tree any more; ``jobs`` blobs at once, ``rate`` bytes a second at most.

    It may be broken off anywhere and done again.
    """
    done, last = TakenIn(), ""
    while rows := await parts.metadata.fetch("blobs_in_tree", last, _PAGE):
        waiting = iter(rows)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(jobs):
                    group.create_task(_work(parts, waiting, rate and rate / jobs, done, told))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        last = rows[-1][0]
    await parts.metadata.transact(run, "forget_adopted_trees")
    return done


async def _work(
    parts: Parts, waiting: Iterator[Row], rate: float | None, done: TakenIn, told: Callable[[TakenIn], None]
) -> None:
    for digest, size, key in waiting:
        for _ in range(_TRIES):
            fault = await _copy(parts, digest, size, key, rate)
            if fault is None:
                break
        if fault is None:
            done.blobs += 1
            done.size += size
        elif await parts.metadata.transact(blobs.quarantine, digest, key, fault, parts.change(ACTOR)):
            done.damaged += 1
        told(done)


class _Damaged(Exception):
    """What is wrong with the bytes that were read."""


def _check(digest: str, size: int, computed: str, read: int) -> None:
    if read != size:
        raise _Damaged(f"it has {read} of {size} bytes")
    if computed != digest:
        raise _Damaged(f"its bytes have the digest {computed}")


async def _copy(parts: Parts, digest: str, size: int, key: Key, rate: float | None) -> str | None:
    """Copy the bytes of a blob and let them stand for those in the tree; what is wrong with them, if anything is."""
    into, algorithm = new_key(), digest.partition(":")[0]
    hasher, read, batch, batched = digests.new_hasher(algorithm), 0, list[bytes](), 0
    try:
        async with parts.store.write(into) as writer, aclosing(parts.store.read(key)) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                batch.append(bytes(piece))
                read, batched = read + len(piece), batched + len(piece)
                if batched >= _BATCH:
                    await writer.write(batch)
                    batch, batched = [], 0
                await asyncio.sleep(len(piece) / rate if rate else 0)
            await writer.write(batch)
            _check(digest, size, digests.digest_of(hasher, algorithm), read)
    except FileNotFoundError:
        return "its bytes are gone"
    except _Damaged as damage:
        return str(damage)
    if not await parts.metadata.transact(adoption.take_in, digest, key, into, parts.clock()):
        await parts.store.delete([into])  # it was deleted meanwhile
    return None
