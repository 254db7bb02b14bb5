"""Facts about repositories."""

from moorage.metadata.base import Metadata, Unit, one, run
from moorage.spec.errors import Denied, NameUnknown


def make(name: str, *, create: bool = True) -> Unit[int]:
    """The identifier of a repository, which is there from now on; raises ``Denied`` unless one may ``create`` it."""
    if row := (yield from one("repository_id", name)):
        return int(row[0])
    if not create:
        raise not_created(name)
    yield from run("add_repository", name)
    row = yield from one("repository_id", name)
    assert row is not None  # noqa: S101  just inserted, in this transaction
    return int(row[0])


def not_created(name: str) -> Denied:
    """The error for a first push by whom may not make new repositories."""
    return Denied("the repository is not there, and may not be created", detail={"name": name, "action": "create"})


def past(name: str) -> str:
    """The name, which no client can ask for, under which the deleted manifests of a repository are kept."""
    return f"~{name}"


def is_past(name: str) -> bool:
    """Whether a name is one of those."""
    return name.startswith("~")


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
