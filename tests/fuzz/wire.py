"""Bytes to and from a real server's socket, and nothing that would refuse to send them."""

import contextlib
import re
import socket
from typing import Final

from tests.fuzz.answer import Answer

PATIENCE: Final = 20.0
_MOMENT: Final = 0.05
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*")
# What the server says to bytes that are no HTTP request, before there is an application or a method.
_NOT_HTTP: Final = b"this is not a request of HTTP/1.1"


def exchange(host: str, data: bytes, *, complete: bool = True) -> bytes:
    """All that the server sends until it closes the connection.

    A request that is not ``complete`` is given a moment, and then its end.
    """
    address, _, port = host.rpartition(":")
    with socket.create_connection((address, int(port)), PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):  # it may answer and close before it has everything
            connection.sendall(data)
        received = bytearray()
        if not complete:
            connection.settimeout(_MOMENT)
            with contextlib.suppress(TimeoutError, ConnectionError):
                received += connection.recv(65536)
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                received += piece
    return bytes(received)


def answers(received: bytes, methods: list[str]) -> list[Answer]:
    """The responses to requests with ``methods``, in order; what does not parse fails."""
    found = []
    rest = received
    for method in methods:
        answer, rest = _first(rest)
        while answer is not None and answer.status == 100:
            answer, rest = _first(rest)
        if answer is None:
            break
        length = _length(method, answer, rest)
        assert len(rest) >= length, received[:500]
        found.append(Answer(answer.status, answer.headers, rest[:length]))
        rest = rest[length:]
    assert rest == b"", received[:500]
    return found


def _first(received: bytes) -> tuple[Answer | None, bytes]:
    """The head of a response, and what follows it."""
    if not received:
        return None, b""
    head, end, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    assert status, received[:500]
    assert end, received[:500]
    headers = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        assert colon, line
        headers.append((name.lower(), value.strip()))
    return Answer(int(status[1]), tuple(headers)), rest


def _length(method: str, answer: Answer, rest: bytes) -> int:
    length = int(answer.header("content-length") or 0)
    if method == "HEAD" or answer.status in (204, 304):
        return length if _NOT_HTTP in rest[:length] else 0
    return length


def is_not_http(answer: Answer) -> bool:
    """Whether this is the server's own answer to bytes that are no request."""
    return answer.status == 400 and _NOT_HTTP in answer.body
