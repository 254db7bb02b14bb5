"""The contract of taking all facts to another engine."""

# ruff: noqa: S101  an assert is what a test is made of
from collections.abc import AsyncIterator

import pytest

from moorage.metadata import manifest_changes, repositories, tags
from moorage.metadata.base import MovableMetadata, Rows
from moorage.testing.contract.driving import with_metadata
from moorage.testing.contract.units import CHANGE, REPOSITORY, Broken, anything, everything, pushed


async def pages_of(metadata: MovableMetadata) -> list[Rows]:
    """All facts, as they are dumped."""
    return [page async for page in metadata.dump()]


async def again(pages: list[Rows]) -> AsyncIterator[Rows]:
    """``pages``, one by one."""
    for page in pages:
        yield page


class MovingContract:
    """Dumps and loads. Needs a fixture ``metadata``: a ``MovableMetadata``, empty and not opened."""

    @with_metadata
    async def test_what_was_dumped_is_loaded_in_place_of_all_else(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before, pages = await anything(metadata), await pages_of(metadata)
        assert {page.table for page in pages} >= {"blobs", "manifests", "tags", "segments", "events"}
        await metadata.transact(repositories.make, "later")
        await metadata.load(again(pages))
        assert await anything(metadata) == before
        assert sorted(await pages_of(metadata)) == sorted(pages)
        # Numbers that the database gives go on after those that came.
        await metadata.transact(repositories.make, "another")
        await metadata.transact(manifest_changes.push, pushed("other", tags=["other"]), CHANGE)
        assert await tags.page(metadata, REPOSITORY, "", 10) == ["other", "tag"]

    @with_metadata
    async def test_a_load_that_breaks_off_changes_nothing(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before = await anything(metadata)

        async def broken() -> AsyncIterator[Rows]:
            yield Rows("repositories", ("id", "name"), [(1, "a")])
            raise Broken

        with pytest.raises(Broken):
            await metadata.load(broken())
        assert await anything(metadata) == before

    @with_metadata
    async def test_a_dump_is_of_one_moment(self, metadata: MovableMetadata) -> None:
        await metadata.transact(everything)
        before = await pages_of(metadata)
        dump = metadata.dump()
        pages = [await anext(dump)]
        await metadata.transact(repositories.make, "later")
        await metadata.transact(manifest_changes.push, pushed("later", tags=["later"]), CHANGE)
        pages += [page async for page in dump]
        assert sorted(pages) == sorted(before)
