"""Facts about repositories."""

from collections.abc import Sequence

from moorage.metadata import quotas
from moorage.metadata.base import Metadata, Query, Row, Unit, later, one, together
from moorage.spec.errors import Denied, NameUnknown


def make(name: str, *, create: bool = True) -> Unit[int]:
    """The identifier of a repository, which is there from now on.

    Raises ``Denied`` unless one may ``create`` it, and ``QuotaExceeded``.
    """
    answers = yield from together(to_make(name, create=create))
    return (yield from made(answers, name))


def to_make(name: str, *, create: bool) -> list[Query]:
    """What ``make`` asks; ``made`` goes on from the answers."""
    asked: Query = "repository_id", (name,)
    return [("quotas_of_new", (name,)), ("add_repository", (name,)), asked] if create else [asked]


def made(answers: Sequence[Sequence[Row]], name: str) -> Unit[int]:
    """The second half of ``make``."""
    if not answers[-1]:
        raise not_created(name)
    if len(answers) > 1:
        yield from quotas.found(name, answers[0])
    return int(answers[-1][0][0])


def forget(repository_id: int) -> Unit[None]:
    """Let a repository that is empty not be there any more."""
    if row := (yield from one("forget_repository", repository_id)):
        (name,) = row
        yield from later("count", name, 0, 0, 0 if is_past(name) else -1)
        yield from later("leave_quotas", name)


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
