"""The specification as simply as it can be written: dictionaries, and what each request must be answered.

It shares no code with the registry. A session's identifier and the bytes of a merged referrers list are for the
registry to choose; the test tells them to the model.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from blake3 import blake3

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES: Final = (OCI_INDEX, DOCKER_LIST)
ALGORITHMS: Final = ("sha256", "sha512", "blake3")
OCTETS: Final = "application/octet-stream"


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of ``content``."""
    hasher = blake3(content) if algorithm == "blake3" else hashlib.new(algorithm, content)
    return f"{algorithm}:{hasher.hexdigest()}"


def fallback_tag(digest: str) -> str:
    """The tag of the referrers list of ``digest``."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}-{encoded[:64]}"


def is_fallback(tag: str) -> bool:
    """Whether ``tag`` is that of a referrers list."""
    return re.fullmatch(f"({'|'.join(ALGORITHMS)})-[a-f0-9]{{64}}", tag) is not None


@dataclass(frozen=True)
class Expected:
    """An answer: what ``headers`` maps to None is not there, a ``body`` of None is not compared."""

    status: int
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    codes: tuple[str, ...] = ()
    document: Any = None
    missing: tuple[str, ...] = ()
    location: str = ""  # what Location starts with


@dataclass(frozen=True)
class Condition:
    """``If-Match`` and ``If-None-Match``: the digests listed, ``*`` for any."""

    match: tuple[str, ...] = ()
    none_match: tuple[str, ...] = ()

    def holds(self, current: str | None) -> bool:
        if self.match and (current is None or not {"*", current} & set(self.match)):
            return False
        return not (self.none_match and current is not None and {"*", current} & set(self.none_match))

    @property
    def headers(self) -> list[tuple[str, str]]:
        def listed(tags: Iterable[str]) -> str:
            return ", ".join(each if each == "*" else f'"{each}"' for each in tags)

        pairs = [("If-Match", listed(self.match)), ("If-None-Match", listed(self.none_match))]
        return [(name, value) for name, value in pairs if value]


@dataclass
class Manifest:
    """A stored manifest; ``needs`` are the digests that may not be deleted while it is there."""

    content: bytes
    media_type: str
    needs: frozenset[str] = frozenset()

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.content))

    @property
    def subject(self) -> str | None:
        return (self.document.get("subject") or {}).get("digest")

    @property
    def artifact_type(self) -> str | None:
        config = None if self.media_type in INDEXES else self.document.get("config")
        return self.document.get("artifactType") or (config or {}).get("mediaType")

    def descriptor(self, digest: str) -> dict[str, Any]:
        """How it stands in a list of referrers."""
        found = {"mediaType": self.media_type, "digest": digest, "size": len(self.content)}
        if self.artifact_type:
            found["artifactType"] = self.artifact_type
        if annotations := self.document.get("annotations"):
            found["annotations"] = annotations
        return found


def references(content: bytes, media_type: str) -> list[tuple[str, str, str]]:
    """``(digest, kind, path)`` of what a manifest references."""
    document = json.loads(content)
    if media_type in INDEXES:
        known = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
        return [
            (each["digest"], "manifest" if each["mediaType"] in known else "content", f"$.manifests[{n}]")
            for n, each in enumerate(document["manifests"])
        ]
    found = [(document["config"]["digest"], "config", "$.config")] if "config" in document else []
    return found + [(each["digest"], "layer", f"$.layers[{n}]") for n, each in enumerate(document["layers"])]


@dataclass
class Repository:
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or a digest names."""
        if ":" in reference:
            return reference if reference in self.manifests else None
        return self.tags.get(reference)

    def holds(self, digest: str, kind: str) -> bool:
        as_blob = kind != "manifest" and digest in self.blobs
        return as_blob or (kind in ("manifest", "content") and digest in self.manifests)

    def needs(self, digest: str) -> bool:
        """Whether a stored manifest would be broken without ``digest``."""
        return any(digest in each.needs for each in self.manifests.values())

    def referrers(self, subject: str) -> list[str]:
        """The digests of what refers to ``subject``, or is listed under its fallback tag and refers to nothing."""
        found = {digest for digest, each in self.manifests.items() if each.subject == subject}
        listed = self.tags.get(fallback_tag(subject))
        if listed is not None:
            for digest, _, _ in references(self.manifests[listed].content, self.manifests[listed].media_type):
                if digest in self.manifests and self.manifests[digest].subject is None:
                    found.add(digest)
        return sorted(found)

    def merged(self, tag: str, removed: str | None = None) -> dict[str, Any] | None:
        """What a fallback tag must name from now on; None where it is as it should be, or no referrers list."""
        digest = self.tags.get(tag)
        if digest is None or not is_fallback(tag):
            return None
        if self.manifests[digest].media_type != OCI_INDEX:
            return None
        document = self.manifests[digest].document
        kept = [each for each in document["manifests"] if each["digest"] != removed]
        listed = {each["digest"] for each in kept}
        added = [
            self.manifests[each].descriptor(each)
            for each in sorted(self.manifests)
            if (subject := self.manifests[each].subject) and fallback_tag(subject) == tag and each not in listed
        ]
        if not added and len(kept) == len(document["manifests"]):
            return None
        return document | {"manifests": kept + added}


@dataclass
class Upload:
    repository: str
    received: bytes = b""

    @property
    def range(self) -> str:
        return f"0-{max(0, len(self.received) - 1)}"
