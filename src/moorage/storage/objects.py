"""Bytes in a bucket of S3, Google Cloud Storage or Azure Blob Storage, or of what speaks like one of them.

    <bucket>/<prefix>/ab/ab12cd…      one object for each, named by its key

An object is one PUT, or one multipart upload where it is larger than a part, and never copied inside the bucket.
What is broken off is aborted; a process that is killed leaves an unfinished multipart upload, which a lifecycle rule
of the bucket ends. The connections must be made in the process that uses them: they do not survive a fork.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, Self, TypeVar

import obstore
from obstore.exceptions import BaseError

from moorage.spec.errors import BlobTooLarge, RegistryError, StorageFull, StorageUnavailable
from moorage.storage.base import Key, Piece, new_key
from moorage.storage.buckets import BucketOptions, connect

Redirect = Literal["auto", "always", "never"]
Result = TypeVar("Result")

PIECE: Final = 256 * 1024  # smaller ones cost twice the processor time, since each changes threads
_PARTS: Final = 10_000  # what S3 and Google allow in one object
_AT_ONCE: Final = 1000  # what S3 deletes by one request
_SINGLY: Final = 16
_RESUMED: Final = 5  # how often a read goes on without having got a byte in between
_PAUSE: Final = 0.2  # seconds
_REUSED: Final = 60.0  # seconds that an address is given again
_KNOWN: Final = 4096
_RETRY_AFTER: Final = "5"
# Where clients can be sent without being told that they reach it.
_PUBLIC: Final = re.compile(
    r"https://([^/]+\.)?(amazonaws\.com(\.cn)?|storage\.googleapis\.com|blob\.core\.(windows\.net|\w+\.cn|\w+\.net))(:443)?/"
)
_FULL: Final = ("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507 ")
_OUR_FAULT: Final = re.compile(r"4(?!08|29)\d\d ")  # what the same request will meet again
_log = logging.getLogger("moorage.storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOptions:
    """How objects are written, read and handed out.

    ``part_size`` bytes at a time go to storage, ``concurrency`` parts at once for each upload. ``redirect`` says
    whether clients get an address of their own, ``cdn_url`` what stands there instead of the bucket and its prefix.
    """

    part_size: int = 8 * 1024 * 1024
    concurrency: int = 2
    redirect: Redirect = "auto"
    cdn_url: str | None = None

    @property
    def largest(self) -> int:
        """The bytes of the largest object that can be written."""
        return self.part_size * _PARTS


class _ObjectWriter:
    """Gathers pieces for the library's writer, which sends parts while more of them come."""

    def __init__(self, store: Any, key: Key, options: ObjectOptions) -> None:
        self.closing = False
        self._file = obstore.open_writer_async(
            store, key, buffer_size=options.part_size, max_concurrency=options.concurrency
        )
        self._largest = self._room = options.largest
        self._held: list[bytes] = []
        self._held_size = 0
        self._sending: asyncio.Future[int] | None = None

    async def write(self, pieces: Sequence[bytes]) -> None:
        size = sum(map(len, pieces))
        self._room -= size
        if self._room < 0:
            raise BlobTooLarge(detail={"allowed": self._largest})
        self._held += pieces
        self._held_size += size
        if self._held_size >= PIECE:
            await self._send()

    async def finish(self) -> None:
        await self._send()
        self.closing = True
        with _translated():
            await self._file.close()

    async def abort(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])
        with suppress(BaseError, OSError):  # nothing was begun, or it is the storage that fails
            await self._file.__aexit__(RuntimeError, RuntimeError("abandoned"), None)

    async def _send(self) -> None:
        held, self._held, self._held_size = self._held, [], 0
        if held:
            # Shielded: a request that begins a multipart upload must end, or nobody could abort it.
            self._sending = asyncio.ensure_future(self._file.write(b"".join(held)))
            with _translated():
                await asyncio.shield(self._sending)


class ObjectBlobStore:
    """A ``BlobStore`` in the bucket that ``bucket`` describes."""

    def __init__(self, bucket: BucketOptions, options: ObjectOptions | None = None) -> None:
        self._bucket = bucket
        self._options = options or ObjectOptions()
        self._store: Any = None
        self._public = self._options.redirect == "always"  # whether clients get addresses in the bucket
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses: OrderedDict[Key, tuple[float, float, str]] = OrderedDict()

    async def __aenter__(self) -> Self:
        try:
            self._store = connect(self._bucket)
        except (BaseError, ValueError) as error:
            raise RuntimeError(f"{self._bucket.called} = {self._bucket.url!r}: {_reason(str(error))}") from None
        await self._look()
        return self

    async def __aexit__(self, *exception: object) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._store = None
        # The library's threads may still hold objects of Python; an interpreter that ends meanwhile aborts.
        await asyncio.sleep(0.1)

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncIterator[_ObjectWriter]:
        writer = _ObjectWriter(self._store, key, self._options)
        ending: asyncio.Task[None] | None = None
        try:
            yield writer
            ending = self._begin(writer.finish())
            await asyncio.shield(ending)
        except BaseException as error:
            # Goes on whatever happens to this task, so nothing remains even when it is cancelled again.
            undoing = self._begin(self._abandon(writer, key, ending))
            if not isinstance(error, StorageUnavailable):  # else that takes its time too, and a client waits
                await asyncio.shield(undoing)
            raise

    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        if stop is not None and start >= stop:
            await self.size(key)  # which raises where there is nothing
            return
        begun, failures = False, 0
        while True:
            try:
                async with aclosing(self._stream(key, start, stop)) as pieces:
                    async for piece in pieces:
                        start += len(piece)
                        begun, failures = True, 0
                        yield piece
            except StorageUnavailable as error:
                failures += 1
                if not begun or failures > _RESUMED:
                    raise
                _log.warning("reading goes on at byte %d: %s", start, error)
                await asyncio.sleep(_PAUSE * failures)
            else:
                return

    def stretch(self, key: Key, start: int, stop: int) -> None:  # noqa: ARG002  there is no file
        return None

    async def size(self, key: Key) -> int:
        with _translated(key):
            return int((await obstore.head_async(self._store, key))["size"])

    async def compose(self, keys: Sequence[Key]) -> Key:
        if len(keys) == 1:
            return keys[0]
        into = new_key()
        async with self.write(into) as writer:
            for key in keys:
                async with aclosing(self.read(key)) as pieces:
                    async for piece in pieces:
                        await writer.write([bytes(piece)])
        return into

    async def delete(self, keys: Sequence[Key]) -> None:
        for at in range(0, len(keys), _AT_ONCE):
            some = list(keys[at : at + _AT_ONCE])
            try:
                with _translated():
                    await obstore.delete_async(self._store, some)
            except RegistryError:  # for one of them; it says neither which, nor what became of the others
                await self._delete_singly(some)

    async def _delete_singly(self, keys: Sequence[Key]) -> None:
        """Delete each key by itself; one that fails keeps no other from it, until it seems that all fail."""
        gate = asyncio.Semaphore(_SINGLY)
        failures: list[RegistryError] = []

        async def delete(key: Key) -> None:
            async with gate:
                if len(failures) < _SINGLY:
                    try:
                        with suppress(FileNotFoundError), _translated(key):
                            await obstore.delete_async(self._store, key)
                    except RegistryError as error:
                        failures.append(error)

        await asyncio.gather(*(delete(key) for key in keys))
        if failures:
            raise failures[0]

    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        folder = prefix.rpartition("/")[0]  # the library lists whole folders
        with _translated():
            async for some in obstore.list(self._store, folder or None):
                for each in some:
                    if each["path"].startswith(prefix):
                        yield each["path"]

    async def entries(self, folder: str) -> Sequence[str]:
        """What is directly in ``folder`` (empty, or with ``/`` at its end), sorted; the name of a folder ends so."""
        with _translated():
            found = await obstore.list_with_delimiter_async(self._store, folder or None)
        paths = [f"{each}/" for each in found["common_prefixes"]] + [each["path"] for each in found["objects"]]
        return sorted(each.removeprefix(folder) for each in paths)

    async def url(self, key: Key, expires: float) -> str | None:
        if self._options.redirect == "never":
            return None
        if self._options.cdn_url:
            return f"{self._options.cdn_url.rstrip('/')}/{key}"
        if not self._public:
            return None
        now = time.monotonic()
        reusable, asked, address = self._addresses.get(key, (0.0, 0.0, ""))
        if reusable <= now or asked != expires:
            address = await self._sign(key, expires + _REUSED)
            self._addresses[key] = now + _REUSED, expires, address
            self._addresses.move_to_end(key)
            if len(self._addresses) > _KNOWN:
                self._addresses.popitem(last=False)
        return address

    async def _look(self) -> None:
        """Whether the bucket is there and lets us in; what can pass is only logged."""
        try:
            with _translated():
                async for _ in obstore.list(self._store, chunk_size=1):
                    break
        except StorageUnavailable as error:
            reason = error.details[0]["reason"]
            if not error.passing:
                raise RuntimeError(
                    f"{self._bucket.called} = {self._bucket.url!r}: the bucket refuses: {reason}"
                ) from None
            _log.error("%s does not answer yet: %s", self._bucket.url, reason)
        if self._options.redirect == "auto" and not self._options.cdn_url and self._bucket.endpoint is None:
            try:
                self._public = _PUBLIC.match(await self._sign("ab/ab", 60.0)) is not None
            except StorageUnavailable as error:
                _log.warning("clients get no addresses in %s: %s", self._bucket.url, error.details[0]["reason"])

    async def _sign(self, key: Key, expires: float) -> str:
        with _translated():
            return await obstore.sign_async(self._store, "GET", key, timedelta(seconds=expires))

    async def _stream(self, key: Key, start: int, stop: int | None) -> AsyncGenerator[Piece]:
        """The bytes of one request; raises ``StorageUnavailable`` where they end before their announced end."""
        options: Any = {}
        if start or stop is not None:
            options["range"] = {"offset": start} if stop is None else (start, stop)
        try:
            with _translated(key):
                answer = await obstore.get_async(self._store, key, options=options)
        except RegistryError:
            # The library reports a range beyond the end as it does any error.
            if options and await self.size(key) <= start:
                return
            raise
        position, end = answer.range
        with _translated(key):
            async for piece in answer.stream(min_chunk_size=PIECE):
                if piece:
                    position += len(piece)
                    yield piece
        if position < end:
            raise _unavailable(f"the answer ended at byte {position} of {end}")

    async def _abandon(self, writer: _ObjectWriter, key: Key, ending: "asyncio.Task[None] | None") -> None:
        if ending is not None:
            await asyncio.wait([ending])
        await writer.abort()
        if writer.closing:  # it may be there, in whole
            try:
                await self.delete([key])
            except RegistryError as error:
                _log.warning("%s may be left behind: %s", key, error)

    def _begin(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it; after a cancellation nobody does


@contextmanager
def _translated(key: Key | None = None) -> Iterator[None]:
    """The library's errors as ours, without what they hold of addresses, signatures and credentials."""
    try:
        yield
    except FileNotFoundError as error:
        if key is None:
            raise _unavailable(_reason(str(error)), passing=False) from None
        raise FileNotFoundError(key) from None
    except (BaseError, OSError) as error:
        reason = _reason(str(error))
        if any(word in reason for word in _FULL):
            raise StorageFull(detail={"reason": reason}) from None
        raise _unavailable(reason, passing=_OUR_FAULT.match(reason) is None) from None


def _unavailable(reason: str, *, passing: bool = True) -> StorageUnavailable:
    error = StorageUnavailable(detail={"reason": reason}, headers={"Retry-After": _RETRY_AFTER})
    error.passing = passing
    return error


def _reason(text: str) -> str:
    """What went wrong, in a few words: a status, a code of the storage's, or what the system said; no address."""
    found = [match[1] for pattern in _REASONS if (match := re.search(pattern, text))]
    return " ".join(dict.fromkeys(found)) or re.sub(r" \w+://\S+|\?\S*", "", text.partition("\n")[0])[:200]


_REASONS: Final = (
    r"status code: (\d{3} [A-Z][A-Za-z ]*\w)",
    r"<Code>(\w+)</Code>",
    r'message: "([^"?]{1,100})"',
    r"(TimedOut|timed out|IncompleteMessage|ConnectionReset|UnexpectedEof|InvalidCertificate\(\w+\)|UnknownIssuer)",
)
