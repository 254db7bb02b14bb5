"""Looks whether the invariants hold, changing nothing. It may run beside a live registry.

What is found wrong is looked at a second time, since facts may have changed between two questions.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from moorage.metadata import quotas
from moorage.metadata.base import Metadata
from moorage.spec import digest as digests
from moorage.spec.errors import RegistryError
from moorage.spec.manifest import parse
from moorage.storage.base import BlobStore, Key

_PAGE = 200
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Problem:
    """``rule`` is the invariant that is broken, ``what`` says where and how."""

    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is to look at."""

    manifests: int
    blobs: int
    tags: int
    repositories: int
    uploads: int
    doomed: int


Progress = Callable[[str, int], None]  # what was looked at, and how many of them


async def count(metadata: Metadata) -> Counts:
    """How many of each there are."""
    return Counts(*(await metadata.fetch("check_counts"))[0])


async def check(
    store: BlobStore,
    metadata: Metadata,
    *,
    not_needed: frozenset[str] = frozenset(),
    full: bool = False,
    progress: Progress = lambda *_: None,
) -> AsyncIterator[Problem]:
    """Everything that is wrong; with ``full`` every blob is read and its digest compared.

    ``not_needed`` are the kinds of reference that the registry's policy lets be absent.
    """
    async for problem in _manifests(metadata, progress):
        yield problem
    for repository, tag, digest in await metadata.fetch("check_tags"):
        yield Problem("a tag names a manifest of its repository", f"{repository}:{tag} names {digest}")
    for repository, parent, child, kind in await metadata.fetch("check_missing"):
        if kind not in not_needed:
            yield Problem("what a manifest references is stored", f"{repository}@{parent} needs the {kind} {child}")
    for repository, digest, damage in await metadata.fetch("check_links"):
        what = f", which is quarantined: {damage}; push it again" if damage else ""
        yield Problem("a linked blob is stored", f"{repository} holds {digest}{what}")
    async for problem in _blobs(store, metadata, progress, full=full):
        yield problem
    async for problem in _segments(store, metadata):
        yield problem
    async for problem in _quotas(metadata):
        yield problem


async def orphans(store: BlobStore, metadata: Metadata) -> AsyncIterator[Key]:
    """Bytes that no fact names: what a crash leaves, and what is being written just now. They do no harm."""
    async for key in store.list():
        if not await metadata.fetch("is_named", key):
            yield key


async def _manifests(metadata: Metadata, progress: Progress) -> AsyncIterator[Problem]:
    last = 0
    while rows := await metadata.fetch("check_manifests", last, _PAGE):
        for row in rows:
            for what in await _manifest_faults(metadata, row[1:]):
                if await metadata.fetch("manifest_type", row[1], row[3]):
                    yield Problem("a manifest is what was pushed", f"{row[2]}@{row[3]}: {what}")
        last = rows[-1][0]
        progress("manifests", len(rows))


async def _manifest_faults(metadata: Metadata, row: tuple[int, str, str, str, int, str | None, bytes]) -> list[str]:
    repository_id, _, digest, media_type, size, subject, content = row
    faults = []
    if size != len(content):
        faults.append(f"{len(content)} bytes, not {size}")
    if (computed := digests.compute(content, digest.partition(":")[0])) != digest:
        return [*faults, f"its bytes have the digest {computed}"]
    try:
        facts = parse(content, media_type, allow_unknown=True)
    except RegistryError as error:
        return [*faults, "; ".join(filter(None, (error.text, *(str(each) for each in error.details if each))))]
    if facts.subject != subject:
        faults.append(f"its subject is {facts.subject}, not {subject}")
    known = {child for (child,) in await metadata.fetch("check_references", repository_id, digest)}
    if known != (real := {each.digest for each in facts.references}):
        faults.append(f"its references are known wrongly: {sorted(known ^ real)}")
    return faults


async def _blobs(store: BlobStore, metadata: Metadata, progress: Progress, *, full: bool) -> AsyncIterator[Problem]:
    last = ""
    while rows := await metadata.fetch("check_blobs", last, _PAGE):
        faults = await _side_by_side([partial(_blob_fault, store, *row, full=full) for row in rows])
        for (digest, size, key), what in zip(rows, faults, strict=True):
            if what and (digest, size, key) in await metadata.fetch("check_blobs", last, _PAGE):
                yield Problem("a stored blob has its bytes", f"{digest} ({key}): {what}")
        last = rows[-1][0]
        progress("blobs", len(rows))


async def _side_by_side(questions: Sequence[Callable[[], Awaitable[str | None]]]) -> list[str | None]:
    """The answers, some asked at once: a bucket is far away."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: Callable[[], Awaitable[str | None]]) -> str | None:
        async with gate:
            return await question()

    return await asyncio.gather(*(ask(each) for each in questions))


async def _blob_fault(store: BlobStore, digest: str, size: int, key: Key, *, full: bool) -> str | None:
    try:
        if (found := await store.size(key)) != size:
            return f"{found} bytes, not {size}"
        if full:
            hasher = digests.new_hasher(algorithm := digest.partition(":")[0])
            async for piece in store.read(key):
                hasher.update(piece)
            if (computed := digests.digest_of(hasher, algorithm)) != digest:
                return f"its bytes have the digest {computed}"
    except FileNotFoundError:
        return "its bytes are gone"
    return None


async def _segments(store: BlobStore, metadata: Metadata) -> AsyncIterator[Problem]:
    """The segments of a session follow each other without a gap and add up to what was acknowledged."""
    ends: dict[str, tuple[str, int, int]] = {}
    for upload, repository, received, start, size, key in await metadata.fetch("check_segments"):
        end = ends.get(upload, (repository, received, 0))[2]
        ends[upload] = (repository, received, end + (size or 0))
        if key is None:
            continue
        try:
            what = None if start == end and await store.size(key) == size else "does not fit"
        except FileNotFoundError:
            what = "is gone"
        if what and await metadata.fetch("is_segment", key):
            yield Problem(
                "a session keeps what was acknowledged", f"{repository}: {upload}: segment at {start} {what}"
            )
    for upload, (repository, received, end) in ends.items():
        if end != received:
            yield Problem(
                "a session keeps what was acknowledged", f"{repository}: {upload}: {end} of {received} bytes"
            )


async def _quotas(metadata: Metadata) -> AsyncIterator[Problem]:
    """What quotas say is used is what their members have, and all that they cover are members."""
    rule = "a quota counts what its repositories have"
    for pattern, *numbers in await metadata.fetch("recount"):
        for what, counted, real in zip(quotas.Amount._fields, numbers[:3], numbers[3:], strict=True):
            if counted != real:
                yield Problem(rule, f"{pattern}: {counted} {what} counted, not {real}")
    for each in await quotas.listed(metadata):
        last = ""
        while each.counted and (names := await metadata.fetch("page_names", each.pattern, last, _PAGE)):
            for name, member in names:
                if each.covers(name) and not member:
                    yield Problem(rule, f"{each.pattern}: {name} is not counted")
            last = names[-1][0]
