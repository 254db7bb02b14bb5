"""What quotas allow, and how much of it is used: counted in the transactions that change the facts.

A quota covers the repositories that its pattern matches, with the deleted manifests that their history keeps, and the
sessions that will make one of them. A name becomes a *member* of its quotas when it is first used, and what its
members have is what a quota counts: blobs once, however many of them hold it; manifests and tags for each; what open
sessions received. So a unit finds the quotas of a repository by an index, and no unit has to know the settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from moorage.metadata.base import Metadata, Row, Unit, later, one, run
from moorage.spec.errors import QuotaExceeded
from moorage.spec.patterns import matches

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class Amount(NamedTuple):
    """So much of each that a quota counts."""

    bytes: int = 0
    tags: int = 0
    repositories: int = 0


class Allowed(NamedTuple):
    """The most of each; None is without a limit."""

    bytes: int | None = None
    tags: int | None = None
    repositories: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What the repositories that ``pattern`` covers may have and do have, as far as that is ``counted``."""

    pattern: str
    allowed: Allowed
    used: Amount
    counted: bool

    def check(self, repository: str, asked: Amount) -> None:
        """Raise ``QuotaExceeded`` if ``asked`` is more than is left of anything; less than nothing always fits."""
        if (what := self._lacks(asked)) is not None:
            raise self.exceeded(repository, what, getattr(asked, what))

    def exceeded(self, repository: str, what: str, asked: int) -> QuotaExceeded:
        """The error for ``asked`` more ``what`` than is left."""
        numbers = getattr(self.allowed, what), getattr(self.used, what), asked
        allowed, used, more = (_in_words(each) if what == "bytes" else str(each) for each in numbers)
        detail = dict(zip(("allowed", "used", "asked"), numbers, strict=True))
        return QuotaExceeded(
            f"the quota of {self.pattern} allows {allowed if what == 'bytes' else f'{allowed} {what}'}; "
            f"used: {used}, asked for: {more} more",
            detail={"name": repository, "quota": self.pattern, "of": what, **detail},
        )

    def fits(self, asked: Amount) -> bool:
        """Whether there is so much left."""
        return self._lacks(asked) is None

    @property
    def left(self) -> int | None:
        """How many bytes more it lets in; None is without a limit."""
        return None if self.allowed.bytes is None else max(0, self.allowed.bytes - self.used.bytes)

    def _lacks(self, asked: Amount) -> str | None:
        for what, allowed, used, more in zip(Amount._fields, self.allowed, self.used, asked, strict=True):
            if more > 0 and allowed is not None and used + more > allowed:
                return what
        return None

    def covers(self, name: str) -> bool:
        """Whether it is for a repository, or for the past of one."""
        return matches(_base_of(name), (self.pattern,))


def quota(row: Row) -> Quota:
    """What a row of ``quotas`` states."""
    return Quota(row[0], Allowed(*row[1:4]), Amount(*row[4:7]), bool(row[7]))


async def listed(metadata: Metadata) -> list[Quota]:
    """Every quota, by its pattern."""
    return [quota(row) for row in await metadata.fetch("quotas")]


async def covering(metadata: Metadata, repository: str) -> list[Quota]:
    """The quotas of a repository, or of one that may be made by that name."""
    rows = await metadata.fetch("quotas_of", repository) or await metadata.fetch("quotas_of_new", repository)
    return [each for each in map(quota, rows) if each.covers(repository)]


async def counting(metadata: Metadata, digest: str) -> set[str]:
    """The patterns of the quotas of which a member holds a blob."""
    return {pattern for (pattern,) in await metadata.fetch("quotas_with_blob", digest)}


def found(repository: str, rows: Sequence[Row]) -> Unit[None]:
    """Count a repository that was just made; ``rows`` are of ``quotas_of_new`` before that."""
    for row in rows:
        each = quota(row)
        if row[-1]:
            each.check(repository, Amount(repositories=1))
            yield from later("count_in_quota", each.pattern, *Amount(repositories=1))
        elif each.covers(repository):
            each.check(repository, (yield from _join(each.pattern, repository)))


def receive(repository: str, members: Sequence[Row], new: Sequence[Row], size: int) -> Unit[None]:
    """Count what a session received; the rows are of ``quotas_of`` and ``quotas_of_new``."""
    for each in map(quota, members):
        each.check(repository, Amount(bytes=size))
    yield from later("count", repository, *Amount(bytes=size))
    for row in new:
        each = quota(row)
        if not row[-1] and each.covers(repository):
            each.check(repository, (yield from _join(each.pattern, repository)))


def drop(repository: str, received: int) -> Unit[None]:
    """Count no more what a session received that is closed."""
    if received:
        yield from later("count", repository, *Amount(bytes=-received))


def hold(repository: str, rows: Sequence[Row], size: int, received: int) -> Unit[None]:
    """Count a blob that a repository holds from now on, of which ``received`` bytes were counted until now.

    The ``rows`` are of ``quotas_without_blob``.
    """
    for each in map(quota, rows):
        each.check(repository, Amount(bytes=size - received))
        yield from later("count_in_quota", each.pattern, *Amount(bytes=size))


def declare(wanted: dict[str, Allowed]) -> Unit[None]:
    """Let there be the ``wanted`` quotas, by their patterns, and no others; ``enroll`` then counts the new ones."""
    known = {each.pattern: each.allowed for each in map(quota, (yield from run("quotas")))}
    for pattern in known.keys() - wanted.keys():
        yield from later("delete_members", pattern)
        yield from later("delete_quota", pattern)
    for pattern, allowed in wanted.items():
        if pattern not in known:
            yield from later("add_quota", pattern, *allowed)
        elif known[pattern] != allowed:
            yield from later("set_quota", pattern, *allowed)


def enroll(pattern: str, last: str, most: int) -> Unit[str | None]:
    """Make members of the names after ``last`` that a quota covers, up to ``most`` names at once.

    Returns where to go on, None at the end.
    """
    if all(each.pattern != pattern for each in map(quota, (yield from run("quotas")))):
        return None
    names = yield from run("page_names", pattern, last, most)
    for name, _ in names:
        if matches(_base_of(name), (pattern,)) and (yield from one("is_member", name, pattern)) is None:
            yield from _join(pattern, name)
    if len(names) == most:
        return str(names[-1][0])
    yield from later("set_counted", pattern)
    return None


def forget(pattern: str) -> Unit[None]:
    """Let a quota begin to count anew, by ``enroll``."""
    yield from later("delete_members", pattern)
    yield from later("empty_quota", pattern)


def _base_of(name: str) -> str:
    """The repository that a name is of, be it that of its past."""
    return name.removeprefix("~")


def _join(pattern: str, name: str) -> Unit[Amount]:
    """Make a name a member, with all that it has; returns that.

    A repository and its past join at once, since what is moved between them is not counted anew.
    """
    brought = yield from _bring(pattern, name)
    other = _base_of(name) if name.startswith("~") else f"~{name}"
    if (yield from one("repository_id", other)) and (yield from one("is_member", other, pattern)) is None:
        yield from _bring(pattern, other)
    return brought


def _bring(pattern: str, name: str) -> Unit[Amount]:
    brought = Amount(*(yield from run("brought_to_quota", pattern, name))[0])
    yield from later("add_member", name, pattern)
    yield from later("count_in_quota", pattern, *brought)
    return brought


def _in_words(number: int) -> str:
    size, unit = float(number), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{number} B"
