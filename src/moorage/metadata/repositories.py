"""Facts about repositories."""

from moorage.metadata.base import Metadata, Unit, one, run
from moorage.spec.errors import NameUnknown


def make(name: str) -> Unit[int]:
    """The identifier of a repository, which is there from now on."""
    if row := (yield from one("repository_id", name)):
        return int(row[0])
    yield from run("add_repository", name)
    row = yield from one("repository_id", name)
    assert row is not None  # noqa: S101  just inserted, in this transaction
    return int(row[0])


def find(name: str) -> Unit[int]:
    """The identifier of a repository; raises ``NameUnknown``."""
    if row := (yield from one("repository_id", name)):
        return int(row[0])
    raise NameUnknown(detail={"name": name})


async def exists(metadata: Metadata, name: str) -> bool:
    """Whether anything was ever stored under ``name``."""
    return bool(await metadata.fetch("repository_id", name))


async def page(metadata: Metadata, last: str, limit: int) -> list[str]:
    """Up to ``limit`` repository names after ``last``, in bytewise order."""
    return [name for (name,) in await metadata.fetch("page_repositories", last, limit)]
