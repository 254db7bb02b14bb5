"""A registry without HTTP, over memory and over files."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moorage import Registry, open_registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.errors import DatabaseUnavailable


class Away(SQLiteMetadata):
    """A database that can go away."""

    away = False

    async def transact(self, unit: Any, *arguments: Any, **named: Any) -> Any:
        if self.away:
            raise DatabaseUnavailable
        return await super().transact(unit, *arguments, **named)


@pytest.fixture(params=["memory", "filesystem"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with the default policy."""
    async with open_registry(None if request.param == "memory" else tmp_path / "root") as opened:
        yield opened
