"""Conformance: the official suite, a matrix of our own, and the client that the matrix pushes and pulls with."""

import itertools
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

import httpx

from tests.conformance.material import OCI_INDEX, Blob, Descriptor, Manifest
from tests.following import Following

UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Spec "Error Codes": there are no others.
CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DENIED",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNSUPPORTED",
    }
)
OCTETS: Final = {"Content-Type": "application/octet-stream"}
CHUNKS: Final = 3


class Door:
    """A client of one registry, which compares each answer with the specification.

    With ``scatter`` each request has a connection of its own, so that any worker may get it. ``sparse`` is what the
    registry allows. ``headers`` go with each request, ``auth`` adds what lets it in. With ``trust`` it is asked over
    TLS. With ``others`` the hosts take turns. A path is relative to ``/v2/``.
    """

    def __init__(
        self,
        host: str,
        *others: str,
        scatter: bool = False,
        sparse: bool = False,
        headers: Mapping[str, str] | None = None,
        auth: httpx.Auth | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self.host, self.sparse, self.headers = host, sparse, dict(headers or {})
        self.trust = trust
        self._hosts = itertools.cycle([host, *others])
        self._base = httpx.URL(f"{'https' if trust else 'http'}://{host}/v2/")
        limits = httpx.Limits(max_keepalive_connections=0 if scatter else 1)
        self._client = httpx.Client(
            transport=Following(httpx.HTTPTransport(limits=limits, verify=trust or True)),
            timeout=30,
            trust_env=False,
            headers=self.headers,
            auth=auth,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def connect(self) -> socket.socket:
        """A connection to say anything on."""
        host, _, port = self.host.partition(":")
        plain = socket.create_connection((host, int(port)), timeout=10)
        return self.trust.wrap_socket(plain, server_hostname=host) if self.trust else plain

    def send(self, status: int, method: str, path: str | httpx.URL, **more: Any) -> httpx.Response:
        """The answer, whose status must be ``status``."""
        response = self.request(method, path, **more)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response

    def request(self, method: str, path: str | httpx.URL, **more: Any) -> httpx.Response:
        """The answer; an error must have the form of spec "Error Codes"."""
        # Not joined: that would mend what a test leaves wrong, an empty component for one.
        url = path if isinstance(path, httpx.URL) else f"{self._base}{path}"
        url = httpx.URL(url).copy_with(netloc=next(self._hosts).encode())
        response = self._client.request(method, url, **more)
        if response.status_code >= 400 and method != "HEAD":
            codes_of(response)
        return response

    def refused(self, status: int, code: str, method: str, path: str | httpx.URL, **more: Any) -> httpx.Response:
        """The answer, which must be an error of ``status``, all of its entries with ``code``."""
        response = self.send(status, method, path, **more)
        if method != "HEAD":
            assert codes_of(response) == {code}, response.text
        return response

    def gone(self, path: str) -> None:
        """What ``path`` names must not be there."""
        for method in ("GET", "HEAD"):
            self.send(404, method, path)

    def follow(self, response: httpx.Response, **parameters: str) -> httpx.URL:
        """Where ``Location`` leads, absolute or relative, its query kept; spec "POST then PUT"."""
        return self._base.join(response.headers["Location"]).copy_merge_params(parameters)

    def start(self, repository: str, algorithm: str = "sha256") -> httpx.Response:
        """Open an upload session; spec end-4a, end-4c."""
        parameters = {} if algorithm == "sha256" else {"digest-algorithm": algorithm}
        response = self.send(202, "POST", f"{repository}/blobs/uploads/", params=parameters)
        assert UUID.search(response.headers["Location"])
        return response

    def patch(self, session: httpx.Response, content: bytes, first: int) -> httpx.Response:
        """Upload the chunk that starts at ``first``; spec end-5."""
        response = self.send(202, "PATCH", self.follow(session), **chunk(content, first))
        assert response.headers["Range"] == f"0-{first + len(content) - 1}"
        return response

    def push_blob(self, repository: str, blob: Blob, way: str = "single POST") -> httpx.Response:
        """Push a blob in one of ``BLOB_WAYS``."""
        response = BLOB_WAYS[way](self, repository, blob, 201)
        assert response.headers.get("Docker-Content-Digest", blob.digest) == blob.digest
        assert response.headers["Location"]
        return response

    def push_manifest(self, repository: str, manifest: Manifest, reference: str, *tags: str) -> httpx.Response:
        """Push a manifest by a tag, by its digest, or by its digest with ``tags``; spec end-7a, end-7b."""
        response = self.send(
            201,
            "PUT",
            f"{repository}/manifests/{reference}",
            params=[("tag", tag) for tag in tags],
            content=manifest.content,
            headers={"Content-Type": manifest.media_type},
        )
        expected = reference if ":" in reference else manifest.digest
        assert response.headers["Docker-Content-Digest"] == expected
        return response

    def push(
        self, repository: str, manifest: Manifest, reference: str | None = None, *tags: str, way: str = "single POST"
    ) -> httpx.Response:
        """Push all of ``manifest``, itself last and by ``reference``; the others by their digests."""
        pushed = set()
        for each in manifest.walk():
            for blob in each.blobs:
                if blob.digest not in pushed:
                    self.push_blob(repository, blob, way)
                    pushed.add(blob.digest)
            if each is not manifest:
                self.push_manifest(repository, each, each.digest)
        return self.push_manifest(repository, manifest, reference or manifest.digest, *tags)

    def tags(self, repository: str, **parameters: str | int) -> list[str]:
        """One page of the tags; spec "Listing Tags"."""
        document = self.send(200, "GET", f"{repository}/tags/list", params=parameters).json()
        assert document["name"] == repository
        tags: list[str] = document["tags"]
        return tags

    def referrers(self, repository: str, subject: str, artifact_type: str | None = None) -> list[Descriptor]:
        """The referrers of ``subject``, sorted by digest; spec "Listing Referrers"."""
        asked = {"artifactType": artifact_type} if artifact_type else {}
        response = self.send(200, "GET", f"{repository}/referrers/{subject}", params=asked)
        assert response.headers["Content-Type"] == OCI_INDEX
        assert response.headers.get("OCI-Filters-Applied") == ("artifactType" if artifact_type else None)
        index = response.json()
        assert (index["schemaVersion"], index["mediaType"]) == (2, OCI_INDEX)
        return by_digest(index["manifests"])

    def serves(self, method: str, path: str | httpx.URL, manifest: Manifest, **more: Any) -> None:
        """A manifest must be answered with its digest, size and type, and to GET with its very bytes."""
        response = self.send(200, method, path, **more)
        assert response.headers["Docker-Content-Digest"] == manifest.digest
        assert response.headers["Content-Length"] == str(len(manifest.content))
        assert response.headers["Content-Type"] == manifest.media_type
        assert response.content == (manifest.content if method == "GET" else b"")

    def serves_blob(self, method: str, path: str | httpx.URL, blob: Blob) -> None:
        """A blob must be answered with its digest and size, and to GET with its very bytes."""
        response = self.send(200, method, path)
        assert response.headers["Docker-Content-Digest"] == blob.digest
        assert response.headers["Content-Length"] == str(len(blob.content))
        assert response.content == (blob.content if method == "GET" else b"")

    def received(self, session: httpx.Response) -> httpx.Response:
        """The status of an upload session; spec end-13."""
        response = self.send(204, "GET", self.follow(session))
        assert UUID.findall(response.headers["Location"]) == UUID.findall(session.headers["Location"])
        return response


def by_digest(descriptors: list[Descriptor]) -> list[Descriptor]:
    """A list whose order means nothing, in an order."""
    return sorted(descriptors, key=lambda each: str(each["digest"]))


def codes_of(response: httpx.Response) -> set[str]:
    """The codes of an error, which must be in the form of spec "Error Codes"."""
    assert response.headers["Content-Type"] == "application/json", response.headers
    errors = response.json()["errors"]
    codes = {each["code"] for each in errors}
    assert errors, response.text
    assert codes <= CODES, response.text
    assert all(isinstance(each.get("message", ""), str) for each in errors), response.text
    return codes


def chunk(content: bytes, first: int) -> dict[str, Any]:
    """The body and headers of a chunk; spec "Pushing a blob in chunks"."""
    return {"content": content, "headers": {**OCTETS, "Content-Range": f"{first}-{first + len(content) - 1}"}}


def cut(content: bytes) -> list[tuple[int, bytes]]:
    """``content`` in up to three chunks, each with where it starts; nothing has none."""
    size = -(-len(content) // CHUNKS) or 1
    return [(first, content[first : first + size]) for first in range(0, len(content), size)]


def _post_put(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    session = door.start(repository, blob.algorithm)
    return door.send(status, "PUT", door.follow(session, digest=blob.digest), content=blob.content, headers=OCTETS)


def _single_post(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    path, digest = f"{repository}/blobs/uploads/", {"digest": blob.digest}
    return door.send(status, "POST", path, params=digest, content=blob.content, headers=OCTETS)


def _streamed(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    def pieces() -> Iterator[bytes]:
        for _, piece in cut(blob.content):
            yield piece

    session = door.start(repository, blob.algorithm)
    session = door.send(202, "PATCH", door.follow(session), content=pieces(), headers=OCTETS)
    assert session.headers["Range"] == f"0-{max(0, len(blob.content) - 1)}"
    return door.send(status, "PUT", door.follow(session, digest=blob.digest))


def _chunked(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    session = door.start(repository, blob.algorithm)
    for first, piece in cut(blob.content):
        session = door.patch(session, piece, first)
    return door.send(status, "PUT", door.follow(session, digest=blob.digest))


def _chunked_put(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    session = door.start(repository, blob.algorithm)
    *chunks, last = cut(blob.content) or [(0, b"")]
    for first, piece in chunks:
        session = door.patch(session, piece, first)
    final = chunk(last[1], last[0]) if blob.content else {}
    return door.send(status, "PUT", door.follow(session, digest=blob.digest), **final)


def _mount_from(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    source = f"{repository}/source"
    _post_put(door, source, blob)
    return door.send(status, "POST", f"{repository}/blobs/uploads/", params={"mount": blob.digest, "from": source})


def _mount(door: Door, repository: str, blob: Blob, status: int = 201) -> httpx.Response:
    _post_put(door, f"{repository}/source", blob)
    return door.send(status, "POST", f"{repository}/blobs/uploads/", params={"mount": blob.digest})


BLOB_WAYS: Final[dict[str, Callable[[Door, str, Blob, int], httpx.Response]]] = {
    "POST, PUT": _post_put,
    "single POST": _single_post,
    "streamed PATCH": _streamed,
    "chunked PATCH": _chunked,
    "last chunk in PUT": _chunked_put,
    "mount with from": _mount_from,
    "mount without from": _mount,
}
