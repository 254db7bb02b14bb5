"""The head of an answer, as bytes; RFC 9112 section 4, RFC 9110 section 6.6.1 (Date)."""

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from moorage.web.asgi import Response

_NO_CONTENT: Final = (204, 304)
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in HTTPStatus}


def date_line() -> bytes:
    """``Date`` as of now."""
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()


def head_of(response: Response, date: bytes, keep_alive: bool) -> tuple[bytes, int]:
    """The head up to the empty line, and the length of the body that it announces.

    Raises ``ValueError`` where a header would end its line.
    """
    parts = [_STATUS[response.status], date]
    length = 0
    for name, value in response.headers:
        parts += (name, b": ", value, b"\r\n")
        if name == b"content-length":
            length = int(value)
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    lines = len(response.headers) + (3 if keep_alive else 4)
    if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError(f"a header of the answer is more than a line: {response.headers}")
    return head, length
