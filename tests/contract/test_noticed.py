"""The contracts notice what is wrong: each test here breaks a backend in one way and must be told so."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moorage.metadata.base import Row, Unit
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.errors import BlobUploadRangeInvalid
from moorage.storage.base import Key, Piece, new_key
from moorage.storage.memory import MemoryBlobStore
from moorage.testing.contract import BlobStoreContract, MetadataContract


class KeepsFailedWrites(MemoryBlobStore):
    @asynccontextmanager
    async def write(self, key: Key) -> AsyncIterator[Any]:
        failed: BaseException | None = None
        async with super().write(key) as writer:
            try:
                yield writer
            except BaseException as error:  # noqa: BLE001
                failed = error
        if failed:
            raise failed


class KeepsTheCallersList(MemoryBlobStore):
    @asynccontextmanager
    async def write(self, key: Key) -> AsyncIterator[Any]:
        given: list[Sequence[bytes]] = []

        class Writer:
            async def write(self, pieces: Sequence[bytes]) -> None:
                given.append(pieces)

        async with super().write(key) as writer:
            yield Writer()
            await writer.write([piece for pieces in given for piece in pieces])


class ReadsOneTooMany(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        async for piece in super().read(key, start, None if stop is None else stop + 1):
            yield piece


class ReadsFromTheStart(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        async for piece in super().read(key, 0, stop):
            yield piece


class ReadsPastTheEnd(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        if start > await self.size(key):
            raise ValueError("beyond the end")
        async for piece in super().read(key, start, stop):
            yield piece


class ReusesItsBuffer(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        content, buffer = self._get(key)[start:stop], bytearray(4096)
        for at in range(0, len(content), 4096):
            buffer[:] = content[at : at + 4096]
            yield buffer


class GivesEmptyPieces(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        async for piece in super().read(key, start, stop):
            yield piece
        yield b""


class ReadsWhatIsAbsent(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        if key in self._objects:
            async for piece in super().read(key, start, stop):
                yield piece


class SizesWhatIsAbsent(MemoryBlobStore):
    async def size(self, key: Key) -> int:
        return len(self._objects.get(key, b""))


class ReadsOtherBytesAfterDelete(MemoryBlobStore):
    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        content = self._get(key)[start:stop]
        for at in range(0, len(content), 65536):
            yield content[at : at + 65536] if key in self._objects else b"0" * 65536


class CopiesOne(MemoryBlobStore):
    async def compose(self, keys: Sequence[Key]) -> Key:
        into = new_key()
        self._objects[into] = b"".join(self._get(key) for key in keys)
        return into


class TakesTheParts(MemoryBlobStore):
    async def compose(self, keys: Sequence[Key]) -> Key:
        into = await super().compose(keys)
        await self.delete([key for key in keys if key != into])
        return into


class JoinsInAnyOrder(MemoryBlobStore):
    async def compose(self, keys: Sequence[Key]) -> Key:
        return await super().compose(sorted(keys, key=self._get))


class ComposesWhatIsThere(MemoryBlobStore):
    async def compose(self, keys: Sequence[Key]) -> Key:
        return await super().compose([key for key in keys if key in self._objects])


class DeletesOnlyWhatIsThere(MemoryBlobStore):
    async def delete(self, keys: Sequence[Key]) -> None:
        for key in keys:
            del self._objects[key]


class DeletesLater(MemoryBlobStore):
    async def delete(self, keys: Sequence[Key]) -> None:
        await super().delete(keys[:1])


class ListsAll(MemoryBlobStore):
    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        async for key in super().list(prefix[:2]):
            yield key


class ListsTwice(MemoryBlobStore):
    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        for _ in range(2):
            async for key in super().list(prefix):
                yield key


class ListsAPage(MemoryBlobStore):
    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        for key in [key async for key in super().list(prefix)][:1000]:
            yield key


class LeavesTrash(MemoryBlobStore):
    async def delete(self, keys: Sequence[Key]) -> None:
        await super().delete(keys)
        self._objects[new_key()] = b"trash"


class GivesABadAddress(MemoryBlobStore):
    async def url(self, key: Key, expires: float) -> str | None:
        return f"file:///tmp/{key}"


ORDER = {"sizes": [3, 1, 2, 300, 4]}
FAILS = BlobStoreContract.test_nothing_remains_of_a_write_that_fails
JOINS = BlobStoreContract.test_composing_joins_in_order_and_leaves_the_parts


@pytest.mark.parametrize(
    ("store", "test", "parameters"),
    [
        (KeepsFailedWrites, FAILS, {"written": 0}),
        (KeepsFailedWrites, FAILS, {"written": 1}),
        (KeepsFailedWrites, BlobStoreContract.test_nothing_remains_of_a_write_that_is_cancelled, {}),
        (KeepsTheCallersList, BlobStoreContract.test_pieces_keep_their_order, {}),
        (ReadsOneTooMany, BlobStoreContract.test_ranges, {}),
        (ReadsFromTheStart, BlobStoreContract.test_ranges, {}),
        (ReadsFromTheStart, BlobStoreContract.test_readers_do_not_disturb_each_other, {}),
        (ReadsPastTheEnd, BlobStoreContract.test_ranges, {}),
        (ReusesItsBuffer, BlobStoreContract.test_ranges, {}),
        (GivesEmptyPieces, BlobStoreContract.test_a_large_object, {}),
        (ReadsWhatIsAbsent, BlobStoreContract.test_what_is_absent, {}),
        (SizesWhatIsAbsent, BlobStoreContract.test_what_is_absent, {}),
        (ReadsOtherBytesAfterDelete, BlobStoreContract.test_a_delete_overtakes_a_read, {}),
        (CopiesOne, BlobStoreContract.test_composing_one_copies_nothing, {}),
        (TakesTheParts, JOINS, ORDER),
        (JoinsInAnyOrder, JOINS, ORDER),
        (ComposesWhatIsThere, BlobStoreContract.test_composing_what_is_absent, {}),
        (DeletesOnlyWhatIsThere, BlobStoreContract.test_deleting, {}),
        (DeletesLater, BlobStoreContract.test_deleting, {}),
        (ListsAll, BlobStoreContract.test_listing_by_prefix, {}),
        (ListsTwice, BlobStoreContract.test_writers_side_by_side, {}),
        (ListsAPage, BlobStoreContract.test_listing_many, {}),
        (LeavesTrash, BlobStoreContract.test_an_object_without_a_write_is_empty, {}),
        (GivesABadAddress, BlobStoreContract.test_where_a_client_can_fetch_it, {}),
    ],
)
def test_a_broken_store(store: type[MemoryBlobStore], test: Callable[..., None], parameters: dict[str, Any]) -> None:
    test(BlobStoreContract(), store=MemoryBlobStore(), **parameters)  # the test itself is right
    with pytest.raises((Exception, pytest.fail.Exception), match=r"\w"):
        test(BlobStoreContract(), store=store(), **parameters)


class KeepsWhatFailed(SQLiteMetadata):
    def _alone(self, unit: Unit[Any]) -> Any:
        self._writer.execute("BEGIN")
        try:
            return self._drive(unit)
        finally:
            self._writer.execute("COMMIT")


class SwallowsErrors(SQLiteMetadata):
    async def transact(self, unit: Callable[..., Unit[Any]], *arguments: Any, **named: Any) -> Any:
        try:
            return await super().transact(unit, *arguments, **named)
        except BlobUploadRangeInvalid:
            return None


class WrapsErrors(SQLiteMetadata):
    async def transact(self, unit: Callable[..., Unit[Any]], *arguments: Any, **named: Any) -> Any:
        try:
            return await super().transact(unit, *arguments, **named)
        except ValueError as error:
            raise ValueError(str(error)) from error


class DropsAnErrorsNeighbours(SQLiteMetadata):
    broken = False

    async def transact(self, unit: Callable[..., Unit[Any]], *arguments: Any, **named: Any) -> Any:
        if self.broken:
            raise RuntimeError("the transaction failed")
        try:
            return await super().transact(unit, *arguments, **named)
        except ValueError:
            self.broken = True
            raise


class SeesItLater(SQLiteMetadata):
    seen: dict[Any, Sequence[Row]]

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        self.seen = getattr(self, "seen", {})
        return self.seen.setdefault(query, await super().fetch(query, *parameters))


class SortsAsPeopleDo(SQLiteMetadata):
    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        rows = await super().fetch(query, *parameters)
        return sorted(rows, key=lambda row: str(row[0]).lower()) if query.startswith("page_") else rows


class RoundsTimes(SQLiteMetadata):
    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        return await super().fetch(query, *(int(each) if isinstance(each, float) else each for each in parameters))


class GivesText(SQLiteMetadata):
    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        rows = await super().fetch(query, *parameters)
        return [tuple(each[:-1] if isinstance(each, bytes) else each for each in row) for row in rows]


class HasAWrongQuery(SQLiteMetadata):
    def __init__(self) -> None:
        super().__init__()
        self._queries["check_segments"] = "SELECT from where"


class ForgetsDoom(SQLiteMetadata):
    def __init__(self) -> None:
        super().__init__()
        self._queries["doom"] = "SELECT ?1, ?2"


class GivesLists(SQLiteMetadata):
    def _drive(self, unit: Unit[Any]) -> Any:
        def listing() -> Unit[Any]:
            statement = next(unit)
            try:
                while True:
                    rows = yield statement
                    statement = unit.send([list(row) for row in rows])
            except StopIteration as stop:
                return stop.value

        return super()._drive(listing())


@pytest.mark.parametrize(
    ("metadata", "test", "parameters"),
    [
        (KeepsWhatFailed, MetadataContract.test_a_unit_that_raises_changes_nothing, {}),
        (KeepsWhatFailed, MetadataContract.test_a_failing_unit_is_alone_among_many, {}),
        (KeepsWhatFailed, MetadataContract.test_a_refused_push_leaves_no_trace, {}),
        (KeepsWhatFailed, MetadataContract.test_an_event_goes_with_each_change, {}),
        (
            KeepsWhatFailed,
            MetadataContract.test_a_statement_that_fails_changes_nothing,
            {"statement": ("no_such_query", ())},
        ),
        (SwallowsErrors, MetadataContract.test_the_same_swap_at_once_has_one_winner, {}),
        (SwallowsErrors, MetadataContract.test_no_increment_is_lost, {}),
        (WrapsErrors, MetadataContract.test_a_unit_that_raises_changes_nothing, {}),
        (DropsAnErrorsNeighbours, MetadataContract.test_a_failing_unit_is_alone_among_many, {}),
        (SeesItLater, MetadataContract.test_what_is_committed_is_seen_at_once, {}),
        (SortsAsPeopleDo, MetadataContract.test_pages_are_in_bytewise_order, {}),
        (RoundsTimes, MetadataContract.test_values_come_back_as_they_were, {}),
        (GivesText, MetadataContract.test_values_come_back_as_they_were, {}),
        (HasAWrongQuery, MetadataContract.test_every_query_runs, {}),
        (ForgetsDoom, MetadataContract.test_the_second_bytes_of_one_content_are_doomed, {}),
        (ForgetsDoom, MetadataContract.test_doomed_keys, {}),
        (ForgetsDoom, MetadataContract.test_sessions_expire, {}),
        (GivesLists, MetadataContract.test_a_unit_gives_rows_and_a_result, {}),
    ],
)
def test_a_broken_metadata(
    metadata: type[SQLiteMetadata], test: Callable[..., None], parameters: dict[str, Any]
) -> None:
    test(MetadataContract(), metadata=SQLiteMetadata(), **parameters)
    with pytest.raises((Exception, pytest.fail.Exception), match=r"\w"):
        test(MetadataContract(), metadata=metadata(), **parameters)
