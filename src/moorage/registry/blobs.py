"""Blobs; spec "Pulling blobs", "Mounting a blob from another repository", "Deleting Blobs"."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from moorage.metadata import blobs as facts
from moorage.metadata.base import Query
from moorage.metadata.blobs import StoredBlob
from moorage.registry.parts import ANONYMOUS, Parts, as_digest
from moorage.spec import digest as digests
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobUnknown, RegistryError
from moorage.spec.names import check_new
from moorage.storage.base import Key, Piece, Stretch, in_tree

_HOLDERS = 100
_SMALL = 16 * 1024  # bytes of a blob that stays in memory once it was read: configs, signatures
_KEPT = 8 * 1024 * 1024  # bytes of all of them
_REMEMBERED = 65536


class ContentLost(RegistryError):
    """A fact names bytes that storage does not have, or has damaged; nothing wrong is served in their place."""

    status, message = 500, "the content's bytes are missing from storage, or damaged"


class Blobs:
    """The blobs of every repository."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._small: dict[Key, bytes] = {}  # by keys, under which bytes never change; the oldest goes first
        self._small_size = 0
        self._right: set[Key] = set()  # those in another registry's tree that were verified

    @staticmethod
    def question(repository: str, digest: str) -> Query:
        """What ``get`` will ask the facts; raises ``DigestInvalid``."""
        return facts.question(repository, as_digest(digest))

    async def get(self, repository: str, digest: Digest | str) -> StoredBlob:
        """What is stored; raises ``BlobUnknown``, ``DigestInvalid``.

        Who is told so need not push it: where no manifest references it, it stays for the grace period from now on.
        """
        blob = await facts.find(self._parts.metadata, repository, as_digest(digest))
        if blob.unreferenced_since is not None and self._parts.wanes(blob.unreferenced_since):
            await self._parts.metadata.transact(facts.renew, repository, blob.digest, self._parts.clock())
        return blob

    def at_hand(self, blob: StoredBlob) -> bytes | None:
        """All of its bytes, where they are in memory."""
        return self._small.get(blob.key)

    async def read(self, blob: StoredBlob, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        """The bytes from ``start`` up to ``stop`` (exclusive; None: the end) in pieces.

        Raises ``ContentLost`` rather than ending early, or giving anything of a small blob of another digest, or
        the end of one in another registry's tree; the blob is quarantined then, so that it is pushed again.
        """
        end = blob.size if stop is None else min(stop, blob.size)
        if blob.size <= _SMALL:
            yield (self.at_hand(blob) or await self._whole(blob))[start:end]
            return
        unknown = in_tree(blob.key) and (start, end) == (0, blob.size) and blob.key not in self._right
        async with aclosing(self._verified(blob) if unknown else self._read(blob, start, end)) as pieces:
            async for piece in pieces:
                yield piece

    async def _verified(self, blob: StoredBlob) -> AsyncGenerator[Piece]:
        """All of its bytes, the last piece only where the digest is right."""
        hasher = digests.new_hasher(blob.digest.algorithm)
        last: Piece = b""
        async with aclosing(self._read(blob, 0, blob.size)) as pieces:
            async for piece in pieces:
                hasher.update(piece)
                if last:
                    yield last
                last = piece
        await self._require_right(blob, digests.digest_of(hasher, blob.digest.algorithm))
        if len(self._right) == _REMEMBERED:
            self._right.clear()
        self._right.add(blob.key)
        yield last

    async def send(self, blob: StoredBlob, start: int, stop: int) -> AsyncGenerator[Piece | Stretch]:
        """As ``read``, but what lies in one file is given as such, to be sent before the next is asked for."""
        stretch = None
        if not in_tree(blob.key):
            with suppress(FileNotFoundError):  # of which ``read`` knows what to make
                stretch = self._parts.store.stretch(blob.key, start, min(stop, blob.size))
        if stretch is not None:
            with stretch:
                if not stretch.at_hand():
                    await stretch.fetch()  # a disk that fails does so before the answer begins
                yield stretch
            start = stretch.position  # the file was cut short if that is not its end
        if start < stop:
            async with aclosing(self.read(blob, start, stop)) as pieces:
                async for piece in pieces:
                    yield piece

    async def _read(self, blob: StoredBlob, position: int, end: int) -> AsyncGenerator[Piece]:
        try:
            async with aclosing(self._parts.store.read(blob.key, position, end)) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    yield piece
        except FileNotFoundError as error:
            await self._lost(blob, "its bytes are gone")
            raise ContentLost(detail={"digest": blob.digest}) from error
        if position < end:
            await self._lost(blob, f"it ends at {position} of {blob.size} bytes")
            raise ContentLost(detail={"digest": blob.digest, "at": position})

    async def _whole(self, blob: StoredBlob) -> bytes:
        """All of a small blob, verified: for so few bytes that costs nothing."""
        async with aclosing(self._read(blob, 0, blob.size)) as pieces:
            content = b"".join([piece async for piece in pieces])
        await self._require_right(blob, digests.compute(content, blob.digest.algorithm))
        self._keep(blob.key, content)
        return content

    async def _require_right(self, blob: StoredBlob, computed: Digest) -> None:
        if computed != blob.digest:
            await self._lost(blob, f"its bytes have the digest {computed}")
            raise ContentLost(detail={"digest": blob.digest})

    def _keep(self, key: Key, content: bytes) -> None:
        if key in self._small:
            return
        self._small[key] = content
        self._small_size += len(content)
        while self._small_size > _KEPT:
            self._small_size -= len(self._small.pop(next(iter(self._small))))

    async def _lost(self, blob: StoredBlob, reason: str) -> None:
        """Quarantine what cannot be read; raises ``BlobUnknown`` where it was deleted meanwhile."""
        change = self._parts.change("storage")
        if not await self._parts.metadata.transact(facts.quarantine, blob.digest, blob.key, reason, change):
            raise BlobUnknown(detail={"digest": blob.digest})

    async def url(self, blob: StoredBlob) -> str | None:
        """Where a client can fetch the bytes by itself for ``redirect_expiry`` seconds, if there is such a place."""
        return await self._parts.store.url(blob.key, self._parts.policy.redirect_expiry)

    async def mount(
        self,
        repository: str,
        digest: Digest | str,
        source: str | None = None,
        *,
        actor: str = ANONYMOUS,
        create: bool = True,
    ) -> bool:
        """Let ``repository`` hold a blob that ``source`` (None: any repository) holds; False if it does not.

        Without ``create`` the repository must be there, else ``Denied``.
        """
        change = self._parts.change(actor, create=create)
        blob = as_digest(digest)
        return await self._parts.metadata.transact(facts.mount, check_new(repository), blob, source, change)

    async def holders(self, digest: Digest | str, last: str = "") -> list[str]:
        """Some repositories that hold a blob, in bytewise order after ``last``; empty if no more do."""
        return await facts.holders(self._parts.metadata, as_digest(digest), last, _HOLDERS)

    async def delete(self, repository: str, digest: Digest | str, *, actor: str = ANONYMOUS) -> None:
        """Take a blob out of a repository; raises ``BlobUnknown``, ``InUse``, ``MethodNotAllowed``."""
        self._parts.require_deletion()
        referenced = "layer" in self._parts.policy.not_needed()
        change = self._parts.change(actor)
        blob = as_digest(digest)
        await self._parts.metadata.transact(facts.unlink, repository, blob, change, referenced=referenced)
