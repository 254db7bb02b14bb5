"""Client certificates on real connections: who is let in, who is refused, and as whom."""

import shutil
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from tests.certificates import Authority, Pair
from tests.server import Server
from tests.support import eventually
from tests.test_cli import refused

URI = "spiffe://example/ns/ci/sa/builder"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Pair:
    return authority.issue("alice", "alice", (x509.UniformResourceIdentifier(URI),), client=True)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same name by another authority that calls itself the same."""
    return Authority(tmp_path_factory.mktemp("other")).make().issue("alice", "alice", client=True)


def serving(root: Path, authority: Authority, *arguments: str, **environment: str) -> Server:
    pair = authority.server()
    options = ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key), *arguments)
    return Server(root, options, {"MOORAGE_TLS_CLIENT_CA": str(authority.certificate), **environment})


@pytest.fixture(scope="module", params=["optional", "required"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Server]:
    """A server that knows people by their certificates."""
    environment = {"MOORAGE_TLS_CLIENT_VERIFY": request.param, "MOORAGE_AUTHENTICATION": "certificate"}
    started = serving(tmp_path_factory.mktemp("root"), authority, **environment).start()
    try:
        yield started
        assert "Traceback" not in started.log, started.log
    finally:
        started.kill()


def get(
    server: Server, authority: Authority, pair: Pair | None = None, path: str = "/v2/", **more: Any
) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return httpx.get(f"{server.url}{path}", verify=context, **more)


def test_known(server: Server, authority: Authority, alice: Pair) -> None:
    """Whoever shows a certificate of the authority has shown who he is, and may do what that one may: nothing yet."""
    assert get(server, authority, alice).status_code == 200
    assert get(server, authority, alice, "/v2/a/tags/list").status_code == 404


@pytest.mark.parametrize("name", ["local", "*", "anonymous", "@admins", "key:ci"])
def test_a_name_that_rules_use_for_others(server: Server, authority: Authority, name: str) -> None:
    """Whoever is called as rules call somebody else is not taken for him: it is as if his certificate had no name."""
    pair = authority.issue(f"other-{len(name)}", name, client=True)
    assert get(server, authority, pair).status_code == 401
    assert get(server, authority, pair, "/v2/a/tags/list").status_code == 401


def test_without(server: Server, authority: Authority) -> None:
    """Without a certificate there is 401 where it is optional, and no connection where it is required."""
    if server.environment["MOORAGE_TLS_CLIENT_VERIFY"] == "optional":
        assert get(server, authority).status_code == 401
        # What a header says of a certificate is not believed.
        for name in ("X-Forwarded-Client-Cert", "X-SSL-Client-S-DN", "Client-Cert"):
            assert get(server, authority, headers={name: "CN=alice"}).status_code == 401
        return
    with pytest.raises(httpx.TransportError, match="certificate required"):
        get(server, authority)


def test_of_a_stranger(server: Server, authority: Authority, stranger: Pair) -> None:
    """A certificate of somebody else's authority gets no connection, and the log says why."""
    with pytest.raises(httpx.TransportError, match=r"unknown ca|decrypt error|bad certificate"):
        get(server, authority, stranger)
    eventually(lambda: "a client's certificate was refused: " in server.log, "the reason is logged")


def test_of_a_server(server: Server, authority: Authority) -> None:
    """A server's certificate is no client's, though the authority is the same."""
    with pytest.raises(httpx.TransportError, match=r"unsupported certificate|alert"):
        get(server, authority, authority.server("other"))


def test_revocation(tmp_path: Path, authority: Authority) -> None:
    """A certificate that the list names is refused once the list was read, also to who was there before."""
    pair = authority.issue("bob", "bob", client=True)
    carol = authority.issue("carol", "carol", client=True)
    live = tmp_path / "crl.pem"
    shutil.copy(authority.revocations, live)
    environment = {"MOORAGE_TLS_CLIENT_REVOCATIONS": str(live), "MOORAGE_TLS_CLIENT_VERIFY": "required"}
    server = serving(tmp_path / "root", authority, "--workers", "2", **environment).start()
    try:
        assert get(server, authority, pair).status_code == 200
        authority.revoke(pair)
        shutil.copy(authority.revocations, live)
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count("read anew") >= 2, "both workers read the list")
        for _ in range(4):
            with pytest.raises(httpx.TransportError, match="certificate revoked"):
                get(server, authority, pair)
            assert get(server, authority, carol).status_code == 200
        assert "a client's certificate was refused: certificate revoked" in server.log
    finally:
        server.kill()


def test_wrong_settings(tmp_path: Path, authority: Authority) -> None:
    """What does not fit together stops the start."""
    pair = authority.server()
    options = ("--tls-certificate", pair.certificate, "--tls-key", pair.key, "--root", tmp_path / "root")
    ca = {"MOORAGE_TLS_CLIENT_CA": str(authority.certificate)}
    empty = tmp_path / "empty"
    empty.touch()
    said = refused("serve", *options, MOORAGE_AUTHENTICATION="certificate")
    assert "authentication = 'certificate': tls_client_ca is not set" in said
    assert "tls_certificate" in refused("serve", **ca)
    for name, what in (("TLS_CLIENT_CA", "certificate"), ("TLS_CLIENT_REVOCATIONS", "x509 crl")):
        said = refused("serve", *options, **ca | {f"MOORAGE_{name}": str(empty)})
        assert f"{name.lower()} = {str(empty)!r}: it holds no {what}" in said
    assert "cn, dns, email, uri" in refused("serve", *options, **ca, MOORAGE_TLS_CLIENT_NAME="serial")
    assert not (tmp_path / "root").exists()
