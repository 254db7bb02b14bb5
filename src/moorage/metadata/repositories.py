"""Facts about repositories."""

from collections.abc import Sequence

from moorage.metadata.base import Metadata, Query, Row, Unit, one, together
from moorage.spec.errors import Denied, NameUnknown


def make(name: str, *, create: bool = True) -> Unit[int]:
    """The identifier of a repository, which is there from now on; raises ``Denied`` unless one may ``create`` it."""
    answers = yield from together(to_make(name, create=create))
    return made(answers[-1], name)


def to_make(name: str, *, create: bool) -> list[Query]:
    """What ``make`` asks; the last answer tells ``made`` the identifier."""
    asked: Query = "repository_id", (name,)
    return [("add_repository", (name,)), asked] if create else [asked]


def made(rows: Sequence[Row], name: str) -> int:
    """The identifier of a repository; raises ``Denied`` where it is not there and may not be created."""
    if not rows:
        raise not_created(name)
    return int(rows[0][0])


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
