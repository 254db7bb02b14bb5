"""The scrub: reads every blob again, slowly, and quarantines those whose bytes are not what their digest says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

from moorage.metadata import blobs
from moorage.metadata import collection as duties
from moorage.registry.parts import Parts
from moorage.registry.policy import DAY, MEBIBYTE
from moorage.spec import digest as digests
from moorage.spec.errors import RegistryError
from moorage.storage.base import Key

ACTOR: Final = "scrub"
_DUTY: Final = "scrub"
_TOLD: Final = 60.0
_PAGE: Final = 100
_log = logging.getLogger("moorage.scrub")


@dataclass(slots=True)
class Scrubbed:
    """What a scrub looked at, and how many blobs it quarantined."""

    blobs: int = 0
    size: int = 0
    quarantined: int = 0


async def scrub_forever(parts: Parts) -> None:
    """Scrub until cancelled, at the policy's rate, where no other process does."""
    while True:
        try:
            interval = parts.policy.sweep_interval
            claimed = await parts.metadata.transact(duties.claim, _DUTY, parts.clock(), interval)
            if claimed is not None:
                await _pass(parts, claimed[0] or "")
        except RegistryError as error:
            _log.error("the scrub is put off: %s", error)
        except Exception:  # noqa: BLE001  whatever it was, the registry goes on
            _log.exception("the scrub failed; it is tried again")
        await asyncio.sleep(parts.policy.housekeeping_interval)


async def _pass(parts: Parts, last: str) -> None:
    """What is due from ``last`` on; how far it is, is stated as it goes."""
    told = parts.clock()

    async def tell(digest: str) -> None:
        nonlocal told
        if parts.clock() - told >= _TOLD:
            told = parts.clock()
            await parts.metadata.transact(duties.progress, _DUTY, digest, told + duties.TURN)

    before = parts.clock() - parts.policy.scrub_days * DAY
    await scrub(parts, Scrubbed(), last=last, before=before, rate=parts.policy.scrub_rate * MEBIBYTE, tell=tell)
    now = parts.clock()
    await parts.metadata.transact(duties.progress, _DUTY, None, now + parts.policy.sweep_interval)


async def _silent(_: str) -> None:
    pass


async def scrub(
    parts: Parts,
    scrubbed: Scrubbed,
    *,
    last: str = "",
    before: float | None = None,
    rate: float | None = None,
    tell: Callable[[str], Awaitable[None]] = _silent,
) -> Scrubbed:
    """Verify each blob after the digest ``last`` that was not verified since ``before`` (None: each).

    At most ``rate`` bytes a second are read. ``tell`` hears, now and then, up to which digest everything was looked
    at.
    """
    before = parts.clock() if before is None else before
    await _release(parts)
    while rows := await parts.metadata.fetch("page_to_verify", last, before, _PAGE):
        for digest, size, key in rows:
            fault = await _fault(parts, digest, size, key, rate, partial(tell, last))
            if fault:  # once more: what a disk or a network gives wrongly once is no damage
                fault = await _fault(parts, digest, size, key, rate, partial(tell, last))
            if fault is None:
                await parts.metadata.transact(blobs.verified, [(digest, key)], parts.clock())
            elif await parts.metadata.transact(blobs.quarantine, digest, key, fault, parts.change(ACTOR)):
                scrubbed.quarantined += 1
                _log.error("%s was quarantined: %s", digest, fault)
            scrubbed.blobs += 1
            scrubbed.size += size
            last = digest
            await tell(last)
    return scrubbed


async def _release(parts: Parts) -> None:
    """Look at what is quarantined: a storage that was away for a while may have it whole."""
    last = ""
    while rows := await parts.metadata.fetch("quarantined_bytes", last, _PAGE):
        for digest, size, key in rows:
            if await _fault(parts, digest, size, key, None, partial(_silent, "")) is None:
                await parts.metadata.transact(blobs.release, digest, size, key, parts.change(ACTOR))
        last = rows[-1][0]


async def _fault(
    parts: Parts, digest: str, size: int, key: Key, rate: float | None, tell: Callable[[], Awaitable[None]]
) -> str | None:
    """What is wrong with the bytes of a blob."""
    hasher = digests.new_hasher(digest.partition(":")[0])
    read = 0
    try:
        async with aclosing(parts.store.read(key)) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                read += len(piece)
                await tell()
                await asyncio.sleep(len(piece) / rate if rate else 0)
    except FileNotFoundError:
        return "its bytes are gone"
    if read != size:
        return f"it has {read} of {size} bytes"
    if (computed := digests.digest_of(hasher, digest.partition(":")[0])) != digest:
        return f"its bytes have the digest {computed}"
    return None
