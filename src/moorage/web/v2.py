"""One function an endpoint row of the specification; spec "Endpoints"."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from moorage.metadata.uploads import UploadSession
from moorage.registry import Registry
from moorage.spec import headers as rules
from moorage.spec.actions import Action
from moorage.spec.digest import DEFAULT_ALGORITHM, Digest
from moorage.spec.errors import (
    BlobUploadRangeInvalid,
    DigestInvalid,
    ManifestTooLarge,
    PageInvalid,
    SizeInvalid,
)
from moorage.spec.manifest import OCI_INDEX
from moorage.spec.names import check_repository
from moorage.spec.preconditions import ALWAYS, Precondition
from moorage.web.access import OPEN, Permit
from moorage.web.asgi import Request, Response, empty, json_response
from moorage.web.content import content_response, served_elsewhere
from moorage.web.options import WebOptions

_BLOB_TYPE: Final = "application/octet-stream"
_DIGITS: Final = 9
NOT_MOVED: Final = "the tag names something else, and may not be moved"
_SPECIFICATION: Final = "https://github.com/opencontainers/distribution-spec/blob/main"


@dataclass(slots=True)
class Call:
    """A request that was matched and let in: ``reference`` is what follows the repository in the path."""

    request: Request
    registry: Registry
    options: WebOptions
    repository: str
    reference: str
    permit: Permit = OPEN

    @property
    def actor(self) -> str:
        """Whose name the events bear."""
        return self.permit.identity.name

    async def may_create(self) -> bool:
        """Whether a push may be the repository's first."""
        return await self.permit.may(Action.CREATE, self.repository)

    def location(self, path: str) -> str:
        """An address of this registry, as clients reach it."""
        return f"{self.options.base(self.request)}/v2/{path}"

    def upload_headers(self, session: UploadSession) -> list[tuple[str, str]]:
        """Where a session goes on, and how far it is; spec end-5, end-13."""
        location = self.location(f"{session.repository}/blobs/uploads/{session.id}")
        return [("Location", location), ("Range", f"0-{max(0, session.received - 1)}")]


Endpoint = Callable[[Call], Awaitable[Response]]


async def base(call: Call) -> Response:  # noqa: ARG001  every row has the same form
    return json_response({})


async def get_blob(call: Call) -> Response:
    blob = await call.registry.blobs.get(call.repository, call.reference)
    blobs = call.registry.blobs
    read = partial(blobs.send if call.request.sends_files else blobs.read, blob)
    response = content_response(call.request, blob.digest, blob.size, _BLOB_TYPE, blobs.at_hand(blob) or read)
    if response.stream is None or not served_elsewhere(call.request):
        return response
    url = await blobs.url(blob)
    if url is None or _less_secure(call, url):
        return response
    return empty(307, [("Location", url), ("Docker-Content-Digest", blob.digest)])


async def delete_blob(call: Call) -> Response:
    await call.registry.blobs.delete(call.repository, call.reference, actor=call.actor)
    return empty(202)


async def start_upload(call: Call) -> Response:
    """Serve rows 4a, 4b, 4c and 11: a session, a whole blob, or a mount."""
    request, uploads = call.request, call.registry.uploads
    create = await call.may_create()
    if not create:  # now, rather than when everything has been sent
        await call.registry.repositories.require(call.repository)
    if mount := request.parameter("mount"):
        source = request.parameter("from")
        if source is not None:
            check_repository(source)
        if await _mount(call, Digest.parse(mount), source, create=create):
            return _created_blob(call, Digest(mount))
    elif (digest := request.parameter("digest")) is not None:
        body, length = request.stream(), request.length
        stored = await uploads.push(call.repository, digest, body, length=length, actor=call.actor, create=create)
        return _created_blob(call, stored)
    algorithm = request.parameter("digest-algorithm") or DEFAULT_ALGORITHM
    session = await uploads.start(call.repository, algorithm)
    response = empty(202, call.upload_headers(session))
    if minimum := call.registry.policy.chunk_minimum:
        response.add("OCI-Chunk-Min-Length", str(minimum))
    return response


async def append_upload(call: Call) -> Response:
    first, length = _chunk(call.request)
    body = call.request.stream()
    try:
        session = await call.registry.uploads.append(
            call.repository, call.reference, body, first=first, length=length
        )
    except BlobUploadRangeInvalid as error:
        raise await _with_status(call, error) from error
    return empty(202, call.upload_headers(session))


async def finish_upload(call: Call) -> Response:
    digest = call.request.parameter("digest")
    if digest is None:
        raise DigestInvalid("the digest parameter is missing", detail={"parameter": "digest"})
    first, length = _chunk(call.request)
    body = call.request.stream() if call.request.has_body else None
    try:
        stored = await call.registry.uploads.finish(
            call.repository,
            call.reference,
            digest,
            body,
            first=first,
            length=length,
            actor=call.actor,
            create=await call.may_create(),
        )
    except BlobUploadRangeInvalid as error:
        raise await _with_status(call, error) from error
    return _created_blob(call, stored)


async def get_upload(call: Call) -> Response:
    return empty(204, call.upload_headers(await call.registry.uploads.get(call.repository, call.reference)))


async def cancel_upload(call: Call) -> Response:
    await call.registry.uploads.cancel(call.repository, call.reference)
    return empty(204)


async def get_manifest(call: Call) -> Response:
    wanted = call.request.method == "GET"
    found = await call.registry.manifests.get(call.repository, call.reference, content=wanted)
    return content_response(call.request, found.digest, found.size, found.media_type, found.content or b"")


async def put_manifest(call: Call) -> Response:
    request = call.request
    tags = [value for key, value in request.query if key == "tag"]
    limit = call.registry.policy.manifest_limit
    content = await request.whole(limit)
    if content is None:
        announced = {} if request.length is None else {"announced": request.length}
        raise ManifestTooLarge(detail={"allowed": limit, **announced})
    pushed = await call.registry.manifests.put(
        call.repository,
        call.reference,
        content,
        request.header(b"content-type"),
        also=tags,
        precondition=_precondition(request),
        actor=call.actor,
        create=await call.may_create(),
        fixed=await _fixed(call, tags or [call.reference]),
    )
    response = empty(201, [("Location", call.location(f"{call.repository}/manifests/{pushed.digest}"))])
    response.add("Docker-Content-Digest", pushed.digest)
    if pushed.subject:
        response.add("OCI-Subject", pushed.subject)
    if tags:
        response.add("OCI-Tag", ", ".join(pushed.tags))
    return response


async def delete_manifest(call: Call) -> Response:
    precondition = _precondition(call.request)
    await call.registry.manifests.delete(call.repository, call.reference, precondition=precondition, actor=call.actor)
    return empty(202)


async def list_tags(call: Call) -> Response:
    n, last = page_of(call.request)
    page = await call.registry.tags.list(call.repository, n, last)
    response = json_response({"name": call.repository, "tags": page.items})
    return linked(call, response, f"{call.repository}/tags/list", n, page.last)


async def list_repositories(call: Call) -> Response:
    n, last = page_of(call.request)
    seen = partial(call.permit.may, Action.CATALOG) if call.permit.restricted else None
    page = await call.registry.repositories.list(n, last, seen=seen)
    return linked(call, json_response({"repositories": page.items}), "_catalog", n, page.last)


async def list_referrers(call: Call) -> Response:
    n, last = page_of(call.request)
    wanted = call.request.parameter("artifactType") or None
    index, more = await call.registry.referrers.index(call.repository, call.reference, wanted, n=n, last=last)
    response = Response(200, [(b"content-type", OCI_INDEX.encode()), (b"content-length", b"%d" % len(index))], index)
    if wanted:
        response.add("OCI-Filters-Applied", "artifactType")
    kept = [("artifactType", wanted)] if wanted else []
    return linked(call, response, f"{call.repository}/referrers/{call.reference}", n, more, kept)


async def list_extensions(call: Call) -> Response:
    """Serve the discovery endpoint of the specification's extensions/_oci.md."""
    extensions: list[dict[str, Any]] = [
        {
            "name": "_oci",
            "url": f"{_SPECIFICATION}/extensions/_oci.md",
            "description": "discovery of extensions",
            "endpoints": ["_oci/ext/discover"],
        }
    ]
    if call.repository:
        extensions += [
            {
                "name": "_moorage",
                "url": f"{call.options.address(call.request)}/openapi.json",
                "description": "the history of tags",
                "endpoints": ["_moorage/history/<tag>", "_moorage/restore/<tag>"],
            },
            {
                "name": "_chainguard",
                "url": f"{_SPECIFICATION}/extensions/README.md",
                "description": "the history of tags",
                "endpoints": ["_chainguard/history/<tag>"],
            },
        ]
    else:
        extensions += [
            {
                "name": "_catalog",
                "url": f"{_SPECIFICATION}/extensions/README.md",
                "description": "the repositories of this registry",
                "endpoints": ["_catalog"],
            },
            {
                "name": "_moorage",
                "url": f"{call.options.address(call.request)}/openapi.json",
                "description": "releases: tags of several repositories that go live together",
                "endpoints": ["_moorage/releases"],
            },
        ]
    return json_response({"extensions": extensions})


async def _mount(call: Call, digest: Digest, source: str | None, *, create: bool) -> bool:
    """Mount a blob of a repository that the client may pull; what it may not pull is not there."""
    if call.permit.restricted:
        source = await _pullable(call, digest, source)
        if source is None:
            return False
    return await call.registry.blobs.mount(call.repository, digest, source, actor=call.actor, create=create)


async def _pullable(call: Call, digest: Digest, source: str | None) -> str | None:
    """``source`` (None: any repository that holds the blob) if the client may pull it."""
    if source is not None:
        return source if await call.permit.may(Action.PULL, source) else None
    # Of a hundred at most: what is asked of more would take long, and tell how many hold it.
    for name in await call.registry.blobs.holders(digest):
        if await call.permit.may(Action.PULL, name):
            return name
    return None


async def _fixed(call: Call, tags: list[str]) -> dict[str, str]:
    """Why, of each of the tags that the client may make but not move."""
    return {tag: NOT_MOVED for tag in tags if not await call.permit.may(Action.RETAG, call.repository, tag)}


def _less_secure(call: Call, url: str) -> bool:
    """Whether ``url`` would lead from HTTPS to HTTP, where some clients refuse to go."""
    return url.startswith("http:") and call.options.address(call.request).startswith("https:")


def _created_blob(call: Call, digest: Digest) -> Response:
    location = call.location(f"{call.repository}/blobs/{digest}")
    return empty(201, [("Location", location), ("Docker-Content-Digest", digest)])


def _chunk(request: Request) -> tuple[int | None, int | None]:
    """``(first, length)`` of the body, as ``Content-Range`` and ``Content-Length`` announce them."""
    length = request.length
    header = request.header(b"content-range")
    if header is None:
        return None, length
    first, stop = rules.content_range(header)
    if length is not None and length != stop - first:
        raise SizeInvalid(detail={"Content-Range": header, "Content-Length": length})
    return first, stop - first


async def _with_status(call: Call, error: BlobUploadRangeInvalid) -> BlobUploadRangeInvalid:
    """A 416 that tells the client where to go on."""
    session = await call.registry.uploads.get(call.repository, call.reference)
    error.headers |= dict(call.upload_headers(session))
    return error


def _precondition(request: Request) -> Precondition:
    match, none_match = request.header(b"if-match"), request.header(b"if-none-match")
    return ALWAYS if match is None and none_match is None else Precondition(match, none_match)


def page_of(request: Request) -> tuple[int | None, str]:
    """``(n, last)`` of a listing; raises ``PageInvalid``."""
    n = request.parameter("n")
    if n is not None and not (n.isascii() and n.isdigit() and len(n) <= _DIGITS):
        raise PageInvalid(detail={"parameter": "n", "value": n[:64]})
    # No name holds a NUL, so what follows one decides nothing; not every database takes it.
    last = (request.parameter("last") or "").partition("\0")[0]
    return (None if n is None else int(n)), last


def linked(
    call: Call,
    response: Response,
    path: str,
    n: int | None,
    last: str | None,
    more: list[tuple[str, str]] | None = None,
) -> Response:
    """Add the ``Link`` to the next page, if there is one."""
    if last is not None:
        query: list[tuple[str, str | int]] = [*(more or []), ("last", last)]
        if n is not None:
            query.append(("n", n))
        response.add("Link", rules.next_link(call.location(quote(path, safe="/:_-.")), query))
    return response


ENDPOINTS: Final[dict[str, Endpoint]] = {
    function.__name__: function
    for function in (
        base,
        get_blob,
        delete_blob,
        start_upload,
        append_upload,
        finish_upload,
        get_upload,
        cancel_upload,
        get_manifest,
        put_manifest,
        delete_manifest,
        list_tags,
        list_repositories,
        list_referrers,
        list_extensions,
    )
}
