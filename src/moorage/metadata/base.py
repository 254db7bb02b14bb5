"""What a database must do for the registry, and the form in which changes are written.

A change is a *unit*: a generator that yields ``(query name, parameters)`` and is sent the rows. It does no I/O
itself, so one text serves every database: SQLite drives it in its writer thread, several in one transaction; another
engine awaits each query. A unit that raises changes nothing.
"""

from collections.abc import Generator, Sequence
from importlib import resources
from typing import Any, Protocol, Self, TypeVar

Row = tuple[Any, ...]
Query = tuple[str, tuple[Any, ...]]
Result = TypeVar("Result")
Unit = Generator[Query, Sequence[Row], Result]


class Metadata(Protocol):
    """The facts. Opened and closed as an async context manager; brings its schema up to date when opened."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exception: object) -> None: ...

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        """The rows of a named query that changes nothing, as of now."""

    async def transact(self, unit: Unit[Result]) -> Result:
        """Run ``unit`` all or nothing; durable on return. Raises what the unit raises, and ``StorageFull``."""


def one(query: str, *parameters: Any) -> Unit[Row | None]:
    """The first row of a query, or None; for ``yield from`` in a unit."""
    rows = yield query, parameters
    return rows[0] if rows else None


def run(query: str, *parameters: Any) -> Unit[Sequence[Row]]:
    """All rows of a query; for ``yield from`` in a unit."""
    return (yield query, parameters)


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
