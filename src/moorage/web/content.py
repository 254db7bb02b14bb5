"""Answers that carry stored content: validators, ranges; RFC 9110 sections 13 and 14."""

import re
import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Final

from moorage.spec import headers as rules
from moorage.spec.digest import Digest
from moorage.spec.headers import Span
from moorage.spec.preconditions import Precondition
from moorage.web.asgi import Part, Request, Response

_PLAIN_RANGE: Final = re.compile(rb"bytes=\d*-\d*")
Reader = Callable[[int, int], AsyncGenerator[Part]]


def content_response(request: Request, digest: Digest, size: int, media_type: str, read: Reader | bytes) -> Response:
    """200 with the content, 206 with what ``Range`` asks for, or 304.

    ``read`` is the content, or gives the bytes from start up to stop (exclusive). Raises ``RangeInvalid``, and
    ``PreconditionFailed`` where ``If-Match`` asks for other content.
    """
    asked = request.headers
    response = Response(
        headers=[
            (b"docker-content-digest", (tag := digest.encode())),
            (b"etag", b'"%b"' % tag),
        ]
    )
    if b"if-match" in asked:
        Precondition(match=request.header(b"if-match")).check(digest, digest)
    if b"if-none-match" in asked:
        known = rules.weak_entity_tags(asked[b"if-none-match"].decode("latin-1"))
        if known is None or digest in known:
            response.status = 304
            return response
    response.headers.append((b"accept-ranges", b"bytes"))
    spans = _spans(request, digest, size) if b"range" in asked and request.method == "GET" else None
    if spans is None:
        _describe(response, media_type, size)
        if isinstance(read, bytes):
            response.body = read
        elif request.method == "GET" and size:
            response.stream = read(0, size)
        return response
    response.status = 206
    if len(spans) == 1:
        ((start, stop),) = spans
        _describe(response, media_type, stop - start)
        response.add("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        response.stream = _pieces(read, start, stop)
        return response
    return _several(response, spans, size, media_type, read)


def served_elsewhere(request: Request) -> bool:
    """Whether another server would give the same answer, which knows neither our validators nor unusual ranges."""
    asked = request.headers
    if b"if-match" in asked or b"if-range" in asked:
        return False
    return b"range" not in asked or _PLAIN_RANGE.fullmatch(asked[b"range"]) is not None


def _spans(request: Request, digest: Digest, size: int) -> list[Span] | None:
    """RFC 9110 section 13.1.5: a validator that is not ours asks for the whole."""
    condition = request.header(b"if-range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return None
    return rules.byte_ranges(request.header(b"range") or "", size)


def _describe(response: Response, media_type: str, length: int) -> None:
    response.headers += [(b"content-type", media_type.encode("latin-1")), (b"content-length", b"%d" % length)]


async def _pieces(read: Reader | bytes, start: int, stop: int) -> AsyncGenerator[Part]:
    if isinstance(read, bytes):
        yield read[start:stop]
        return
    async for piece in read(start, stop):
        yield piece


def _several(response: Response, spans: list[Span], size: int, media_type: str, read: Reader | bytes) -> Response:
    """A ``multipart/byteranges`` body; RFC 9110 section 14.6."""
    boundary = secrets.token_hex(16)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {start}-{stop - 1}/{size}\r\n\r\n"
        for start, stop in spans
    ]
    end = f"\r\n--{boundary}--\r\n"
    length = sum(map(len, heads)) + sum(stop - start for start, stop in spans) + len(end)

    async def parts() -> AsyncGenerator[Part]:
        for head, (start, stop) in zip(heads, spans, strict=True):
            yield head.encode("latin-1")
            async for piece in _pieces(read, start, stop):
                yield piece
        yield end.encode()

    _describe(response, f"multipart/byteranges; boundary={boundary}", length)
    response.stream = parts()
    return response
