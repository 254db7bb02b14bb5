"""The settings of other issuers of tokens: a part of the settings that stands by itself."""

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta


class IdentityRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose claims match these patterns is this identity, in these groups."""

    claims: Annotated[dict[str, str | list[str]], Meta(min_length=1)]
    identity: Annotated[str, Meta(min_length=1)]
    groups: list[str] = []


class IssuerSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody else's issuer of tokens."""

    issuer: Annotated[str, Meta(min_length=1)]
    audience: Annotated[list[str], Meta(min_length=1)]
    keys: str | None = None
    identities: list[IdentityRule] = []
    access: Literal["rules", "token"] = "rules"
    realm: str | None = None
    service: str | None = None
    certificate_authority: str | None = None
    token_file: str | None = None


def check_issuers(issuers: Sequence[IssuerSetting], authentication: Sequence[str]) -> None:
    """Raise ``ValueError`` for what the types cannot say; it names the entry."""
    if bool(issuers) != ("issuers" in authentication):
        raise ValueError(
            f"issuers has {len(issuers)} entries and authentication = {list(authentication)!r}; "
            "allowed: both 'issuers' in authentication and entries, or neither"
        )
    names = [each.issuer for each in issuers]
    for each in issuers:
        where = f"issuers: {each.issuer!r}"
        if names.count(each.issuer) > 1:
            raise ValueError(f"{where} is there {names.count(each.issuer)} times; allowed: once")
        if each.access == "rules" and not each.identities:
            raise ValueError(f"{where} has no identities, so nobody would be let in; allowed: at least one")
        if each.realm and "tokens" in authentication:
            raise ValueError(f"{where}: realm = {each.realm!r}; allowed: without 'tokens' in authentication")
        location = each.issuer if each.keys is None else each.keys
        if each.keys is None and "://" not in location:
            raise ValueError(f"{where}: keys is missing; allowed: without it, an issuer that is a URL")
        if "://" in location and not _is_safe(location):
            raise ValueError(f"{where}: keys of {location!r}; allowed: https://, or http:// to this machine")


def _is_safe(url: str) -> bool:
    """Whether nobody on the way can change what is fetched from there."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))
