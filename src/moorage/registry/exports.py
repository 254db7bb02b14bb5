"""Content as an OCI image layout: blobs under their digests, and an index of what has a name or refers to it."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from moorage.registry.blobs import ContentLost
from moorage.registry.explain import Subject
from moorage.registry.layouts import IMAGE_LAYOUT, REF_NAME, read_whole
from moorage.registry.registry import Registry
from moorage.spec import digest as digests
from moorage.spec.digest import Digest
from moorage.spec.errors import BlobUnknown, ManifestUnknown
from moorage.spec.manifest import OCI_INDEX, parse
from moorage.spec.names import fallback_tag
from moorage.storage.trees import Tree

_LAYOUT: Final = b'{"imageLayoutVersion": "1.0.0"}'
_LONGEST: Final = 64 * 1024 * 1024  # of an index.json
_PAGE: Final = 500
# What cosign adds to the fallback tag of a manifest for its signatures, attestations and bills of materials.
_SIGNED: Final = ("", ".sig", ".att", ".sbom")


class Folder(Tree, Protocol):
    """A tree that can be written to."""

    async def write(self, path: str, pieces: AsyncGenerator[bytes]) -> None:
        """Make a file; it is there with all that ``pieces`` give, or as it was."""


@dataclass(slots=True)
class Exported:
    """How many manifests, and blobs of how many bytes, were written; ``kept`` were there; what did not come."""

    manifests: int = 0
    blobs: int = 0
    size: int = 0
    kept: int = 0
    problems: list[str] = field(default_factory=list)


class Export:
    """One export of what ``subjects`` name, with all that refers to it, into ``folder``."""

    def __init__(self, registry: Registry, folder: Folder, subjects: list[Subject]) -> None:
        self._registry = registry
        self._folder = folder
        self._subjects = subjects
        self._several = len({each.repository for each in subjects}) > 1
        self._done = Exported()
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}  # by digest and name
        self._seen: set[tuple[str, str]] = set()

    async def run(self) -> Exported:
        """Do it; the index is written last. Raises ``NameUnknown``, ``ManifestUnknown`` for what is not there."""
        if await self._folder.size("index.json") is not None:
            content = await read_whole(self._folder, "index.json", _LONGEST)
            try:
                for entry in json.loads(content)["manifests"]:
                    self._entries[entry["digest"], (entry.get("annotations") or {}).get(REF_NAME, "")] = entry
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RuntimeError(
                    "the folder's index.json is no index; allowed: a layout, or a new folder"
                ) from error
        for subject in self._subjects:
            repository = subject.repository or ""
            async for tag, digest in self._roots(subject):
                await self._root(repository, digest, tag)
        await self._folder.write(IMAGE_LAYOUT, _one(_LAYOUT))
        entries = [each for _, each in sorted(self._entries.items())]
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        await self._folder.write("index.json", _one(json.dumps(index, indent=1).encode()))
        return self._done

    async def _roots(self, subject: Subject) -> AsyncIterator[tuple[str, Digest | None]]:
        repository = subject.repository or ""
        if subject.tag is not None or subject.digest is not None:
            yield subject.tag or "", subject.digest
            return
        last: str | None = ""
        while last is not None:
            page = await self._registry.tags.list(repository, _PAGE, last)
            for tag in page.items:
                yield tag, None
            last = page.last
        after = 0
        while rows := await self._registry.metadata.fetch("untagged", repository, after, _PAGE):
            for _, digest, *_ in rows:
                yield "", Digest(digest)
            after = rows[-1][0]

    async def _root(self, repository: str, digest: Digest | None, tag: str) -> None:
        """Write a manifest with all that it needs and that refers to it, and name it in the index."""
        if tag and (repository, tag) in self._seen:
            return
        self._seen.add((repository, tag))
        stored = await self._registry.manifests.get(repository, tag or digest or "", content=False)
        await self._manifest(repository, stored.digest)
        name = f"{repository}:{tag}" if tag and self._several else tag
        if not name and any(known == stored.digest for known, _ in self._entries):
            return
        entry = {"mediaType": stored.media_type, "digest": stored.digest, "size": stored.size}
        if name:
            self._entries = {
                key: each
                for key, each in self._entries.items()
                if key[1] != name and key != (stored.digest, "")  # the tag may have named another before
            }
            entry["annotations"] = {REF_NAME: name}
        self._entries[stored.digest, name] = entry

    async def _manifest(self, repository: str, digest: Digest) -> None:
        if (repository, digest) in self._seen:
            return
        self._seen.add((repository, digest))
        stored = await self._registry.manifests.get(repository, digest)
        content = stored.content or b""
        for each in parse(content, stored.media_type, allow_unknown=True).references:
            child = Digest.parse(each.digest)
            if each.kind in {"layer", "config"}:
                await self._blob(repository, child, required=each.required)
            elif await self._has(repository, child):
                await self._manifest(repository, child)
            elif each.kind == "content":
                await self._blob(repository, child, required=each.required)
        if await self._write(digest, len(content), _one(content)):
            self._done.manifests += 1
        await self._referrers(repository, digest)

    async def _referrers(self, repository: str, digest: Digest) -> None:
        last: str | None = ""
        while last is not None:
            page = await self._registry.referrers.list(repository, digest, n=_PAGE, last=last)
            for each in page.items:
                if await self._has(repository, Digest(each.digest)):
                    await self._root(repository, Digest(each.digest), "")
            last = page.last
        for suffix in _SIGNED:
            tag = fallback_tag(digest) + suffix
            if await self._has(repository, tag):
                await self._root(repository, None, tag)

    async def _has(self, repository: str, reference: str) -> bool:
        try:
            await self._registry.manifests.get(repository, reference, content=False)
        except ManifestUnknown:
            return False
        return True

    async def _blob(self, repository: str, digest: Digest, *, required: bool) -> None:
        try:
            blob = await self._registry.blobs.get(repository, digest)
            if await self._write(digest, blob.size, self._registry.blobs.read(blob)):
                self._done.blobs += 1
                self._done.size += blob.size
        except (BlobUnknown, ContentLost, OSError) as error:
            if required:
                self._done.problems.append(f"{repository}@{digest}: {error}")

    async def _write(self, digest: Digest, size: int, pieces: AsyncGenerator[Any]) -> bool:
        """Write what is not there; raises ``ContentLost`` where the bytes are not those of the digest."""
        path = f"blobs/{digest.algorithm}/{digest.encoded}"
        if await self._folder.size(path) == size:
            self._done.kept += 1
            return False
        await self._folder.write(path, _verified(digest, pieces))
        return True


async def _one(content: bytes) -> AsyncGenerator[bytes]:
    yield content


async def _verified(digest: Digest, pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    hasher = digests.new_hasher(digest.algorithm)
    async for piece in pieces:
        hasher.update(piece)
        yield piece
    computed = digests.digest_of(hasher, digest.algorithm)
    if computed != digest:
        raise ContentLost("the content's bytes are damaged", detail={"digest": digest, "computed": computed})
