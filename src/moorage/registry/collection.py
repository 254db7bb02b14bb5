"""Collection: in small steps, beside everything else, with work that is found from changes; and the full sweep.

A step is one transaction over a few candidates. Bytes go in batches after the transaction that doomed them.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from moorage.metadata import collection as facts
from moorage.metadata import doomed, releases, uploads
from moorage.metadata.base import run as query
from moorage.metadata.collection import Collected
from moorage.metadata.events import Change
from moorage.registry.parts import Parts
from moorage.registry.policy import DAY, Policy
from moorage.storage.base import PREFIXES, BlobStore, Key

ACTOR: Final = "collection"
LIST_GRACE: Final = 600.0  # seconds: who was told a list's digest by its tag fetches it by then
_STEP: Final = 100  # candidates in one transaction
_PAGE: Final = 500
_DELETED: Final = 500  # objects in one call to storage
_FAILING: Final = 16  # objects that cannot be deleted; then it seems that none can
_SWEEP: Final = "sweep"
_UNREFERENCED: Final = "no manifest of the repository references it"
# Why manifests go, and what the event says.
REASONS: Final = {
    "index": "the index that it belonged to was deleted",
    "subject": "its subject was deleted",
    "list": "a later referrers list took its place",
    "retention": "a retention rule does not keep it",
    "past": "it was deleted before what the history reaches",
}


def wait(policy: Policy, because: str) -> float:
    """Seconds that a manifest stays which is to go ``because`` of that."""
    if because == "past":
        return policy.history
    return min(policy.collect_grace, LIST_GRACE) if because == "list" else policy.collect_grace


@dataclass(slots=True)
class Swept:
    """What a collection did; ``unnamed`` are keys in storage that no fact named for too long."""

    uploads: int = 0
    unnamed: int = 0
    collected: Collected = field(default_factory=Collected)


@dataclass(frozen=True, slots=True)
class Collectable:
    """Something that would go: a ``manifest``, a ``blob`` of a repository, or ``bytes`` in storage.

    ``size`` is what its going frees; ``since`` when it began to be held by nothing.
    """

    kind: str
    repository: str
    digest: str
    size: int
    since: float
    reason: str


async def expire(parts: Parts) -> int:
    """End sessions whose time is over; how many."""
    ended = 0
    while count := await parts.metadata.transact(uploads.expire, parts.clock(), _PAGE):
        ended += count
    return ended


async def collect(parts: Parts, policy: Policy | None = None) -> Collected:
    """Take away everything whose time is over, step by step; by another ``policy`` where one is given."""
    policy = policy or parts.policy
    total = Collected()
    for because, reason in REASONS.items():
        bury = policy.history > 0 and because != "list"
        looked = _STEP
        while looked == _STEP:
            now = parts.clock()
            change, before = Change(now, ACTOR, reason=reason), now - wait(policy, because)
            looked, went = await parts.metadata.transact(
                facts.collect_manifests, because, before, _STEP, change, cascade=policy.cascade, bury=bury
            )
            total.add(went)
    looked = _STEP
    while looked == _STEP:
        now = parts.clock()
        change = Change(now, ACTOR, reason=_UNREFERENCED)
        looked, went = await parts.metadata.transact(facts.collect_blobs, now - policy.collect_grace, _STEP, change)
        total.add(went)
    return total


async def collect_all(parts: Parts, policy: Policy | None = None) -> Collected:
    """``collect`` until nothing more becomes due by it: what goes may have held something else."""
    total = Collected()
    while went := await collect(parts, policy):
        total.add(went)
    return total


async def forget_events(parts: Parts) -> None:
    """Drop the events, and releases, that are older than the policy keeps, and that no history reaches."""
    before = parts.clock() - max(parts.policy.events_days * DAY, parts.policy.history)
    while await parts.metadata.transact(releases.forget, before, _STEP) == _STEP:
        pass
    while len(await parts.metadata.transact(query, "forget_events", before, _PAGE)) == _PAGE:
        pass


async def delete_doomed(parts: Parts) -> None:
    """Delete the bytes that no fact needs, no faster than the policy allows; what fails is raised at the end."""
    rate = parts.policy.delete_rate
    most = _DELETED if rate is None else max(1, min(_DELETED, int(rate)))
    failed: dict[Key, Exception] = {}
    while len(failed) < _FAILING:
        page = await doomed.page(parts.metadata, most + len(failed))
        keys = [key for key in page if key not in failed][:most]
        if not keys:
            break
        gone = await _delete(parts.store, keys, failed)
        await parts.metadata.transact(doomed.forget, gone)
        if rate is not None:
            await asyncio.sleep(len(gone) / rate)
    if failed:
        raise next(iter(failed.values()))


async def _delete(store: BlobStore, keys: Sequence[Key], failed: dict[Key, Exception]) -> Sequence[Key]:
    """Delete all, or else one after the other so that none keeps the others; which are gone."""
    with contextlib.suppress(Exception):
        await store.delete(keys)
        return keys
    gone = []
    for key in keys:
        try:
            await store.delete([key])
        except Exception as error:  # noqa: BLE001  the caller raises the first
            failed[key] = error
            if len(failed) >= _FAILING:
                break
        else:
            gone.append(key)
    return gone


async def sweep_if_due(parts: Parts) -> None:
    """Do or go on with the regular full sweep, unless it is not due or another process is at it."""
    if not parts.policy.collection:
        return
    interval = parts.policy.sweep_interval
    claimed = await parts.metadata.transact(facts.claim, _SWEEP, parts.clock(), interval)
    if claimed is None:
        return
    async for made in sweep(parts, Swept(), claimed[0]):
        await parts.metadata.transact(facts.progress, _SWEEP, made, parts.clock() + facts.TURN)
        await asyncio.sleep(0)
    await parts.metadata.transact(facts.progress, _SWEEP, None, parts.clock() + interval)


async def sweep(parts: Parts, swept: Swept, progress: str | None = None) -> AsyncIterator[str]:
    """Look at every link, blob, repository and key in storage once, page by page, and mend what is known wrongly.

    Yields after each page how far it is; from there, as ``progress``, it goes on. Counts into ``swept``.
    """
    phase, _, rest = (progress or "repositories 0 ").partition(" ")
    if phase == "repositories":
        number, _, digest = rest.partition(" ")
        after: tuple[int, str] | None = (int(number), digest)
        while after is not None:
            change = Change(parts.clock(), ACTOR)
            after = await parts.metadata.transact(facts.sweep_repositories, after, _PAGE, change)
            if after:
                yield f"repositories {after[0]} {after[1]}"
        phase, rest = "blobs", ""
        yield "blobs "
    if phase == "blobs":
        last: str | None = rest
        while last is not None:
            last = await parts.metadata.transact(facts.sweep_blobs, last, _PAGE, Change(parts.clock(), ACTOR))
            if last:
                yield f"blobs {last}"
        rest = PREFIXES[0]
    for prefix in PREFIXES[PREFIXES.index(rest) :]:
        yield f"keys {prefix}"
        await _sweep_keys(parts, prefix, swept)


async def _sweep_keys(parts: Parts, prefix: str, swept: Swept) -> None:
    unnamed, looked = [], 0
    async for key in parts.store.list(prefix):
        looked += 1
        if not await facts.is_named(parts.metadata, key):
            unnamed.append(key)
        if looked % _PAGE == 0:
            await asyncio.sleep(0)
    now = parts.clock()
    if unnamed or await facts.any_unnamed(parts.metadata, prefix):
        before = now - parts.policy.unnamed_grace
        swept.unnamed += await parts.metadata.transact(facts.note_unnamed, prefix, unnamed, before, now)


async def due(parts: Parts, policy: Policy | None = None) -> AsyncIterator[Collectable]:
    """What ``collect`` would take away now, and what of storage a sweep would; changes nothing."""
    now, policy = parts.clock(), policy or parts.policy
    for because, reason in REASONS.items():
        before, last = now - wait(policy, because), 0
        while rows := await parts.metadata.fetch("page_due_manifests", because, before, last, _PAGE):
            for _, repository, digest, size, since in rows:
                yield Collectable("manifest", repository, digest, size, since, reason)
            last = rows[-1][0]
    before, digest, repository = now - policy.collect_grace, "", ""
    while rows := await parts.metadata.fetch("page_due_blobs", before, digest, repository, _PAGE):
        for row in rows:
            yield Collectable("blob", row[1], row[0], row[2], row[3], _UNREFERENCED)
        digest, repository = rows[-1][:2]
    async for key in parts.store.list():
        if not await facts.is_named(parts.metadata, key):
            since = (await parts.metadata.fetch("unnamed_since", key) or [(now,)])[0][0]
            if since <= now - parts.policy.unnamed_grace:
                yield Collectable("bytes", "", key, await parts.store.size(key), since, "no fact names them")


async def run(parts: Parts, policy: Policy | None = None, told: Callable[[str], None] = lambda _: None) -> Swept:
    """A full sweep and everything that is due, now; ``told`` hears how far it is."""
    swept = Swept(uploads=await expire(parts))
    async for made in sweep(parts, swept):
        told(made)
    swept.collected = await collect_all(parts, policy)
    await delete_doomed(parts)
    return swept
