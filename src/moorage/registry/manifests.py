"""Manifests and tags; spec "Pulling manifests", "Pushing Manifests", "Deleting tags", "Deleting Manifests"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from moorage.metadata import manifest_changes, manifests, tags
from moorage.metadata.base import Query, Unit
from moorage.metadata.events import Change
from moorage.metadata.manifest_changes import Push, push
from moorage.metadata.manifests import StoredManifest
from moorage.registry.parts import ANONYMOUS, Parts
from moorage.spec import digest as digests
from moorage.spec import manifest as manifest_spec
from moorage.spec.digest import DEFAULT_ALGORITHM, Digest
from moorage.spec.errors import DigestInvalid, ManifestTooLarge, TagInvalid, TooManyTags
from moorage.spec.names import check_new, check_tag, parse_reference
from moorage.spec.preconditions import ALWAYS, Precondition


@dataclass(frozen=True, slots=True)
class PushedManifest:
    """What a push did: ``subject`` is what the manifest refers to, ``tags`` are those it was given."""

    digest: Digest
    subject: str | None
    tags: tuple[str, ...]


class Manifests:
    """The manifests of every repository. A reference is a tag or a digest."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @staticmethod
    def question(repository: str, reference: str, *, content: bool = True) -> Query:
        """What ``get`` will ask the facts; raises as ``get`` does where the reference cannot be one."""
        return manifests.question(repository, *parse_reference(reference), content=content)

    async def get(self, repository: str, reference: str, *, content: bool = True) -> StoredManifest:
        """The manifest exactly as pushed, without its bytes unless ``content``; raises ``ManifestUnknown``.

        Where it is to go, it stays for the grace period from now on, as in ``Blobs.get``.
        """
        tag, digest = parse_reference(reference)
        found = await manifests.find(self._parts.metadata, repository, tag, digest, content=content)
        if found.unheld_since is not None and self._parts.wanes(found.unheld_since):
            await self._parts.metadata.transact(manifests.renew, repository, found.digest, self._parts.clock())
        self._parts.pulled[repository, found.digest] = self._parts.clock()
        return found

    async def put(
        self,
        repository: str,
        reference: str,
        content: bytes,
        media_type: str | None = None,
        *,
        also: Sequence[str] = (),
        precondition: Precondition = ALWAYS,
        actor: str = ANONYMOUS,
        create: bool = True,
        fixed: Mapping[str, str] = MappingProxyType({}),
        unit: Callable[[Push, Change], Unit[None]] = push,
    ) -> PushedManifest:
        """Store a manifest and its tags, all or nothing.

        ``also`` are more tags, with a digest as the reference (spec end-7b). Without ``create`` the repository must
        be there. ``fixed`` says why, of each tag that must not be moved if it names something else. ``unit``
        is what changes the facts. Raises
        ``ManifestInvalid``, ``ManifestTooLarge``, ``ManifestBlobUnknown``, ``DigestInvalid``, ``TooManyTags``,
        ``PreconditionFailed``, ``Denied``.
        """
        policy = self._parts.policy
        check_new(repository)
        wanted, digest = _target(reference, also)
        if len(wanted) > policy.tags_per_push:
            raise TooManyTags(detail={"tags": len(wanted), "allowed": policy.tags_per_push})
        if len(content) > policy.manifest_limit:
            raise ManifestTooLarge(detail={"allowed": policy.manifest_limit})
        computed = digests.compute(content, digest.algorithm if digest else DEFAULT_ALGORITHM)
        if digest and computed != digest:
            raise DigestInvalid(detail={"digest": digest, "computed": computed})
        facts = manifest_spec.parse(content, media_type, allow_unknown=policy.unknown_manifests)
        immutable = {tag: tags.IMMUTABLE for tag in wanted if policy.is_immutable(repository, tag)}
        wanted_push = Push(
            repository, computed, content, facts, wanted, precondition, policy.not_needed(), {**fixed, **immutable}
        )
        await self._parts.metadata.transact(unit, wanted_push, self._parts.change(actor, create=create))
        return PushedManifest(computed, facts.subject, tuple(wanted))

    async def delete(
        self,
        repository: str,
        reference: str,
        *,
        precondition: Precondition = ALWAYS,
        actor: str = ANONYMOUS,
    ) -> None:
        """Delete a tag, or a manifest with all its tags.

        Raises ``ManifestUnknown``, ``NameUnknown``, ``InUse``, ``Denied`` for an immutable tag,
        ``PreconditionFailed``, ``MethodNotAllowed``.
        """
        self._parts.require_deletion()
        tag, digest = parse_reference(reference)
        change = self._parts.change(actor)
        kept = partial(self._parts.policy.is_immutable, repository)
        if digest is None:
            await self._parts.metadata.transact(tags.delete, repository, tag or "", precondition, change, kept=kept)
            return
        policy = self._parts.policy
        await self._parts.metadata.transact(
            manifest_changes.delete,
            repository,
            digest,
            precondition,
            change,
            referenced="manifest" in policy.not_needed(),
            cascade=policy.cascade,
            kept=kept,
            bury=policy.history > 0,
        )


def _target(reference: str, also: Sequence[str]) -> tuple[list[str], Digest | None]:
    if ":" in reference:
        return list(dict.fromkeys(check_tag(tag) for tag in also)), Digest.parse(reference)
    if also:
        raise TagInvalid("more tags go with a digest, not with a tag", detail={"reference": reference[:256]})
    return [check_tag(reference)], None
