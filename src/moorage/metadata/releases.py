"""Facts about releases: tags of several repositories that go live, and back, in one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from moorage.metadata import history, quotas, repositories, tags
from moorage.metadata.base import Metadata, Query, Row, Unit, later, one, run, together
from moorage.metadata.events import Change
from moorage.spec.digest import Digest
from moorage.spec.errors import (
    Denied,
    ManifestBlobUnknown,
    ManifestUnknown,
    PreconditionFailed,
    ReleaseConflict,
    ReleaseUnknown,
)
from moorage.spec.releases import ABSENT, TagMove

DRAFT: Final = "draft"
RELEASED: Final = "released"
ROLLED_BACK: Final = "rolled back"
Fixed = Mapping[
    tuple[str, str], str
]  # why, of each tag of a repository that may not be moved once it names something
Kept = Callable[[TagMove, str], bool]  # whether the tag of a move is to stay, rather than name that digest or ABSENT


@dataclass(frozen=True, slots=True)
class Release:
    """A release; ``actor`` brought it to its ``state``. Times are seconds since 1970."""

    name: str
    state: str
    actor: str
    created_at: float
    released_at: float | None
    rolled_back_at: float | None


@dataclass(frozen=True, slots=True)
class TagMoved:
    """A change of a release, and what the tag named ``before`` it went live (None: it did not yet)."""

    move: TagMove
    before: str | None


async def find(metadata: Metadata, name: str) -> tuple[Release, list[TagMoved]]:
    """A release and its changes; raises ``ReleaseUnknown``."""
    rows = await metadata.fetch("release", name)
    if not rows:
        raise _unknown(name)
    return Release(*rows[0]), _moved(await metadata.fetch("release_changes", name))


async def page(metadata: Metadata, before: tuple[float, str], limit: int) -> list[Release]:
    """Up to ``limit`` releases, the latest first, before the one of ``(created_at, name)``."""
    return [Release(*row) for row in await metadata.fetch("page_releases", *before, limit)]


async def repositories_of(metadata: Metadata, name: str) -> list[str]:
    """The repositories of which a release moves tags."""
    return [repository for (repository,) in await metadata.fetch("release_repositories", name)]


def make(
    name: str, moves: Sequence[TagMove], change: Change, *, fixed: Fixed, kept: Kept, draft: bool = False
) -> Unit[bool]:
    """Let tags name what a release says, all or none; a ``draft`` only holds the manifests until then.

    The ``moves`` are in the order of their tags. Returns whether there was anything to do: the same release may be
    asked for again. Raises ``ReleaseConflict``, ``ManifestUnknown``, ``PreconditionFailed``, ``Denied``,
    ``QuotaExceeded``.
    """
    known = yield from one("release", name)
    if known is None:
        yield from later("add_release", name, change.actor, change.at)
        for each in moves:
            row = (each.repository, each.tag, each.digest, each.expected)
            yield from later("add_release_change", name, *row)
    else:
        stored = _moved((yield from run("release_changes", name)))
        if known[1] == ROLLED_BACK or [each.move for each in stored] != list(moves):
            raise _conflict(name, known[1], "give it another name")
        if draft or known[1] != DRAFT:
            return False
    yield from _require(moves)
    identifiers, named = yield from _tags(moves)
    if draft:
        for each in moves:
            if each.digest != ABSENT:
                yield from later("hold_manifest", identifiers[each.repository], each.digest)
        yield from change.record("release.draft", "", after=name)
    else:
        yield from _go_live(name, moves, named, identifiers, change, fixed, kept)
    return True


def publish(name: str, moves: Sequence[TagMove], change: Change, *, fixed: Fixed, kept: Kept) -> Unit[bool]:
    """``make`` of a draft that must be there, with those ``moves``; raises also ``ReleaseUnknown``."""
    if (yield from one("release", name)) is None:
        raise _unknown(name)
    return (yield from make(name, moves, change, fixed=fixed, kept=kept))


def discard(name: str, change: Change) -> Unit[None]:
    """Drop a draft, which from now on holds nothing; raises ``ReleaseUnknown``, ``ReleaseConflict``."""
    known = yield from one("release", name)
    if known is None:
        raise _unknown(name)
    if known[1] != DRAFT:
        raise _conflict(name, known[1], "only a draft can be discarded")
    yield from _delete(name)
    yield from change.record("release.discard", "", before=name)


def roll_back(
    name: str,
    change: Change,
    sparse: frozenset[str],
    *,
    fixed: Fixed,
    kept: Kept,
    uncreated: Collection[str] = (),
    force: bool = False,
) -> Unit[list[TagMoved]]:
    """Let the tags of a release name what they named before, all or none; returns those that are ``kept``.

    Tags that name something else by now are an error unless ``force`` is given. What is gone comes back as in
    ``history.restore``, also a repository unless it is among the ``uncreated``. Raises ``ReleaseUnknown``,
    ``ReleaseConflict``, ``PreconditionFailed``, ``ManifestUnknown``, ``Denied``, ``QuotaExceeded``.
    """
    known = yield from one("release", name)
    if known is None:
        raise _unknown(name)
    if known[1] == ROLLED_BACK:
        return []
    if known[1] != RELEASED:
        raise _conflict(name, known[1], "nothing is to be rolled back")
    moved = [each for each in _moved((yield from run("release_changes", name))) if each.before != each.move.digest]
    identifiers, named = yield from _tags([each.move for each in moved])
    back = [each for each in moved if named[each.move] != each.before]
    stay = [each for each in back if kept(each.move, str(each.before))]
    back = [each for each in back if each not in stay]
    others = [each.move for each in back if named[each.move] != each.move.digest]
    if others and not force:
        details = [
            {"name": each.repository, "tag": each.tag, "released": each.digest, "current": named[each]}
            for each in others
        ]
        raise PreconditionFailed("tags were changed since the release", details=details)
    change = replace(change, reason=f"rollback of release {name}")
    lost: list[dict[str, str]] = []
    for each in back:
        if (repository := each.move.repository) not in identifiers:
            identifiers[repository] = yield from repositories.make(repository, create=repository not in uncreated)
    yield from _check_quotas([(each.move, named[each.move], str(each.before)) for each in back])
    for each in back:
        repository, before = each.move.repository, str(each.before)
        identifier = identifiers[repository]
        if before != ABSENT:
            past = yield from one("repository_id", repositories.past(repository))
            try:
                yield from history.bring_back(
                    identifier, past[0] if past else None, repository, Digest(before), change, sparse
                )
            except (ManifestUnknown, ManifestBlobUnknown) as error:
                lost.append({"name": repository, "tag": each.move.tag, "reference": before, "reason": error.text})
                continue
        yield from _set(identifier, each.move, before, named[each.move], fixed, change)
    if lost:
        raise ManifestUnknown("what tags named before is gone", details=lost)
    yield from later("set_rolled_back", name, change.actor, change.at)
    yield from replace(change, reason=None).record("release.rollback", "", before=name)
    return stay


def forget(before: float, most: int) -> Unit[int]:
    """Drop up to ``most`` releases that went live before that; returns how many."""
    names = yield from run("releases_before", before, most)
    for (name,) in names:
        yield from _delete(name)
    return len(names)


def _go_live(
    name: str,
    moves: Sequence[TagMove],
    named: Mapping[TagMove, str],
    identifiers: Mapping[str, int],
    change: Change,
    fixed: Fixed,
    kept: Kept,
) -> Unit[None]:
    failed = [each for each in moves if each.expected not in (None, named[each])]
    if failed:
        details = [
            {"name": each.repository, "tag": each.tag, "expected": each.expected, "current": named[each]}
            for each in failed
        ]
        raise PreconditionFailed("tags do not name what is expected", details=details)
    missing = [each for each in moves if ABSENT == each.digest == named[each]]
    if missing:
        raise ManifestUnknown(
            "tags that are to go are not there",
            details=[{"name": each.repository, "reference": each.tag} for each in missing],
        )
    yield from _check_quotas([(each, named[each], each.digest) for each in moves])
    change = replace(change, reason=f"release {name}")
    for each in moves:
        before = named[each]
        if before not in (ABSENT, each.digest) and kept(each, each.digest):
            raise tags.immutable(each.repository, each.tag)
        yield from _set(identifiers[each.repository], each, each.digest, before, fixed, change)
        yield from later("set_release_before", name, each.repository, each.tag, before)
    yield from later("set_released", name, change.actor, change.at)
    yield from replace(change, reason=None).record("release.publish", "", after=name)


def _set(identifier: int, move: TagMove, digest: str, named: str, fixed: Fixed, change: Change) -> Unit[None]:
    """Let a tag, which ``named`` that, name ``digest``; each may be ``ABSENT``."""
    before = None if named == ABSENT else named
    if digest == ABSENT:
        yield from later("delete_tag", identifier, move.tag)
        yield from later("count", move.repository, 0, -1, 0)
        yield from change.record("tag.delete", move.repository, tag=move.tag, before=before)
        return
    if before not in (None, digest) and (move.repository, move.tag) in fixed:
        raise Denied(fixed[move.repository, move.tag], detail={"name": move.repository, "tag": move.tag})
    yield from tags.move(identifier, move.repository, move.tag, Digest(digest), change, before=before)


def _check_quotas(moves: Sequence[tuple[TagMove, str, str]]) -> Unit[None]:
    """Raise ``QuotaExceeded`` unless there may be as many tags as ``(move, named before, named after)`` make."""
    more: dict[str, int] = {}
    for move, before, after in moves:
        more[move.repository] = more.get(move.repository, 0) + (before == ABSENT) - (after == ABSENT)
    answers = yield from together([("quotas_of", (name,)) for name in more])
    asked: dict[quotas.Quota, tuple[str, int]] = {}
    for (name, number), rows in zip(more.items(), answers, strict=True):
        for each in map(quotas.quota, rows):
            first, others = asked.get(each, (name, 0))
            asked[each] = first, others + number
    for each, (name, number) in asked.items():
        each.check(name, quotas.Amount(tags=number))


def _require(moves: Sequence[TagMove]) -> Unit[None]:
    """Raise ``ManifestUnknown`` with each manifest that its repository lacks."""
    wanted = [each for each in moves if each.digest != ABSENT]
    found = yield from together([("describe_by_digest", (each.repository, each.digest)) for each in wanted])
    missing = [each for each, rows in zip(wanted, found, strict=True) if not rows]
    if missing:
        raise ManifestUnknown(
            details=[{"name": each.repository, "tag": each.tag, "reference": each.digest} for each in missing]
        )


def _tags(moves: Sequence[TagMove]) -> Unit[tuple[dict[str, int], dict[TagMove, str]]]:
    """The identifiers of the repositories that are there, and what each tag names now, which may be ``ABSENT``."""
    names = list(dict.fromkeys(each.repository for each in moves))
    asked: list[Query] = [("repository_id", (name,)) for name in names]
    asked += [("describe_by_tag", (each.repository, each.tag)) for each in moves]
    answers = yield from together(asked)
    identifiers = {name: rows[0][0] for name, rows in zip(names, answers, strict=False) if rows}
    named = {each: rows[0][0] if rows else ABSENT for each, rows in zip(moves, answers[len(names) :], strict=True)}
    return identifiers, named


def _delete(name: str) -> Unit[None]:
    yield from later("delete_release_changes", name)
    yield from later("delete_release", name)


def _moved(rows: Sequence[Row]) -> list[TagMoved]:
    return [TagMoved(TagMove(*row[:-1]), row[-1]) for row in rows]


def _unknown(name: str) -> ReleaseUnknown:
    return ReleaseUnknown(detail={"release": name})


def _conflict(name: str, state: str, why: str) -> ReleaseConflict:
    return ReleaseConflict(detail={"release": name, "state": state, "reason": why})
