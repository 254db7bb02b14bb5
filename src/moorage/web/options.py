"""How the registry is seen from outside: its address, the proxies in front of it, what it warns of."""

import fnmatch
import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from moorage.spec.headers import warnings
from moorage.web.asgi import Request
from moorage.web.rates import UNLIMITED, Rates

_FOR: Final = re.compile(r'(?:^|[;,])\s*for="?([^;,"]*)', re.IGNORECASE)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """``text`` goes as ``Warning: 299`` with every answer about a repository that matches ``repository``."""

    repository: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """What the answers say of the registry's own address.

    ``location``: whether ``Location`` names the host. ``public_url``: the address that clients use, where it is
    known (with a path, where a proxy mounts the registry below one). ``trusted_proxies``: whose ``Forwarded`` and
    ``X-Forwarded-*`` headers are believed. ``rates``: how much one client may ask for.
    """

    location: Literal["relative", "absolute"] = "relative"
    public_url: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    warnings: tuple[Warned, ...] = ()
    rates: Rates = UNLIMITED

    def base(self, request: Request) -> str:
        """What stands before ``/v2/`` in a ``Location``."""
        return self.address(request, absolute=self.location == "absolute")

    def address(self, request: Request, *, absolute: bool = True) -> str:
        """The address of the registry, without a slash at the end: a URL, or only its path."""
        if self.public_url is not None:
            origin, path = _split(self.public_url)
            return origin + path if absolute else path
        forwarded = self._forwarded(request)
        prefix = (forwarded.get("prefix") or request.root_path).rstrip("/")
        if not absolute:
            return prefix
        scheme = forwarded.get("proto") or request.scheme
        host = forwarded.get("host") or request.header(b"host") or "localhost"
        return f"{scheme}://{host}{prefix}"

    def client(self, request: Request) -> str | None:
        """The address that a request comes from: that of its connection, or the one that trusted proxies tell."""
        peer = request.client
        if peer is None or not self.trusted_proxies or not within(peer, self.trusted_proxies):
            return peer
        # Many proxies set the older header and pass the newer one on as their client wrote it.
        addresses, forwarded = request.header(b"x-forwarded-for"), request.header(b"forwarded")
        return _origin(addresses, forwarded, self.trusted_proxies) or peer

    def warnings_for(self, repository: str) -> list[str]:
        """The ``Warning`` values that concern a repository; spec "Warnings"."""
        texts = [each.text for each in self.warnings if fnmatch.fnmatchcase(repository, each.repository)]
        return warnings(texts)

    def _forwarded(self, request: Request) -> dict[str, str]:
        """What a trusted proxy says of the request that it got: ``proto``, ``host``, ``prefix``; RFC 7239."""
        client = request.client if self.trusted_proxies else None
        if client is None or not within(client, self.trusted_proxies):
            return {}
        said: dict[str, str] = {}
        # Of several values the last was added by the proxy next to us, which is the one we trust.
        for name in ("proto", "host", "prefix"):
            if value := request.header(b"x-forwarded-" + name.encode()):
                said[name] = value.rpartition(",")[2].strip()
        for pair in (request.header(b"forwarded") or "").rpartition(",")[2].split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals and name.lower() in ("proto", "host"):
                said[name.lower()] = value.strip('"')
        return said


@lru_cache(maxsize=16)
def _split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.rstrip("/").partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}", slash + path


@lru_cache(maxsize=1024)
def _origin(addresses: str | None, forwarded: str | None, trusted: tuple[Network, ...]) -> str | None:
    """The last address that is not a trusted proxy's: what stands before it, anyone may have written; RFC 7239."""
    told = addresses.split(",") if addresses else _FOR.findall(forwarded or "")
    for each in reversed(told):
        text = each.strip()
        bare = text[1:].partition("]")[0] if text.startswith("[") else text
        if bare.count(":") == 1:  # an IPv4 address with a port
            bare = bare.partition(":")[0]
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            return None
        if not within(bare, trusted):
            return bare
    return None


@lru_cache(maxsize=1024)
def within(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether one of ``networks`` holds ``address``."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has no address: its other end is on this machine
        return any(network.is_loopback for network in networks)
    return any(found in network for network in networks)
