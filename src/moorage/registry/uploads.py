"""Pushing blobs: upload sessions and the single POST; spec "Pushing blobs".

Each request body becomes one immutable segment, hashed as it arrives. A session belongs to no process: any of them
takes the next request, and of two racing ones one is told 416. The running hash stays where it was made; elsewhere
it is made again from the segments, and only if the session's row does not know the digest already.
"""

import uuid
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Final

from moorage.metadata import blobs, uploads
from moorage.metadata.base import Arguments, Unit
from moorage.metadata.events import Change
from moorage.metadata.uploads import UploadSession, out_of_order
from moorage.registry.parts import ANONYMOUS, Parts, as_digest
from moorage.registry.quotas import Room, check_start, room
from moorage.spec import digest as digests
from moorage.spec.digest import DEFAULT_ALGORITHM, Digest, Hasher
from moorage.spec.errors import (
    ClientDisconnected,
    DigestInvalid,
    OutcomeUnknown,
    RegistryError,
    SizeInvalid,
)
from moorage.spec.names import check_new
from moorage.storage.base import Key, Writer, new_key

BATCH: Final = 1024 * 1024
_HASHERS: Final = 1024

Body = AsyncIterable[bytes]
Begun = tuple[bytes, AsyncIterator[bytes]]  # the first piece, and those that follow


class Uploads:
    """The upload sessions of every repository."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._hashers: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()

    async def start(self, repository: str, algorithm: str = DEFAULT_ALGORITHM) -> UploadSession:
        """Open a session; raises ``NameInvalid``, ``QuotaExceeded``, ``DigestInvalid`` for an unknown algorithm."""
        identifier, now = str(uuid.uuid4()), self._parts.clock()
        session = UploadSession(check_new(repository), identifier, digests.algorithm_of(algorithm), 0, None)
        expires = now + self._parts.policy.upload_expiry
        await check_start(self._parts, repository)
        await self._parts.metadata.transact(uploads.start, repository, identifier, algorithm, now, expires)
        return session

    async def get(self, repository: str, identifier: str) -> UploadSession:
        """How far a session is; raises ``BlobUploadUnknown``."""
        return await uploads.find(self._parts.metadata, repository, identifier, self._parts.clock())

    async def append(
        self, repository: str, identifier: str, body: Body, *, first: int | None = None, length: int | None = None
    ) -> UploadSession:
        """Add a chunk, which must start at ``first`` and hold ``length`` bytes where these are given.

        A client that goes away keeps what arrived. Raises ``BlobUploadUnknown``, ``BlobUploadRangeInvalid`` (416),
        ``SizeInvalid``, ``BlobTooLarge``, ``QuotaExceeded``, ``StorageFull``, ``ClientDisconnected``.
        """
        session = await self.get(repository, identifier)
        _check_order(session, first)
        space = await room(self._parts, repository, session.received, length)
        hasher = self._hasher(session, session.algorithm)
        key, size, interrupted = new_key(), 0, None
        chunk = await _begun(body)
        if chunk is None:
            _check_length(0, length)
            return await self._move(session, None, 0, hasher)
        async with self._parts.store.write(key) as writer:
            receiving = _Receiving(writer, hasher, space)
            try:
                await receiving.all(*chunk)
                _check_length(receiving.size, length)
            except ClientDisconnected as error:
                await receiving.flush()
                interrupted = error
            size = receiving.size
        moved = await self._move(session, key, size, hasher)
        if interrupted:
            raise interrupted
        return moved

    async def finish(
        self,
        repository: str,
        identifier: str,
        digest: Digest | str,
        body: Body | None = None,
        *,
        first: int | None = None,
        length: int | None = None,
        actor: str = ANONYMOUS,
        create: bool = True,
    ) -> Digest:
        """Close a session, with a last chunk or without; the blob is in ``repository`` on return.

        Without ``create`` the repository must be there, else ``Denied``. Raises as ``append`` does, and
        ``DigestInvalid``; the session then stays as it was before.
        """
        digest = as_digest(digest)
        now = self._parts.clock()
        session, keys = await uploads.find_whole(self._parts.metadata, repository, identifier, now)
        _check_order(session, first)
        space = Room() if body is None else await room(self._parts, repository, session.received, length, digest)
        change = self._parts.change(actor, create=create)
        try:
            return await self._finish(session, keys, digest, body, length, space, change)
        except FileNotFoundError as error:  # another request closed the session, and its segments went
            raise session.unknown() from error

    async def _finish(
        self,
        session: UploadSession,
        keys: list[Key],
        digest: Digest,
        body: Body | None,
        length: int | None,
        space: Room,
        change: Change,
    ) -> Digest:
        made: list[Key] = []
        chunk = await _begun(body) if body is not None else None
        if chunk is None:
            _check_length(0, length)
        received = session.received
        if chunk is not None or not keys:
            hasher = self._hasher(session, digest.algorithm) or await self._rehash(keys, digest.algorithm)
            key, size = await self._store(chunk, hasher, digest, space, length)
            keys, made, received = [*keys, key], [key], received + size
        elif session.digest is None or session.algorithm != digest.algorithm:
            _check_digest(digests.digest_of(await self._rehash(keys, digest.algorithm), digest.algorithm), digest)
        else:
            _check_digest(session.digest, digest)
        try:
            key = await self._parts.store.compose(keys)
        except Exception:
            await self._parts.store.delete(made)
            raise
        spare = [each for each in keys if each != key]
        made = made if key in keys else [*made, key]
        await self._conclude(made, uploads.finish, session, digest, received, key, spare, change)
        self._hashers.pop(session.id, None)
        return digest

    async def push(
        self,
        repository: str,
        digest: Digest | str,
        body: Body,
        *,
        length: int | None = None,
        actor: str = ANONYMOUS,
        create: bool = True,
    ) -> Digest:
        """Store a whole blob in one go (spec end-4b); raises as ``finish`` does."""
        digest = as_digest(digest)
        check_new(repository)
        space = await room(self._parts, repository, 0, length, digest)
        hasher = digests.new_hasher(digest.algorithm)
        key, size = await self._store(await _begun(body), hasher, digest, space, length)
        change = self._parts.change(actor, create=create)
        await self._conclude([key], blobs.add, repository, digest, size, key, change)
        return digest

    async def cancel(self, repository: str, identifier: str) -> None:
        """Close a session and drop what it received (spec end-14); raises ``BlobUploadUnknown``."""
        await self.get(repository, identifier)
        await self._parts.metadata.transact(uploads.cancel, repository, identifier, self._parts.clock())
        self._hashers.pop(identifier, None)
        self._parts.doomed.set()

    def _hasher(self, session: UploadSession, algorithm: str) -> Hasher | None:
        """The running hash of what the session received, if this process can have it without reading."""
        received, hasher = self._hashers.pop(session.id, (0, None))
        if session.received == 0:
            return digests.new_hasher(algorithm)
        return hasher if received == session.received and algorithm == session.algorithm else None

    async def _rehash(self, keys: Sequence[Key], algorithm: str) -> Hasher:
        hasher = digests.new_hasher(algorithm)
        for key in keys:
            async for piece in self._parts.store.read(key):
                hasher.update(piece)
        return hasher

    async def _store(
        self,
        chunk: Begun | None,
        hasher: Hasher,
        digest: Digest,
        space: Room,
        length: int | None,
    ) -> tuple[Key, int]:
        """Write the last (or only) bytes of a blob; nothing remains unless the whole matches ``digest``."""
        key = new_key()
        async with self._parts.store.write(key) as writer:
            receiving = _Receiving(writer, hasher, space)
            if chunk is not None:
                await receiving.all(*chunk)
            _check_length(receiving.size, length)
            _check_digest(digests.digest_of(hasher, digest.algorithm), digest)
        return key, receiving.size

    async def _move(self, session: UploadSession, key: Key | None, size: int, hasher: Hasher | None) -> UploadSession:
        received = session.received + size
        digest = digests.digest_of(hasher, session.algorithm) if hasher else None
        expires = self._parts.clock() + self._parts.policy.upload_expiry
        await self._conclude([key] if key else [], uploads.append, session, key, size, digest, expires)
        if hasher:
            self._hashers[session.id] = received, hasher
            if len(self._hashers) > _HASHERS:
                self._hashers.popitem(last=False)
        return UploadSession(session.repository, session.id, session.algorithm, received, digest)

    async def _conclude(
        self,
        made: Sequence[Key],
        unit: Callable[Arguments, Unit[bool] | Unit[None]],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        """State the facts. If they are refused, what was ``made`` for them goes; otherwise it may be named by now."""
        try:
            doomed = await self._parts.metadata.transact(unit, *arguments, **named)
        except OutcomeUnknown:
            raise
        except RegistryError:
            await self._parts.store.delete(made)
            raise
        if doomed:
            self._parts.doomed.set()


class _Receiving:
    """Bytes on their way from a client into a writer, hashed and counted; ``space`` is there for them."""

    def __init__(self, writer: Writer, hasher: Hasher | None, space: Room) -> None:
        self.size = 0
        self._writer = writer
        self._hasher = hasher
        self._space = space
        self._batch: list[bytes] = []
        self._batched = 0

    async def all(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self._take(first)
        async for piece in rest:
            self._take(piece)
            if self._batched >= BATCH:
                await self.flush()
        await self.flush()

    def _take(self, piece: bytes) -> None:
        self.size += len(piece)
        self._space.check(self.size)
        if self._hasher:
            self._hasher.update(piece)
        self._batch.append(piece)
        self._batched += len(piece)

    async def flush(self) -> None:
        batch, self._batch, self._batched = self._batch, [], 0
        await self._writer.write(batch)


async def _begun(body: Body) -> Begun | None:
    """``body`` if it holds anything, else None: an empty chunk makes no segment."""
    rest = aiter(body)
    async for piece in rest:
        if piece:
            return piece, rest
    return None


def _check_order(session: UploadSession, first: int | None) -> None:
    if first is not None and first != session.received:
        raise out_of_order(session.received, first)


def _check_length(size: int, length: int | None) -> None:
    if length is not None and size != length:
        raise SizeInvalid(detail={"announced": length, "received": size})


def _check_digest(computed: Digest, digest: Digest) -> None:
    if computed != digest:
        raise DigestInvalid(detail={"digest": digest, "computed": computed})
