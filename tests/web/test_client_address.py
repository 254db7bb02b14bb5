"""Whose address counts: that of the connection, unless a trusted proxy tells of another."""

from ipaddress import ip_network
from typing import Any

import pytest

from moorage.web.asgi import ASGIRequest
from moorage.web.options import WebOptions

TRUSTED = WebOptions(
    trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"), ip_network("127.0.0.0/8"))
)


def seen(peer: str | None, /, options: WebOptions = TRUSTED, **headers: Any) -> str | None:
    async def nothing(*_: Any) -> Any:
        """No body, and nobody to answer."""

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v2/",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": (peer, 1) if peer else None,
    }
    return options.client(ASGIRequest(scope, nothing, nothing))


@pytest.mark.parametrize("header", ["forwarded", "x_forwarded_for"])
def test_nobody_is_trusted(header: str) -> None:
    """Without trusted proxies, and from anybody else, nothing that is told counts."""
    told: dict[str, Any] = {header: "for=192.0.2.9" if header == "forwarded" else "192.0.2.9"}
    assert seen("10.0.0.1", WebOptions(), **told) == "10.0.0.1"
    assert seen("198.51.100.1", **told) == "198.51.100.1"
    assert seen(None, **told) is None


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6,192.0.2.1 , 10.2.3.4,10.0.0.9", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db9::1", "2001:db9::1"),
        ("[2001:db9::1]:4711", "2001:db9::1"),
        ("2001:db9::1, 2001:db8::5", "2001:db9::1"),
        ("10.2.3.4", "10.0.0.1"),
        ("192.0.2.1, unknown", "10.0.0.1"),
        ("192.0.2.1, ", "10.0.0.1"),
        ("6.6.6.6, _hidden, 10.2.3.4", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_x_forwarded_for(told: str, address: str) -> None:
    """The last address that is no trusted proxy's counts; where that cannot be read, nothing before it does."""
    assert seen("10.0.0.1", x_forwarded_for=told) == address


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ("for=6.6.6.6, For=192.0.2.1;proto=https", "192.0.2.1"),
        ('proto=https;for="[2001:db9::1]:4711";by=10.0.0.1', "2001:db9::1"),
        ("for=192.0.2.1, for=10.2.3.4;host=x", "192.0.2.1"),
        ("for=unknown", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
    ],
)
def test_forwarded(told: str, address: str) -> None:
    """``Forwarded`` is read as RFC 7239 has it; the older header is stronger, since more proxies set it."""
    assert seen("10.0.0.1", forwarded=told) == address
    assert seen("10.0.0.1", forwarded=told, x_forwarded_for="203.0.113.7") == "203.0.113.7"


def test_without_any_header() -> None:
    """A proxy that tells nothing is itself who asks."""
    assert seen("10.0.0.1") == "10.0.0.1"
