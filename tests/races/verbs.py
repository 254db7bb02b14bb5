"""What each request does to the model, and how it must be answered."""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.races.model import (
    OCI_INDEX,
    OCTETS,
    Condition,
    Expected,
    Manifest,
    Repository,
    Upload,
    digest_of,
    fallback_tag,
    is_fallback,
    references,
)


def _error(status: int, code: str, **headers: str | None) -> Expected:
    return Expected(status, {name.replace("_", "-"): value for name, value in headers.items()}, codes=(code,))


_NO_UPLOAD = _error(404, "BLOB_UPLOAD_UNKNOWN")
_NO_BLOB = _error(404, "BLOB_UNKNOWN")
_NO_MANIFEST = _error(404, "MANIFEST_UNKNOWN")
_NO_NAME = _error(404, "NAME_UNKNOWN")
_WRONG_DIGEST = _error(400, "DIGEST_INVALID")
_BLOB_IN_USE = _error(405, "DENIED", Allow="GET, HEAD")
_MANIFEST_IN_USE = _error(405, "DENIED", Allow="GET, HEAD, PUT")


@dataclass
class Model:
    """Everything that a registry knows. ``pending`` are fallback tags whose new bytes the registry has chosen."""

    contents: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    pending: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    # Blobs

    def push(self, name: str, digest: str, content: bytes) -> Expected:
        """A whole blob in one POST."""
        if digest_of(content, digest.partition(":")[0]) != digest:
            return _WRONG_DIGEST
        return self._created(name, digest, content)

    def mount(self, name: str, digest: str, source: str | None) -> Expected:
        sources = self.repositories.values() if source is None else [self.repositories.get(source, Repository())]
        if any(digest in each.blobs for each in sources):
            return self._created(name, digest, self.contents[digest])
        return self.opened(name)

    def opened(self, name: str) -> Expected:
        return Expected(202, {"Range": "0-0"}, b"", location=f"/v2/{name}/blobs/uploads/")

    def append(self, name: str, upload: str, content: bytes, first: int | None) -> Expected:
        session = self._upload(name, upload)
        if session is None:
            return _NO_UPLOAD
        if first is not None and first != len(session.received):
            return self._out_of_order(name, upload, session)
        session.received += content
        return Expected(202, self._whereabouts(name, upload, session), b"")

    def finish(self, name: str, upload: str, digest: str, content: bytes, first: int | None) -> Expected:
        session = self._upload(name, upload)
        if session is None:
            return _NO_UPLOAD
        if first is not None and first != len(session.received):
            return self._out_of_order(name, upload, session)
        whole = session.received + content
        if digest_of(whole, digest.partition(":")[0]) != digest:
            return _WRONG_DIGEST
        del self.uploads[upload]
        return self._created(name, digest, whole)

    def status(self, name: str, upload: str) -> Expected:
        session = self._upload(name, upload)
        return _NO_UPLOAD if session is None else Expected(204, self._whereabouts(name, upload, session), b"")

    def cancel(self, name: str, upload: str) -> Expected:
        if self._upload(name, upload) is None:
            return _NO_UPLOAD
        del self.uploads[upload]
        return Expected(204, {}, b"")

    def get_blob(self, name: str, digest: str, asked: str | None = None) -> Expected:
        if digest not in self._at(name).blobs:
            return _NO_BLOB
        return _content(digest, self.contents[digest], OCTETS, asked)

    def delete_blob(self, name: str, digest: str) -> Expected:
        repository = self._at(name)
        if digest not in repository.blobs:
            return _NO_BLOB
        if repository.needs(digest):
            return _BLOB_IN_USE
        repository.blobs.remove(digest)
        return Expected(202, {}, b"")

    # Manifests and tags

    def put_manifest(
        self, name: str, reference: str, content: bytes, media_type: str, also: list[str], condition: Condition
    ) -> Expected:
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = digest_of(content, algorithm)
        if ":" in reference and digest != reference:
            return _WRONG_DIGEST
        tags = list(dict.fromkeys(also)) if ":" in reference else [reference]
        repository = self._at(name)
        for each in tags or [digest]:
            if not condition.holds(repository.resolve(each)):
                return _precondition(repository.resolve(each))
        is_list = media_type == OCI_INDEX and tags != [] and all(map(is_fallback, tags))
        needed = [] if is_list else references(content, media_type)
        missing = [(each, path) for each, kind, path in needed if not repository.holds(each, kind)]
        if missing:
            return Expected(
                404, codes=("MANIFEST_BLOB_UNKNOWN",) * len(missing), missing=tuple(p for _, p in missing)
            )
        repository = self.repositories.setdefault(name, repository)
        stored = repository.manifests.setdefault(digest, Manifest(content, media_type))
        stored.media_type = media_type
        stored.needs |= {each for each, _, _ in needed}
        for tag in tags:
            repository.tags[tag] = digest
            self._merge(name, tag)
        if stored.subject:
            self._merge(name, fallback_tag(stored.subject))
        headers = {
            "Location": f"/v2/{name}/manifests/{digest}",
            "Docker-Content-Digest": digest,
            "OCI-Subject": stored.subject,
            "OCI-Tag": ", ".join(tags) if also else None,
        }
        return Expected(201, headers, b"")

    def get_manifest(self, name: str, reference: str, known: str | None = None) -> Expected:
        """``known``: the digest in ``If-None-Match``."""
        repository = self._at(name)
        digest = repository.resolve(reference)
        if digest is None:
            return _NO_MANIFEST
        if digest == known:
            return Expected(304, {"ETag": f'"{digest}"', "Docker-Content-Digest": digest}, b"")
        return _content(digest, repository.manifests[digest].content, repository.manifests[digest].media_type, None)

    def delete_manifest(self, name: str, reference: str, condition: Condition) -> Expected:
        if reference.startswith("-"):  # no tag begins so, and what is no tag is not there
            return _NO_MANIFEST
        if name not in self.repositories:
            return _NO_NAME
        repository = self.repositories[name]
        digest = repository.resolve(reference)
        if not condition.holds(digest):
            return _precondition(digest)
        if digest is None:
            return _NO_MANIFEST
        if ":" not in reference:
            del repository.tags[reference]
            return Expected(202, {}, b"")
        if repository.needs(digest):
            return _MANIFEST_IN_USE
        gone = repository.manifests.pop(digest)
        repository.tags = {tag: named for tag, named in repository.tags.items() if named != digest}
        if gone.subject:
            self._merge(name, fallback_tag(gone.subject), removed=digest)
        return Expected(202, {}, b"")

    def settle(self, name: str, tag: str, content: bytes) -> None:
        """Take the bytes that the registry chose for a merged referrers list."""
        assert json.loads(content) == self.pending.pop((name, tag))
        repository = self.repositories[name]
        digest = digest_of(content)
        repository.manifests.setdefault(digest, Manifest(content, OCI_INDEX))
        repository.tags[tag] = digest

    # Listings

    def list_tags(self, name: str, n: int | None, last: str) -> Expected:
        if name not in self.repositories:
            return _NO_NAME
        page, more = _page(sorted(self.repositories[name].tags), n, last)
        return Expected(200, _link(f"/v2/{name}/tags/list", more, n), document={"name": name, "tags": page})

    def list_repositories(self, n: int | None, last: str) -> Expected:
        page, more = _page(sorted(self.repositories), n, last)
        return Expected(200, _link("/v2/_catalog", more, n), document={"repositories": page})

    def list_referrers(self, name: str, subject: str, wanted: str | None, n: int | None, last: str) -> Expected:
        repository = self._at(name)
        found = [repository.manifests[digest].descriptor(digest) for digest in repository.referrers(subject)]
        if wanted:
            found = [each for each in found if each.get("artifactType") == wanted]
        page, more = _page([each["digest"] for each in found], n, last)
        headers = {"Content-Type": OCI_INDEX, "OCI-Filters-Applied": "artifactType" if wanted else None}
        query = f"artifactType={wanted.replace('/', '%2F')}&" if wanted else ""
        headers |= _link(f"/v2/{name}/referrers/{subject}", more, n, query)
        listed = [each for each in found if each["digest"] in page]
        return Expected(200, headers, document={"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed})

    def _at(self, name: str) -> Repository:
        return self.repositories.get(name) or Repository()

    def _upload(self, name: str, upload: str) -> Upload | None:
        session = self.uploads.get(upload)
        return session if session and session.repository == name else None

    def _created(self, name: str, digest: str, content: bytes) -> Expected:
        self.contents[digest] = content
        self.repositories.setdefault(name, Repository()).blobs.add(digest)
        headers: dict[str, str | None] = {
            "Location": f"/v2/{name}/blobs/{digest}",
            "Docker-Content-Digest": digest,
        }
        return Expected(201, headers, b"")

    def _whereabouts(self, name: str, upload: str, session: Upload) -> dict[str, str | None]:
        return {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": session.range}

    def _out_of_order(self, name: str, upload: str, session: Upload) -> Expected:
        return Expected(416, self._whereabouts(name, upload, session), codes=("BLOB_UPLOAD_INVALID",))

    def _merge(self, name: str, tag: str, removed: str | None = None) -> None:
        if (document := self.repositories[name].merged(tag, removed)) is not None:
            self.pending[name, tag] = document


def _precondition(current: str | None) -> Expected:
    return _error(412, "DENIED", ETag=f'"{current}"' if current else None)


def _content(digest: str, content: bytes, media_type: str, asked: str | None) -> Expected:
    headers: dict[str, str | None] = {
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Content-Type": media_type,
        "Content-Length": str(len(content)),
    }
    if asked is None:
        return Expected(200, headers, content)
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(len(content), int(last) + 1) if first and last else len(content)
    if start >= stop:
        return Expected(416, {"Content-Range": f"bytes */{len(content)}"}, codes=("SIZE_INVALID",))
    headers |= {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
    return Expected(206, headers, content[start:stop])


def _page(items: list[str], n: int | None, last: str) -> tuple[list[str], str | None]:
    """The page, and the last entry on it where there is another one."""
    left = [each for each in items if each > last]
    page = left if n is None else left[:n]
    return page, page[-1] if page and len(page) < len(left) else None


def _link(path: str, more: str | None, n: int | None, query: str = "") -> dict[str, str | None]:
    if more is None:
        return {"Link": None}
    return {"Link": f'<{path}?{query}last={more.replace(":", "%3A").replace("/", "%2F")}&n={n}>; rel="next"'}
