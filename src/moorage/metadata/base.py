"""What a database must do for the registry, and the form in which changes are written.

A change is a *unit*: a generator that yields ``(query name, parameters)`` and is sent the rows. It does no I/O
itself, so one text serves every database: SQLite drives it in its writer thread, several in one transaction;
PostgreSQL awaits each question, over a network. So a unit does not wait where it need not: ``later`` is for a
statement whose rows it does not use, ``together`` for questions of which none needs the answer to another.

A unit that raises changes nothing. It may be started again from its beginning, when the database could not keep what
it did apart from what others did: so it changes nothing but facts, and takes nothing that can be used only once.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Sequence
from importlib import resources
from typing import Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar, runtime_checkable

Row = tuple[Any, ...]
Query = tuple[str, tuple[Any, ...]]
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Unit = Generator[Query | list[Query], Any, Result]
Make = Callable[[Sequence[Row], tuple[Any, ...]], Row]  # of the rows of a query and its parameters


class Rows(NamedTuple):
    """Some rows of a table; each holds the values of ``columns`` in this order."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


class Later(NamedTuple):
    """A query whose rows the unit does not use; it runs before the next one that it asks, or at the end."""

    query: str
    parameters: tuple[Any, ...]


class Metadata(Protocol):
    """The facts. Opened and closed as an async context manager; brings its schema up to date when opened."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exception: object) -> None: ...

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        """The rows of a named query that changes nothing, as of now."""

    async def ahead(self) -> float:
        """How many seconds the database's clock is ahead of this machine's: 0 where they are one."""

    async def transact(
        self, unit: Callable[Arguments, Unit[Result]], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Run ``unit(*arguments, **named)`` all or nothing; durable on return.

        Raises what the unit raises, ``StorageFull``, ``DatabaseUnavailable`` where nothing was changed, and
        ``OutcomeUnknown`` where nobody can tell.
        """


class MovableMetadata(Metadata, Protocol):
    """``Metadata`` that can be taken to another engine as a whole."""

    def dump(self) -> AsyncGenerator[Rows]:
        """All facts as of one moment, table by table, in pages."""

    async def load(self, pages: AsyncIterable[Rows]) -> None:
        """Replace all facts by those of a ``dump``, all or nothing; durable on return."""


@runtime_checkable
class SeveralMetadata(Metadata, Protocol):
    """``Metadata`` that is far away: several questions at once take as long as one."""

    async def fetch_several(self, queries: Sequence[Query]) -> list[Sequence[Row]]:
        """The rows of each query as ``fetch`` gives them, in one round trip."""


@runtime_checkable
class KeepingMetadata(Metadata, Protocol):
    """``Metadata`` that keeps answers while the facts stay the same."""

    async def made(self, make: Make, query: str, *parameters: Any) -> Row:
        """What ``make``, a function that stays, makes of a query's rows; kept in their place."""


async def made(metadata: Metadata, make: Make, query: str, *parameters: Any) -> Row:
    """What ``make`` makes of the rows of a query that changes nothing, as of now."""
    if isinstance(metadata, KeepingMetadata):
        return await metadata.made(make, query, *parameters)
    return make(await metadata.fetch(query, *parameters), parameters)


def one(query: str, *parameters: Any) -> Unit[Row | None]:
    """The first row of a query, or None; for ``yield from`` in a unit."""
    rows = yield query, parameters
    return rows[0] if rows else None


def run(query: str, *parameters: Any) -> Unit[Sequence[Row]]:
    """All rows of a query; for ``yield from`` in a unit."""
    rows: Sequence[Row] = yield query, parameters
    return rows


def later(query: str, *parameters: Any) -> Unit[None]:
    """Run a query whose rows are not used, in its order but without waiting; for ``yield from`` in a unit."""
    yield Later(query, parameters)


def together(queries: list[Query]) -> Unit[Sequence[Sequence[Row]]]:
    """The rows of each query, run in this order; for ``yield from`` in a unit."""
    rows: Sequence[Sequence[Row]] = yield queries
    return rows


def load_queries() -> dict[str, str]:
    """The texts of ``queries.sql`` by name."""
    text = resources.files(__package__).joinpath("queries.sql").read_text("utf-8")
    queries = {}
    for block in text.split("-- name: ")[1:]:
        name, _, query = block.partition("\n")
        queries[name.strip()] = query.strip().rstrip(";")
    return queries


def load_migrations() -> list[tuple[int, str]]:
    """The numbered texts that make the schema, in order."""
    folder = resources.files(__package__).joinpath("migrations")
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name[:4]), folder.joinpath(name).read_text("utf-8")) for name in files]
