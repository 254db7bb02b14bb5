"""Who counts as one client, by where it comes from."""

import ipaddress
from functools import lru_cache
from typing import Final

_SITE: Final = 64  # bits of an IPv6 address that are one client's: whoever has one has all of its network


@lru_cache(maxsize=4096)
def client_of(address: str | None) -> str | None:
    """What counts as one client: an IPv4 address or an IPv6 network; None where there is no address."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, _SITE), strict=False))
