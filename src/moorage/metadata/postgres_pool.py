"""Connections to a PostgreSQL server, taken in turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
import psycopg_pool
from psycopg import errors
from psycopg.types.numeric import Int8BinaryDumper

from moorage.spec.errors import Unsupported

_TURN: Final = 1.0  # seconds


class Lost(Exception):
    """The connection went, and with it what was not committed."""


class Pool:
    """At most ``connections`` to the server of ``conninfo``; who wants one waits for it ``patience`` seconds."""

    def __init__(self, conninfo: str, *, connections: int, patience: float, prepare: bool) -> None:
        self._patience = patience
        self._pool = psycopg_pool.AsyncConnectionPool(
            conninfo,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0 if prepare else None,
                "cursor_factory": psycopg.AsyncRawCursor,
            },
            min_size=min(2, connections),
            max_size=connections,
            reconnect_timeout=_TURN,
            name="moorage",
            configure=_configure,
            open=False,
        )

    async def open(self) -> None:
        """Begin to connect, without waiting for it."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def check(self) -> None:
        """Replace the connections that are broken."""
        await self._pool.check()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection; raises ``Lost`` if it is lost meanwhile, ``PoolTimeout`` when patience is over."""
        connection = await self._take()
        try:
            yield connection
        except psycopg.OperationalError as error:
            if connection.broken or isinstance(error, errors.AdminShutdown | errors.CrashShutdown):
                raise Lost(reason(error)) from error
            raise
        except psycopg.DataError as error:  # such as a NUL, which no text can hold here
            raise Unsupported(
                "the request holds text or a number that the database cannot", detail={"reason": reason(error)}
            ) from error
        except errors.ReadOnlySqlTransaction as error:  # another server took its place
            await connection.close()
            raise Lost(reason(error)) from error
        finally:
            await self._pool.putconn(connection)

    async def _take(self) -> psycopg.AsyncConnection[Any]:
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while True:
            # In turns: where the server was away, only a new asker makes the pool look for it again.
            try:
                return await self._pool.getconn(min(_TURN, max(0.001, until - clock())))
            except psycopg_pool.PoolTimeout:
                if clock() >= until:
                    raise


async def _configure(connection: psycopg.AsyncConnection[Any]) -> None:
    connection.prepared_max = None  # else those used least are dropped, which costs a round trip each
    connection.adapters.register_dumper(int, Int8BinaryDumper)  # else each size of a number is a statement of its own


def reason(error: Exception) -> str:
    """The first line of what the library says; none holds a password."""
    return (str(error) or type(error).__name__).splitlines()[0]
