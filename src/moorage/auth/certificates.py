"""Client certificates: what one says, and whose it is."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from moorage.auth.base import Certificate, Challenge, Credentials, Identity
from moorage.auth.words import is_word

NameFrom = Literal["cn", "dns", "email", "uri"]
METHOD: Final = "certificate"
_SHORT: Final = {  # RFC 4514 section 3
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_KINDS: Final = {"email": "EMAIL", "IP Address": "IP"}


class CertificateAuthenticator:
    """An ``Authenticator`` by the certificate that a client has shown on its connection and the transport verified.

    The identity's name is the subject's common name, or the first alternative name of a kind; its groups are the
    subject's organizations. Credentials of another kind in the request itself are stronger.
    """

    challenges: tuple[Challenge, ...] = ()  # a certificate is shown before any request, or not at all

    def __init__(self, name_from: NameFrom = "cn") -> None:
        self._kind = None if name_from == "cn" else f"{name_from.upper()}:"

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Whose certificate it is; None without one, or where its name is none or means others in rules."""
        certificate = credentials.certificate
        if certificate is None or credentials.name is not None or credentials.token is not None:
            return None
        name = self._name(certificate)
        if not name or is_word(name):
            return None
        return Identity(name, frozenset(certificate.organizations), METHOD)

    def _name(self, certificate: Certificate) -> str | None:
        kind = self._kind
        if kind is None:
            return certificate.common_name
        return next((each[len(kind) :] for each in certificate.names if each.startswith(kind)), None)


def certificate_of(peer: Mapping[str, Any] | None) -> Certificate | None:
    """What ``ssl.SSLObject.getpeercert`` says of a client's certificate; None where it says nothing."""
    if not peer:
        return None
    subject = [(kind, value) for part in peer.get("subject", ()) for kind, value in part]
    return Certificate(
        ",".join(f"{_SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in reversed(subject)),
        tuple(f"{_KINDS.get(kind, kind)}:{value}" for kind, value in peer.get("subjectAltName", ())),
        next((value for kind, value in reversed(subject) if kind == "commonName"), None),
        tuple(value for kind, value in subject if kind == "organizationName"),
    )


def _escaped(value: str) -> str:
    """An attribute's value; RFC 4514 section 2.4."""
    value = re.sub(r'([\\",+;<>])', r"\\\1", value)
    return re.sub(r"^[ #]| $", lambda found: "\\" + found[0], value).replace("\0", "\\00")
