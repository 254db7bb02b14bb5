"""Whose a client's certificate is."""

from typing import Any

import pytest

from moorage.auth.base import Certificate, Credentials
from moorage.auth.certificates import CertificateAuthenticator, certificate_of

PEER: dict[str, Any] = {
    "subject": (
        (("countryName", "DE"),),
        (("organizationName", "harbour"),),
        (("organizationName", "crew, night"),),
        (("commonName", "alice"),),
    ),
    "subjectAltName": (
        ("DNS", "alice.example"),
        ("DNS", "second.example"),
        ("email", "alice@example.org"),
        ("URI", "spiffe://example/ns/ci/sa/alice"),
        ("IP Address", "192.0.2.1"),
    ),
}


def test_what_it_says() -> None:
    """Subject and alternative names are told as text, the subject from its most special part on."""
    assert certificate_of(PEER) == Certificate(
        r"CN=alice,O=crew\, night,O=harbour,C=DE",
        (
            "DNS:alice.example",
            "DNS:second.example",
            "EMAIL:alice@example.org",
            "URI:spiffe://example/ns/ci/sa/alice",
            "IP:192.0.2.1",
        ),
        "alice",
        ("harbour", "crew, night"),
    )


@pytest.mark.parametrize("peer", [None, {}])
def test_none(peer: dict[str, Any] | None) -> None:
    """Without a certificate there is nothing to say."""
    assert certificate_of(peer) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("a b", "a b"), (" a ", r"\ a\ "), ("#a", r"\#a"), ('a,b+c"d\\e', r"a\,b\+c\"d\\e"), ("a\0", r"a\00")],
)
def test_escaped(value: str, text: str) -> None:
    """What would mean something else in a subject is escaped, so that no name can look like two."""
    certificate = certificate_of({"subject": ((("commonName", value),),)})
    assert certificate is not None
    assert certificate.subject == f"CN={text}"
    assert certificate.common_name == value


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("cn", "alice"),
        ("dns", "alice.example"),
        ("email", "alice@example.org"),
        ("uri", "spiffe://example/ns/ci/sa/alice"),
    ],
)
async def test_name(kind: Any, name: str) -> None:
    """The name is the common name or the first alternative one of a kind, the groups are the organizations."""
    identity = await CertificateAuthenticator(kind).authenticate(Credentials(certificate=certificate_of(PEER)))
    assert identity is not None
    assert (identity.name, identity.method) == (name, "certificate")
    assert identity.groups == {"harbour", "crew, night"}
    assert not identity.local


@pytest.mark.parametrize("kind", ["cn", "dns", "email", "uri"])
@pytest.mark.parametrize(
    "peer", [{"subject": ((("commonName", ""),),)}, {"subjectAltName": (("IP Address", "::1"),)}]
)
async def test_no_name(kind: Any, peer: dict[str, Any]) -> None:
    """A certificate without such a name is nobody's."""
    found = await CertificateAuthenticator(kind).authenticate(Credentials(certificate=certificate_of(peer)))
    assert found is None


@pytest.mark.parametrize("other", [{"name": "bob", "password": "x"}, {"token": "x"}])
async def test_stronger_credentials(other: dict[str, str]) -> None:
    """What the request itself carries is stronger, and for others to judge."""
    credentials = Credentials(certificate=certificate_of(PEER), **other)
    assert await CertificateAuthenticator().authenticate(credentials) is None
