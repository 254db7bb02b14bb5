"""A registry without HTTP, over memory and over files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moorage import Registry, open_registry


@pytest.fixture(params=["memory", "filesystem"])
async def registry(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with the default policy."""
    async with open_registry(None if request.param == "memory" else tmp_path / "root") as opened:
        yield opened
