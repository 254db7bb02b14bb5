"""Content in the form in which a registry keeps it, written straight into its root before it starts.

A hundred thousand tags cost minutes to push, and none of that is measured. What is written is what pushes would have
left: each load looks at the answers before it counts any.
"""

import asyncio
import functools
import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.content import Blob
from benchmarks.verbs import EMPTY, INDEX, MANIFEST, blob_of, digest_of, manifest_of
from moorage.build import FACTS, open_registry
from moorage.metadata import blobs, manifest_changes, repositories
from moorage.metadata.base import Unit
from moorage.metadata.events import Change
from moorage.metadata.manifest_changes import Push
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.digest import Digest
from moorage.spec.manifest import parse
from moorage.spec.preconditions import ALWAYS

EMPTY_CONFIG = blob_of(b"{}")
BATCH = 10_000


def numbered_manifest(number: int, subject: bytes | None = None) -> bytes:
    """A small manifest that differs from those of other numbers, and refers to ``subject`` if there is one."""
    return _numbered_manifest(subject).replace(b"@", str(number).encode())


@functools.cache
def _numbered_manifest(subject: bytes | None) -> bytes:
    document = json.loads(manifest_of(EMPTY_CONFIG, [EMPTY_CONFIG], config_type=EMPTY, layer_type=EMPTY))
    document["artifactType"] = "application/vnd.example.sbom"
    document["annotations"]["org.example.number"] = "@"
    if subject is not None:
        document["subject"] = {"mediaType": MANIFEST, "digest": digest_of(subject), "size": len(subject)}
    return json.dumps(document).encode()


class Seeds(ABC):
    """Writes into the root of a registry that is not running."""

    shared: ClassVar[bool] = False  # whether several peers can read the same root
    scattered: ClassVar[bool] = True  # in so many files that a disk takes minutes to make and to remove them

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def manifests(self, repository: str, tagged: Iterable[tuple[Sequence[str], bytes]]) -> None:
        """Different manifests whose only blob is ``EMPTY_CONFIG``, each after its tags."""

    @abstractmethod
    def repositories(self, names: Sequence[str]) -> None:
        """Repositories of one tagged manifest."""


class FactSeeds(Seeds):
    """Moorage: the facts of a push, by the units that a push runs, many in one transaction."""

    scattered = False

    def manifests(self, repository: str, tagged: Iterable[tuple[Sequence[str], bytes]]) -> None:
        asyncio.run(self._write((repository, tags, content) for tags, content in tagged))

    def repositories(self, names: Sequence[str]) -> None:
        content = numbered_manifest(0)
        asyncio.run(self._write((name, ["v1"], content) for name in names))

    async def _write(self, pushes: Iterator[tuple[str, Sequence[str], bytes]]) -> None:
        async with open_registry(self.root) as registry:
            await registry.uploads.push("bench/seeds", EMPTY_CONFIG.digest, pieces(EMPTY_CONFIG))
        async with SQLiteMetadata(self.root / FACTS) as metadata:
            while batch := list(itertools.islice(pushes, BATCH)):
                await metadata.transact(self._push, batch)

    def _push(self, batch: Iterable[tuple[str, Sequence[str], bytes]]) -> Unit[None]:
        change = Change(time.time())
        held: set[str] = set()
        for repository, tags, content in batch:
            if repository not in held:
                held.add(repository)
                yield from repositories.make(repository)
                yield from blobs.mount(repository, Digest(EMPTY_CONFIG.digest), None, change)
            facts = parse(content, MANIFEST)
            push = Push(repository, Digest(digest_of(content)), content, facts, tags, ALWAYS, frozenset())
            yield from manifest_changes.push(push, change)


class LinkSeeds(Seeds):
    """distribution and docker-registry: a file for each blob, and one that names it for each link.

    A tag lacks the list of what it named before, which neither reads to list tags or to serve a manifest.
    """

    shared = True

    def manifests(self, repository: str, tagged: Iterable[tuple[Sequence[str], bytes]]) -> None:
        home = self.root / "docker/registry/v2/repositories" / repository
        self._link(home / "_layers", self._data(bytes(EMPTY_CONFIG)))
        for tags, content in tagged:
            digest = self._data(content)
            self._link(home / "_manifests/revisions", digest)
            for tag in tags:
                current = home / "_manifests/tags" / tag / "current"
                current.mkdir(parents=True)
                (current / "link").write_text(digest)

    def repositories(self, names: Sequence[str]) -> None:
        content = numbered_manifest(0)
        for name in names:
            self.manifests(name, [(["v1"], content)])

    def _data(self, content: bytes) -> str:
        digest = digest_of(content)
        algorithm, _, name = digest.partition(":")
        folder = self.root / "docker/registry/v2/blobs" / algorithm / name[:2] / name
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder / "data").write_bytes(content)
        return digest

    def _link(self, links: Path, digest: str) -> None:
        folder = links / digest.replace(":", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text(digest)


class LayoutSeeds(Seeds):
    """zot and olareg: an OCI image layout for each repository."""

    def manifests(self, repository: str, tagged: Iterable[tuple[Sequence[str], bytes]]) -> None:
        home = self.root / repository
        store = home / "blobs/sha256"
        store.mkdir(parents=True)
        (home / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._put(store, bytes(EMPTY_CONFIG))
        listed: list[dict[str, Any]] = []
        for tags, content in tagged:
            kind = json.loads(content)["mediaType"]
            described = {"mediaType": kind, "digest": self._put(store, content), "size": len(content)}
            names = [{"org.opencontainers.image.ref.name": tag} for tag in tags]
            listed += [described | {"annotations": name} for name in names] or [described]
        (home / "index.json").write_text(json.dumps(index_of(listed)))

    def repositories(self, names: Sequence[str]) -> None:
        content = numbered_manifest(0)
        for name in names:
            self.manifests(name, [(["v1"], content)])

    def _put(self, store: Path, content: bytes) -> str:
        digest = digest_of(content)
        (store / digest.partition(":")[2]).write_bytes(content)
        return digest


class ListedLayoutSeeds(LayoutSeeds):
    """olareg: it learns of referrers in a layout from the list under the subject's fallback tag."""

    def manifests(self, repository: str, tagged: Iterable[tuple[Sequence[str], bytes]]) -> None:
        given = list(tagged)
        listed: dict[str, list[dict[str, Any]]] = {}
        for _, content in given:
            document = json.loads(content)
            if subject := document.get("subject"):
                described = {"mediaType": MANIFEST, "digest": digest_of(content), "size": len(content)}
                described |= {key: document[key] for key in ("artifactType", "annotations")}
                listed.setdefault(subject["digest"], []).append(described)
        lists = [([digest.replace(":", "-")], json.dumps(index_of(each)).encode()) for digest, each in listed.items()]
        super().manifests(repository, [*given, *lists])


def index_of(descriptors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}


async def pieces(blob: Blob) -> AsyncIterator[bytes]:
    for piece in blob.pieces:
        yield piece
