"""Why something is kept, and what its going would free: read from the facts, exact at the moment of the question."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

from moorage.registry.collection import REASONS, wait
from moorage.registry.parts import Parts
from moorage.spec.digest import Digest
from moorage.spec.errors import ManifestUnknown, NameUnknown
from moorage.spec.names import check_repository, check_tag

_MOST: Final = 10  # holders of one kind that are named
_DEEPEST: Final = 8  # indexes of indexes, referrers of referrers
_EVERY: Final = 1_000_000
_PAGE: Final = 500
_HEALS: Final = "there for nobody until it is pushed again, to any repository"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: a digest, a tag or digest of a repository, or a whole repository."""

    repository: str | None = None
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Subject":
        """``DIGEST``, ``REPOSITORY``, ``REPOSITORY:TAG`` or ``REPOSITORY@DIGEST``.

        Raises ``NameInvalid``, ``TagInvalid``, ``DigestInvalid``.
        """
        name, at, digest = text.rpartition("@")
        if at:
            return cls(check_repository(name), None, Digest.parse(digest))
        name, colon, tag = text.partition(":")
        if colon and name in ("sha256", "sha512", "blake3"):
            return cls(None, None, Digest.parse(text))
        return cls(check_repository(name), check_tag(tag) if colon else None)


@dataclass(slots=True)
class Holder:
    """One thing and what holds it in turn. ``until`` is when it goes, None where nothing lets it go.

    ``kind`` is ``blob`` or ``manifest`` (what was asked about, there ``since`` then), ``tag``, ``index``,
    ``subject``, ``release`` (a draft), the kind of a reference (``config``, ``layer``, ``content``), ``itself`` (an
    untagged manifest), ``grace``, or ``more`` (there are more than are named). A ``quarantine`` among them holds
    nothing: it says ``since`` when, and why, nobody gets the blob.
    """

    kind: str
    name: str
    since: float | None = None
    until: float | None = None
    reason: str = ""
    held_by: list["Holder"] = field(default_factory=list)


@dataclass(slots=True)
class Cost:
    """What the going of something would take along: manifests, and the blobs whose bytes would be ``freed``.

    ``kept`` are bytes of its blobs that stay, since something else references them. All in bytes but the counts.
    """

    manifests: int = 0
    blobs: int = 0
    freed: int = 0
    kept: int = 0


class Explain:
    """Questions about what is held by what."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._fetch = parts.metadata.fetch

    async def why(self, subject: Subject | str) -> list[Holder]:
        """For each repository that has it, what holds it, up to the tags; empty where it is nowhere.

        Raises ``ManifestUnknown`` for a tag that is not there, and as ``Subject.parse`` does.
        """
        subject = Subject.parse(subject) if isinstance(subject, str) else subject
        digest = subject.digest or await self._digest(subject)
        found = []
        for repository_id, name, kind, since, unheld_since, because in await self._fetch("places_of", digest):
            if subject.repository not in (None, name):
                continue
            place = Holder(kind, f"{name}@{digest}", since)
            if kind == "blob":
                damage = await self._fetch("quarantined_of_repository", name, digest)
                place.held_by = [Holder("quarantine", "", at, reason=f"{what}; {_HEALS}") for what, at in damage]
                place.held_by += await self._of_blob(repository_id, digest, unheld_since)
            else:
                place.held_by = await self._of_manifest(repository_id, digest, (unheld_since, because), _DEEPEST)
            found.append(place)
        return found

    async def cost(self, subjects: Iterable[Subject | str]) -> Cost:
        """What would be free if all these went together with everything that they alone hold.

        A tag stands for itself and its manifest. Raises ``NameUnknown``, ``ManifestUnknown``.
        """
        going = _Going(self._parts)
        for each in subjects:
            subject = Subject.parse(each) if isinstance(each, str) else each
            repository_id = await self._repository(subject)
            if subject.tag is None and subject.digest is None:
                await going.add_repository(repository_id)
            elif subject.tag is not None:
                digest = await self._digest(subject)
                going.tags.add((repository_id, subject.tag))
                await going.add(repository_id, digest, asked=False)
            else:
                await going.add(repository_id, str(subject.digest), asked=True)
        return await going.cost()

    async def _repository(self, subject: Subject) -> int:
        rows = await self._fetch("repository_id", subject.repository)
        if not rows:
            raise NameUnknown(detail={"name": subject.repository})
        return int(rows[0][0])

    async def _digest(self, subject: Subject) -> str:
        rows = await self._fetch("describe_by_tag", subject.repository, subject.tag)
        if not rows:
            raise ManifestUnknown(detail={"name": subject.repository, "reference": subject.tag})
        return str(rows[0][0])

    async def _of_blob(self, repository_id: int, digest: str, since: float | None) -> list[Holder]:
        if since is not None:
            until = since + self._parts.policy.collect_grace
            return [Holder("grace", "", until=until, reason="no manifest of the repository references it")]
        rows = await self._fetch("referencing", repository_id, digest, _MOST + 1)
        holders = [
            Holder(kind, parent, held_by=await self._of_manifest(repository_id, parent, None, _DEEPEST))
            for parent, kind in rows[:_MOST]
        ]
        return holders + [Holder("more", "")] * (len(rows) > _MOST)

    async def _of_manifest(
        self, repository_id: int, digest: str, unheld: tuple[float | None, str | None] | None, deep: int
    ) -> list[Holder]:
        if unheld is None:
            rows = await self._fetch("unheld", repository_id, digest)
            unheld = rows[0] if rows else (None, None)
        since, because = unheld
        if since is not None and because is not None:
            until = since + wait(self._parts.policy, because)
            return [Holder("grace", "", until=until, reason=REASONS[because])]
        found: list[Holder] = []
        counts: dict[str, int] = {}
        for kind, name in await self._fetch("holders", repository_id, digest, _MOST + 1):
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] > _MOST:
                found.append(Holder("more", kind))
            elif kind in ("tag", "release") or not deep:
                found.append(Holder(kind, name))
            else:
                held_by = await self._of_manifest(repository_id, name, None, deep - 1)
                found.append(Holder(kind, name, held_by=held_by))
        return found or [Holder("itself", "", reason="an untagged manifest stays until it is deleted")]


class _Going:
    """Manifests that would go together, and what of blobs would."""

    def __init__(self, parts: Parts) -> None:
        self.tags: set[tuple[int, str]] = set()
        self._fetch = parts.metadata.fetch
        self._cascade = parts.policy.cascade
        self._manifests: dict[tuple[int, str], None] = {}
        self._repositories: set[int] = set()

    async def add_repository(self, repository_id: int) -> None:
        self._repositories.add(repository_id)
        async for digest in self._digests(repository_id):
            self._manifests[repository_id, digest] = None

    async def add(self, repository_id: int, digest: str, *, asked: bool) -> None:
        """A manifest that goes, unless it was not ``asked`` for and something else holds it; and what it held."""
        waiting = [(digest, asked)]
        while waiting:
            digest, asked = waiting.pop()
            if (repository_id, digest) in self._manifests:
                continue
            if not asked and await self._held(repository_id, digest):
                continue
            self._manifests[repository_id, digest] = None
            if not self._cascade:
                continue
            for child, kind, required in await self._fetch("children", repository_id, digest):
                if required and kind in ("manifest", "content"):
                    waiting.append((child, False))
            waiting += [(each, False) for (each,) in await self._fetch("referrers_of", repository_id, digest)]

    async def cost(self) -> Cost:
        cost = Cost()
        blobs: dict[str, set[int]] = {}  # from which repositories each goes
        kept: set[str] = set()
        for repository_id, digest in self._manifests:
            rows = await self._fetch("manifest_size", repository_id, digest)
            if not rows:  # an index may list what is not there
                continue
            cost.manifests += 1
            cost.freed += rows[0][0]
            for child, kind, _ in await self._fetch("children", repository_id, digest):
                if kind == "manifest":
                    continue
                parents = await self._fetch("referencing", repository_id, child, _EVERY)
                if all((repository_id, parent) in self._manifests for parent, _ in parents):
                    blobs.setdefault(child, set()).add(repository_id)
                else:
                    kept.add(child)
        for repository_id in self._repositories:
            for (digest,) in await self._fetch("unreferenced_of_repository", repository_id):
                blobs.setdefault(digest, set()).add(repository_id)
        for digest in blobs.keys() | kept:
            rows = await self._fetch("blob_of_digest", digest)
            if not rows:
                continue
            links = {row[0] for row in await self._fetch("links_of", digest)}
            if links <= blobs.get(digest, set()):
                cost.blobs += 1
                cost.freed += rows[0][0]
            else:
                cost.kept += rows[0][0]
        return cost

    async def _held(self, repository_id: int, digest: str) -> bool:
        for kind, name in await self._fetch("holders", repository_id, digest, _EVERY):
            if (repository_id, name) not in (self.tags if kind == "tag" else self._manifests):
                return True
        return False

    async def _digests(self, repository_id: int) -> AsyncIterator[str]:
        last = ""
        while rows := await self._fetch("digests_of_repository", repository_id, last, _PAGE):
            for (digest,) in rows:
                yield digest
            last = rows[-1][0]
