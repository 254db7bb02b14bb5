"""Facts in SQLite.

    <root>/moorage.db (-wal, -shm)     the facts, in write-ahead mode, synced at each commit
    <root>/moorage.lock                held while a process writes, so that writers queue instead of polling

Reads run where they are asked (some microseconds each). Writes go to one thread, which commits all units that are
waiting in one transaction: the more clients, the fewer syncs each costs.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Self

from moorage.metadata.base import Arguments, Make, Result, Row, Rows, Unit, load_migrations, load_queries
from moorage.metadata.snapshots import Answers, WalIndex
from moorage.metadata.tables import PAGE, tables
from moorage.spec.errors import ServiceUnavailable, StorageFull

_BUSY_SECONDS: Final = 30
_STATEMENTS: Final = 256
# Questions of every pull, and of who may pull: their answers are kept while nobody commits.
_KEPT: Final = frozenset(
    {
        "manifest_by_tag",
        "manifest_by_digest",
        "describe_by_tag",
        "describe_by_digest",
        "blob_of_repository",
        "access_version",
        "user",
        "api_key",
    }
)
_MOST_UNITS: Final = 256  # in one transaction
_FULL: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)


class _Job(Generic[Result]):
    """A unit on its way through the writer thread."""

    def __init__(self, unit: Callable[[], Unit[Result]], loop: asyncio.AbstractEventLoop) -> None:
        self.unit = unit
        self.loop = loop
        self.future: asyncio.Future[Result] = loop.create_future()
        self.result: Result
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled; what was committed stays
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SQLiteMetadata:
    """``Metadata`` in the file ``path``, or in memory and gone with this object where ``path`` is None.

    With ``read_only`` nothing is made or changed: an absent file raises ``FileNotFoundError``, one of another schema
    ``RuntimeError``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, read_only: bool = False) -> None:
        self._path = None if path is None else Path(path)
        self._read_only = read_only
        self._queries = {name: text.replace("$", "?") for name, text in load_queries().items()}
        self._reader: sqlite3.Connection
        self._writer: sqlite3.Connection
        self._index: WalIndex | None = None
        self._answers: Answers | None = None
        self._lock: int | None = None
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open = False

    async def __aenter__(self) -> Self:
        if self._path is None:
            self._reader = self._writer = self._connect(":memory:")
            self._migrate()
        elif self._read_only:
            if not self._path.exists():
                raise FileNotFoundError(self._path)
            self._reader = self._connect(f"{self._path.resolve().as_uri()}?mode=ro")
            try:
                self._check_schema()
            except BaseException:
                self._reader.close()
                raise
        else:
            try:
                self._open_file(self._path)
            except sqlite3.Error as error:
                raise _translate(error) from error
        self._open = True
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._open = False
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
            self._writer.close()
        self._reader.close()
        if self._index is not None:
            self._index.close()
        if self._lock is not None:
            os.close(self._lock)

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        if self._answers is None or query not in _KEPT:
            return self._reader.execute(self._queries[query], parameters).fetchall()
        rows = self._answers.get(key := (query, parameters))
        if rows is None:
            rows = self._reader.execute(self._queries[query], parameters).fetchall()
            self._answers.keep(key, rows)
        return rows

    async def made(self, make: Make, query: str, *parameters: Any) -> Row:
        if self._answers is None:
            return make(await self.fetch(query, *parameters), parameters)
        rows = self._answers.get(key := (make, query, parameters))
        if rows is None:
            rows = [make(await self.fetch(query, *parameters), parameters)]  # which does not let others run
            self._answers.keep(key, rows)
        return rows[0]

    async def ahead(self) -> float:
        return 0.0

    async def transact(
        self, unit: Callable[Arguments, Unit[Result]], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        if not self._open:
            raise ServiceUnavailable
        if self._thread is None:
            return self._alone(unit(*arguments, **named))
        job = _Job(functools.partial(unit, *arguments, **named), asyncio.get_running_loop())
        self._jobs.put(job)
        return await job.future

    async def dump(self) -> AsyncGenerator[Rows]:
        reader = self._another()
        try:
            reader.execute("BEGIN")
            for table, columns in tables().items():
                cursor = reader.execute(f"SELECT {', '.join(columns)} FROM {table}")
                while rows := await asyncio.to_thread(cursor.fetchmany, PAGE):
                    yield Rows(table, columns, rows)
        finally:
            reader.close()

    async def load(self, pages: AsyncIterable[Rows]) -> None:
        writer = self._another()
        try:
            # One for all: a cursor of each page, dropped by one thread, would reset the statement that another is in.
            cursor = writer.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            for table in tables():
                cursor.execute(f"DELETE FROM {table}")
            async for table, columns, rows in pages:
                insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
                await asyncio.to_thread(cursor.executemany, insert, rows)
            await asyncio.to_thread(cursor.execute, "COMMIT")
            if self._path is None:
                self._writer.deserialize(writer.serialize())
        except sqlite3.Error as error:
            raise _translate(error) from error
        finally:
            writer.close()

    def _another(self) -> sqlite3.Connection:
        """A connection for long work, which others do not see until it commits; that in memory is to a copy."""
        if self._path is not None:
            return self._connect(f"{self._path.resolve().as_uri()}?mode={'ro' if self._read_only else 'rw'}")
        copy = self._connect(":memory:")
        copy.deserialize(self._reader.serialize())
        return copy

    def _open_file(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Not where it exists: closing any descriptor of it would drop all locks that this process has on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._writer = self._connect(path.resolve().as_uri())
        with self._locked():
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._migrate()
            # Else each page that a unit changes goes to a file first. Not before: making an index sorts a table.
            self._writer.execute("PRAGMA temp_store = MEMORY")
            if (index := WalIndex.of(path)) is not None:
                self._index, self._answers = index, Answers(index)
                if not index.has_log():  # any commit makes one
                    (version,) = self._writer.execute("PRAGMA user_version").fetchone()
                    self._writer.execute(f"PRAGMA user_version = {version}")
        self._reader = self._connect(path.resolve().as_uri())
        self._reader.execute("PRAGMA query_only = ON")
        self._thread = threading.Thread(target=self._write, name="moorage-facts", daemon=True)
        self._thread.start()

    def _connect(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri,
            uri=uri.startswith("file:"),
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = OFF")  # `moorage check` looks; each write would pay
        return connection

    def _migrate(self) -> None:
        (done,) = self._writer.execute("PRAGMA user_version").fetchone()
        migrations = load_migrations()
        if done > migrations[-1][0]:
            raise RuntimeError(f"{self._path} was written by a newer Moorage (schema {done})")
        for number, text in migrations:
            if number > done:
                self._writer.executescript(f"BEGIN IMMEDIATE; {text}; PRAGMA user_version = {number}; COMMIT;")

    def _check_schema(self) -> None:
        """What reads only cannot bring the schema up to date."""
        (done,) = self._reader.execute("PRAGMA user_version").fetchone()
        if not done:
            raise RuntimeError(f"{self._path}: it holds no registry, or one whose making was broken off")
        if done != (known := load_migrations()[-1][0]):
            raise RuntimeError(
                f"{self._path}: it has schema {done}; this Moorage knows {known}, and serving brings it there"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self) -> None:
        """The writer thread: everything that waits, in one transaction."""
        stopping = False
        while not stopping:
            jobs = []
            job = self._jobs.get()
            while True:
                if job is None:
                    stopping = True
                    break
                jobs.append(job)
                if self._jobs.empty() or len(jobs) == _MOST_UNITS:
                    break
                job = self._jobs.get()
            if jobs:
                self._commit(jobs)
                for loop in {job.loop for job in jobs}:
                    settled = [job for job in jobs if job.loop is loop]
                    with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
                        loop.call_soon_threadsafe(_settle, settled)

    def _commit(self, jobs: list[_Job[Any]]) -> None:
        try:
            with self._locked():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    for job in jobs:
                        self._guarded(job)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except BaseException as error:  # noqa: BLE001  each caller is told
            for job in jobs:
                job.error = _translate(error)

    def _guarded(self, job: _Job[Any]) -> None:
        self._writer.execute("SAVEPOINT unit")
        try:
            job.result = self._drive(job.unit())
        except Exception as error:
            # A full disk ends the whole transaction; anything else is this unit's own.
            if not self._writer.in_transaction or isinstance(_translate(error), StorageFull):
                raise
            self._writer.execute("ROLLBACK TO unit")
            job.error = error
        self._writer.execute("RELEASE unit")

    def _alone(self, unit: Unit[Result]) -> Result:
        self._writer.execute("BEGIN")
        try:
            result = self._drive(unit)
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise
        self._writer.execute("COMMIT")
        return result

    def _drive(self, unit: Unit[Result]) -> Result:
        execute = self._writer.execute
        try:
            asked = next(unit)
            while True:
                if isinstance(asked, list):
                    asked = unit.send([execute(self._queries[query], values).fetchall() for query, values in asked])
                else:
                    query, values = asked
                    asked = unit.send(execute(self._queries[query], values).fetchall())
        except StopIteration as stop:
            result: Result = stop.value
            return result
        finally:
            unit.close()


def _settle(jobs: list[_Job[Any]]) -> None:
    for job in jobs:
        job.settle()


def _translate(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) in _FULL:
        return StorageFull(detail={"reason": str(error)})
    return error
