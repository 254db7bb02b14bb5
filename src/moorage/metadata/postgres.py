"""Facts in PostgreSQL (13 or later), for several nodes over one database.

A unit is one transaction at SERIALIZABLE: what it read still holds when it commits, as with SQLite's one writer. What
PostgreSQL cannot keep apart it refuses, and the unit is started again. Statements that a unit does not wait for
(``later``) travel with its next question or with the COMMIT, BEGIN with its first one: a unit that asks n times costs
n + 1 round trips, one that only writes costs 1, and a ``fetch``, without a transaction of its own, 1.
"""

import asyncio
import functools
import logging
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar, cast

import psycopg
import psycopg_pool
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from moorage.metadata.base import Arguments, Later, Query, Result, Row, Rows, Unit, load_queries
from moorage.metadata.foresight import foreseen
from moorage.metadata.postgres_pool import Lost, Pool, reason
from moorage.metadata.postgres_schema import SchemaUnknown, continue_numbers, migrate, schema_of
from moorage.metadata.tables import PAGE, tables
from moorage.spec.errors import DatabaseUnavailable, OutcomeUnknown, ServiceUnavailable, StorageFull, Unsupported

_BEGIN: Final = "BEGIN ISOLATION LEVEL SERIALIZABLE"
# Each transaction that commits leaves its name. Who does not know whether it did leaves the name himself: that waits
# for the transaction if it is still there, finds the name if it committed, and else keeps it from ever doing so.
_NAME: Final = "INSERT INTO moorage_commits (name) VALUES ($1)"
_TAKE_NAME: Final = f"{_NAME} ON CONFLICT DO NOTHING RETURNING name"
_FORGET_NAMES: Final = "DELETE FROM moorage_commits WHERE name < $1"
_NAMES_KEPT: Final = 86400  # seconds; much more than clocks may differ, or a lost transaction may take to end
_NAMES_AT_ONCE: Final = 1000
_NOW: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_APART: Final = (errors.SerializationFailure, errors.DeadlockDetected)
# What PostgreSQL may say instead of a serialization failure; otherwise it is said again.
_PERHAPS_APART: Final = (errors.UniqueViolation, errors.ExclusionViolation)
_PERHAPS: Final = 4
_PAUSE: Final = 0.1  # seconds between attempts to reach the database
_CONNECTION: Final = {
    "application_name": "moorage",
    "connect_timeout": "5",  # seconds
    "tcp_user_timeout": "15000",  # milliseconds until a silent peer is given up
}
_LEADER: Final = {"target_session_attrs": "read-write"}  # of several hosts, the one that takes changes
# Said in each transaction, since a pooler gives it any session: its COMMIT returns once the replica shows it.
_APPLIED: Final = "SET LOCAL synchronous_commit = remote_apply"
_FOLLOWERS: Final = "SHOW synchronous_standby_names"
_REPLICA_PATIENCE: Final = 0.2  # seconds that a question waits for a connection to the replica
_REPLICA_AWAY: Final = 1.0  # seconds in which a replica that did not answer is not asked
_Answer = TypeVar("_Answer")
_log = logging.getLogger("moorage.metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """How to reach the database: ``url`` as libpq takes it, ``password`` unless it holds one.

    At most ``connections`` are kept. ``patience`` is how long (seconds) an operation waits for one of them, for a
    database that cannot be reached, or for others to let it through. ``prepare`` must be off where a pooler gives
    each transaction another session and knows no prepared statements. ``called`` is what errors call the database.
    ``replica`` is a standby that is asked what needs no transaction. Each commit waits until it is applied there, for
    which the primary must have it as its synchronous standby. Raises ``ValueError`` for a URL that is none.
    """

    url: str
    password: str | None = None
    connections: int = 10
    patience: float = 10.0
    prepare: bool = True
    called: str = "the database"
    replica: str | None = None

    def __post_init__(self) -> None:
        for url in filter(None, (self.url, self.replica)):
            try:
                conninfo_to_dict(url)
            except psycopg.ProgrammingError as error:
                raise ValueError(reason(error)) from None

    def conninfo(self, url: str, **defaults: str) -> str:
        """What libpq is given."""
        given = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
        if self.password is not None:
            given["password"] = self.password
        return make_conninfo("", **(_CONNECTION | defaults | given))


# A pipeline that ends with an error says so a second time, for each conflict that is then run again.
logging.getLogger("psycopg").addFilter(lambda record: not record.msg.startswith("error ignored terminating"))


class PostgresMetadata:
    """``Metadata`` in a PostgreSQL database; with ``read_only`` nothing is made or changed.

    Opening raises ``OSError`` where the database cannot be reached, and ``RuntimeError`` where its schema is of a
    newer Moorage or, with ``read_only``, not there or of another.
    """

    def __init__(self, options: PostgresOptions, *, read_only: bool = False) -> None:
        self._options = options
        self._read_only = read_only
        self._queries = load_queries()
        self._pool: Pool
        self._replica: Pool | None = None
        self._replica_from = 0.0  # when, by the loop's clock, the replica may be asked again
        self._contended: asyncio.Lock
        self._commits = _NAMES_AT_ONCE // 2  # since names were forgotten
        self._open = False

    async def __aenter__(self) -> Self:
        options = self._options
        conninfo = options.conninfo(options.url, **_LEADER)
        replica = None if self._read_only else options.replica
        try:
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
                await (schema_of(connection) if self._read_only else migrate(connection))
                if replica and await (await connection.execute(_FOLLOWERS)).fetchone() == ("",):
                    raise RuntimeError(
                        f"{options.called}: synchronous_standby_names is empty there, so the replica would not show "
                        "what was just pushed; allowed: a server that names the replica"
                    )
        except SchemaUnknown as error:
            raise RuntimeError(f"{self._options.called}: {error}") from error
        except psycopg.Error as error:
            raise OSError(f"{self._options.called}: {reason(error)}") from error
        self._pool = self._pool_of(conninfo, options.patience)
        if replica:
            self._replica = self._pool_of(options.conninfo(replica), _REPLICA_PATIENCE)
            await self._replica.open()
        self._contended = asyncio.Lock()
        await self._pool.open()
        self._open = True
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._open = False
        await self._pool.close()
        if self._replica is not None:
            await self._replica.close()

    def _pool_of(self, conninfo: str, patience: float) -> Pool:
        options = self._options
        return Pool(conninfo, connections=options.connections, patience=patience, prepare=options.prepare)

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        if (rows := foreseen(self, (query, parameters))) is not None:
            return rows
        text = self._queries[query]

        async def ask(pool: Pool) -> Sequence[Row]:
            async with pool.connection() as connection:
                cursor = connection.cursor(binary=True)
                try:
                    await cursor.execute(text, parameters)
                except psycopg.DataError:
                    if _has_nul(parameters):  # no text here holds one, so nothing is equal to it
                        return []
                    raise
                return await cursor.fetchall()

        return await self._read(ask)

    async def fetch_several(self, queries: Sequence[Query]) -> list[Sequence[Row]]:
        async def ask(pool: Pool) -> dict[Query, Sequence[Row]]:
            async with pool.connection() as connection:
                cursors = {}
                async with connection.pipeline():
                    for query, parameters in queries:
                        if not _has_nul(parameters):
                            cursor = cursors[query, parameters] = connection.cursor(binary=True)
                            await cursor.execute(self._queries[query], parameters)
                return {each: await cursor.fetchall() for each, cursor in cursors.items()}

        answers = await self._read(ask)
        return [answers.get(each, ()) for each in queries]

    async def ahead(self) -> float:
        async def ask() -> float:
            async with self._pool.connection() as connection:
                before = time.time()
                cursor = await connection.execute(_NOW)
                ((now,),) = await cursor.fetchall()
                return float(now) - (before + time.time()) / 2

        return await self._patiently(ask)

    async def transact(
        self, unit: Callable[Arguments, Unit[Result]], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        if not self._open:
            raise ServiceUnavailable
        attempt = functools.partial(self._attempt, functools.partial(unit, *arguments, **named))
        try:
            return await self._patiently(attempt)
        except _APART:
            pass
        # One of a node's losers at a time: more of them would only refuse each other again.
        async with self._contended:
            return await self._patiently(attempt, apart=True)

    async def dump(self) -> AsyncGenerator[Rows]:
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                for table, columns in tables().items():
                    async with psycopg.AsyncServerCursor(connection, "moorage_dump") as cursor:
                        await cursor.execute(f"SELECT {', '.join(columns)} FROM {table}".encode())
                        while rows := await cursor.fetchmany(PAGE):
                            yield Rows(table, columns, rows)
        except (Lost, psycopg_pool.PoolTimeout) as error:
            raise DatabaseUnavailable(detail={"reason": str(error)}) from error

    async def load(self, pages: AsyncIterable[Rows]) -> None:
        try:
            async with self._pool.connection() as connection, connection.transaction():
                if self._replica is not None:
                    await connection.execute(_APPLIED)
                for table in tables():
                    await connection.execute(f"DELETE FROM {table}".encode())
                cursor = connection.cursor()
                async for table, columns, rows in pages:
                    async with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
                        for row in rows:
                            await copy.write_row(row)
                await continue_numbers(connection)
        except (Lost, psycopg_pool.PoolTimeout) as error:
            raise DatabaseUnavailable(detail={"reason": str(error)}) from error
        except errors.DiskFull as error:
            raise StorageFull(detail={"reason": str(error)}) from error

    async def _read(self, ask: Callable[[Pool], Awaitable[_Answer]]) -> _Answer:
        """What ``ask`` finds: at the replica, which shows all that was acknowledged, or else where it came from."""
        clock = asyncio.get_running_loop().time
        if self._replica is not None and clock() >= self._replica_from:
            try:
                return await ask(self._replica)
            except (Lost, psycopg_pool.PoolTimeout, psycopg.Error):
                self._replica_from = clock() + _REPLICA_AWAY
        return await self._patiently(lambda: ask(self._pool))

    async def _patiently(self, ask: Callable[[], Awaitable[_Answer]], *, apart: bool = False) -> _Answer:
        """What ``ask`` returns, in several attempts where the connection is lost before it did anything."""
        clock = asyncio.get_running_loop().time
        until, perhaps, pause = clock() + self._options.patience, 0, 0.001
        while True:
            try:
                return await ask()
            except Lost as error:
                if clock() >= until:
                    raise DatabaseUnavailable(detail={"reason": str(error)}) from error
                await asyncio.sleep(_PAUSE)
                await self._pool.check()
            except psycopg_pool.PoolTimeout as error:
                raise DatabaseUnavailable(detail={"reason": "no connection is free"}) from error
            except (errors.DiskFull, errors.ConfigurationLimitExceeded) as error:
                raise StorageFull(detail={"reason": str(error)}) from error
            except (*_APART, *_PERHAPS_APART) as error:
                if isinstance(error, _PERHAPS_APART):
                    perhaps += 1
                    if perhaps == _PERHAPS:
                        raise
                elif not apart:
                    raise
                if clock() >= until:
                    raise DatabaseUnavailable(detail={"reason": "too many change the same"}) from error
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  not a secret
                pause = min(2 * pause, _PAUSE)

    async def _attempt(self, unit: Callable[[], Unit[Result]]) -> Result:
        transaction = _Transaction(self._queries, applied=self._replica is not None)
        try:
            async with self._pool.connection() as connection:
                result = await transaction.run(connection, unit())
                self._commits += transaction.ending
                if self._commits >= _NAMES_AT_ONCE:
                    self._commits = 0
                    await _forget_names(connection)
                return result
        except Lost:
            if not transaction.ending or not await self._is_committed(transaction.name):
                raise
            return cast("Result", transaction.result)

    async def _is_committed(self, name: str) -> bool:
        """Whether a transaction whose COMMIT went unanswered is committed; if not, it never will be.

        Raises ``OutcomeUnknown`` where the database stays away.
        """

        async def ask() -> bool:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(_TAKE_NAME, (name,))
                return await cursor.fetchone() is None

        try:
            return await self._patiently(ask)
        except DatabaseUnavailable as error:
            raise OutcomeUnknown from error


class _Transaction:
    """One attempt at a unit. ``ending`` once COMMIT was sent; ``name`` is what it leaves then.

    With ``applied`` its COMMIT waits for the replica.
    """

    def __init__(self, queries: dict[str, str], *, applied: bool) -> None:
        self._applied = applied
        self.ending = False
        self.name = _name(time.time()) + secrets.token_hex(8)
        self.result: Any = None
        self._queries = queries
        self._waiting: list[Query] = []
        self._begun = False

    async def run(self, connection: psycopg.AsyncConnection[Any], unit: Unit[Result]) -> Result:
        try:
            await self._drive(connection, unit)
            if self._waiting or self._begun:
                self.ending = True
                await self._send(connection, [], commit=True)
        except BaseException as error:
            unit.close()
            if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                await connection.rollback()
            if isinstance(error, psycopg.DataError) and "NUL" in str(error):
                raise Unsupported("a NUL character cannot be kept") from error
            raise
        return cast("Result", self.result)

    async def _drive(self, connection: psycopg.AsyncConnection[Any], unit: Unit[Any]) -> None:
        answer: Any = None
        while True:
            try:
                asked = unit.send(answer)
            except StopIteration as stop:
                self.result = stop.value
                return
            if isinstance(asked, Later):
                self._waiting.append(asked)
                answer = ()
            elif isinstance(asked, list):
                answer = await self._send(connection, asked)
            else:
                (answer,) = await self._send(connection, [asked])

    async def _send(
        self, connection: psycopg.AsyncConnection[Any], asked: list[Query], *, commit: bool = False
    ) -> list[Sequence[Row]]:
        """Send what waits and what is asked in one round trip; the rows of what is asked."""
        cursors = []
        async with connection.pipeline():
            if not self._begun:
                await connection.execute(_BEGIN)
            for query, parameters in [*self._waiting, *asked]:
                cursor = connection.cursor(binary=True)
                await cursor.execute(self._queries[query], parameters)
                cursors.append(cursor)
            if commit:
                await connection.execute(_NAME, (self.name,))
                if self._applied:
                    await connection.execute(_APPLIED)
                await connection.execute("COMMIT")
        self._begun = True
        self._waiting.clear()
        return [await each.fetchall() if each.description else [] for each in cursors[len(cursors) - len(asked) :]]


def _name(at: float) -> str:
    """What the names of transactions of that time start with; they sort by it."""
    return f"{int(at):010x}"


async def _forget_names(connection: psycopg.AsyncConnection[Any]) -> None:
    """Forget the names of old transactions; that it fails is nothing to the one that was committed before it."""
    try:
        await connection.execute(_FORGET_NAMES, (_name(time.time() - _NAMES_KEPT),))
    except psycopg.Error as error:
        _log.warning("names of old transactions stay for now: %s", reason(error))


def _has_nul(parameters: Sequence[Any]) -> bool:
    return any(isinstance(each, str) and "\0" in each for each in parameters)
