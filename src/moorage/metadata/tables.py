"""The tables that there are, on whatever engine the migrations ran; for taking all facts to another database."""

import sqlite3
from collections.abc import Mapping
from functools import cache
from typing import Final

from moorage.metadata.base import load_migrations

PAGE: Final = 1000  # rows


@cache
def tables() -> Mapping[str, tuple[str, ...]]:
    """The columns of each table."""
    connection = sqlite3.connect(":memory:")
    try:
        for _, text in load_migrations():
            connection.executescript(text)
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        return {
            name: tuple(column for _, column, *_ in connection.execute(f"PRAGMA table_info({name})"))
            for (name,) in names.fetchall()
        }
    finally:
        connection.close()
