"""HTTPS by certificate and key from files: what is spoken, what is refused, and how the files are taken anew."""

import shutil
import signal
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest

from moorage.settings import Settings, SettingsError
from moorage.tls import ReloadedContext
from tests.certificates import Authority, Pair
from tests.server import Server, running
from tests.support import LAYER, digest_of, eventually
from tests.test_cli import refused

DIGEST = digest_of(LAYER)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.server()


def options(pair: Pair) -> tuple[str, ...]:
    return ("--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pair: Pair) -> Iterator[Server]:
    """One server with TLS, for the tests that do not change its files."""
    with running(tmp_path_factory.mktemp("tls"), *options(pair), MOORAGE_LOCATION="absolute") as started:
        yield started
        assert "Traceback" not in started.log, started.log


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


def handshake(server: Server, context: ssl.SSLContext) -> tuple[ssl.SSLSocket, dict[str, object]]:
    """A connection, and the certificate that the server showed."""
    plain = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    secure = context.wrap_socket(plain, server_hostname="localhost")
    return secure, dict(secure.getpeercert() or {})


def ask(connection: ssl.SSLSocket) -> bytes:
    """What is answered to a request; the connection stays open."""
    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while not received.endswith(b"{}"):
        received += connection.recv(1000)
    return received


def serial(server: Server, authority: Authority) -> int:
    connection, shown = handshake(server, trusting(authority))
    connection.close()
    return int(str(shown["serialNumber"]), 16)


def test_push_and_pull(server: Server, authority: Authority) -> None:
    """A client that trusts the authority pushes and pulls; the first line and absolute locations say https."""
    assert server.url == f"https://127.0.0.1:{server.port}"
    with httpx.Client(base_url=server.url, verify=trusting(authority)) as client:
        content = bytes(range(256)) * 40_000
        digest = digest_of(content)
        started = client.post("/v2/a/blobs/uploads/")
        assert started.headers["location"].startswith(f"{server.url}/v2/a/blobs/uploads/")
        assert client.put(started.headers["location"], params={"digest": digest}, content=content).status_code == 201
        assert client.get(f"/v2/a/blobs/{digest}").content == content


def test_distrust(server: Server) -> None:
    """A client that does not know the authority does not go on."""
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"{server.url}/v2/")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(server: Server, authority: Authority, version: ssl.TLSVersion) -> None:
    """TLS 1.2 and 1.3 are spoken, with forward secrecy and authenticated encryption; ALPN says HTTP/1.1."""
    context = trusting(authority)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    connection, _ = handshake(server, context)
    with connection:
        assert connection.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
        assert connection.selected_alpn_protocol() == "http/1.1"
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0].startswith(("ECDHE-", "TLS_"))
        assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.parametrize("what", ["TLS 1.1", "a cipher without forward secrecy", "CBC"])
def test_what_is_not_spoken(server: Server, authority: Authority, what: str) -> None:
    """Old versions and ciphers get no connection."""
    context = trusting(authority)
    if what == "TLS 1.1":
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
    else:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AES256-GCM-SHA384" if what.startswith("a cipher") else "ECDHE-ECDSA-AES256-SHA384")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(server, context)


def test_plain_http_on_the_port(server: Server, authority: Authority) -> None:
    """Plain HTTP is told in its own language that HTTPS is spoken here."""
    said = httpx.get(f"http://{server.host}/v2/")
    assert (said.status_code, said.text) == (400, "this port speaks HTTPS, not HTTP")
    assert httpx.get(f"{server.url}/v2/", verify=trusting(authority)).status_code == 200


def test_no_tls_on_the_port(server: Server, authority: Authority) -> None:
    """What is neither gets no answer, and nothing breaks."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\0" * 100)
        with suppress(ConnectionResetError):
            assert b"HTTP" not in connection.recv(1000)
    assert httpx.get(f"{server.url}/v2/", verify=trusting(authority)).status_code == 200


@pytest.mark.parametrize("workers", [1, 3])
def test_reload(tmp_path: Path, authority: Authority, pair: Pair, workers: int) -> None:
    """On SIGHUP every worker takes the files anew: a broken pair is logged and not used, a right one is."""
    live = Pair(tmp_path / "live.pem", tmp_path / "live.key", pair.serial)
    shutil.copy(pair.certificate, live.certificate)
    shutil.copy(pair.key, live.key)
    following = authority.server("following")
    with running(tmp_path / "root", *options(live), "--workers", str(workers)) as server:
        assert server.process is not None
        shutil.copy(following.certificate, live.certificate)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count("those before stay in use") >= workers, "each worker says what is wrong")
        assert str(live.key) in server.log
        assert {serial(server, authority) for _ in range(10)} == {pair.serial}
        shutil.copy(following.key, live.key)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count("read anew") >= workers, "each worker reads the files")
        assert {serial(server, authority) for _ in range(20)} == {following.serial}
        assert server.stop() == 0


def test_connections_outlive_a_reload(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A connection that is open goes on when the certificate changes."""
    live = Pair(tmp_path / "live.pem", tmp_path / "live.key", pair.serial)
    shutil.copy(pair.certificate, live.certificate)
    shutil.copy(pair.key, live.key)
    following = authority.server("next")
    with running(tmp_path / "root", *options(live)) as server:
        connection, _ = handshake(server, trusting(authority))
        with connection:
            assert ask(connection).startswith(b"HTTP/1.1 200 ")
            shutil.copy(following.key, live.key)
            shutil.copy(following.certificate, live.certificate)
            # Nobody sends a signal: the server looks by itself.
            eventually(lambda: serial(server, authority) == following.serial, "the new certificate", 20)
            assert ask(connection).startswith(b"HTTP/1.1 200 ")


def test_idle_connections_do_not_hold_the_end(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Neither an idle connection nor one without a handshake delays the end."""
    with running(tmp_path, *options(pair), MOORAGE_DRAIN_TIMEOUT="30") as server:
        idle, _ = handshake(server, trusting(authority))
        with idle, socket.create_connection(("127.0.0.1", server.port)):
            assert server.stop(15) == 0


def test_following_links(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Files that are links to a folder that is swapped, as Kubernetes mounts secrets, are taken anew."""
    for name, each in (("one", pair), ("two", authority.server("swapped"))):
        (tmp_path / name).mkdir()
        shutil.copy(each.certificate, tmp_path / name / "tls.crt")
        shutil.copy(each.key, tmp_path / name / "tls.key")
    (tmp_path / "data").symlink_to("one")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"data/{name}")
    settings = Settings(tls_certificate=str(tmp_path / "tls.crt"), tls_key=str(tmp_path / "tls.key"))
    context = ReloadedContext.of(settings)
    first = context.current
    context.reload()
    assert context.current is first
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(tmp_path / "data")
    context.reload()
    assert context.current is not first


def of(**settings: str | Path) -> Settings:
    return msgspec.convert({name: str(value) for name, value in settings.items()}, Settings)


def wrong(**settings: str | Path) -> str:
    with pytest.raises(SettingsError) as caught:
        ReloadedContext.of(of(**settings))
    return str(caught.value)


def test_what_is_wrong_with_the_files(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Each mistake names the setting, the file and what is allowed."""
    other = authority.server("other")
    text = tmp_path / "text.pem"
    text.write_text("no certificate\n")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    absent = tmp_path / "absent.pem"
    both = {"tls_certificate": pair.certificate, "tls_key": pair.key}
    told = {
        wrong(**both | {"tls_certificate": absent}): (absent, "No such file", "a PEM file with a certificate"),
        wrong(**both | {"tls_key": absent}): (absent, "tls_key", "No such file", "a PEM file with a private key"),
        wrong(**both | {"tls_certificate": tmp_path}): (tmp_path, "Is a directory"),
        wrong(**both | {"tls_certificate": text}): (text, "it holds no certificate"),
        wrong(**both | {"tls_certificate": broken}): (broken, "cannot be read"),
        wrong(**both | {"tls_key": text}): (text, "it holds no private key"),
        wrong(**both | {"tls_key": other.key}): ("tls_key", other.key, "not the key of the first certificate"),
        wrong(tls_certificate=pair.certificate): ("it holds no key", "tls_key"),
    }
    for message, parts in told.items():
        assert "allowed: " in message
        for part in parts:
            assert str(part) in message


def test_one_file_with_both(tmp_path: Path, pair: Pair) -> None:
    """The key may stand in the certificate's file."""
    both = tmp_path / "both.pem"
    both.touch(0o600)
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    ReloadedContext.of(Settings(tls_certificate=str(both)))


def test_encrypted_key(authority: Authority) -> None:
    """An encrypted key wants its password, and nobody is asked for it on a terminal."""
    locked = authority.server("locked", password="open sesame")
    files = {"tls_certificate": locked.certificate, "tls_key": locked.key}
    assert "it is encrypted; allowed: a key that is not, or tls_key_password" in wrong(**files)
    said = wrong(**files, tls_key_password="open barley")
    assert "cannot be read with this tls_key_password" in said
    assert "barley" not in said
    ReloadedContext.of(of(**files, tls_key_password="open sesame"))


def test_open_key_is_told(caplog: pytest.LogCaptureFixture, authority: Authority) -> None:
    """A key that others may read is used, with a warning; one that its group may read is not worth one."""
    pair = authority.server("open")
    settings = Settings(tls_certificate=str(pair.certificate), tls_key=str(pair.key))
    pair.key.chmod(0o640)
    ReloadedContext.of(settings)
    assert caplog.messages == []
    pair.key.chmod(0o644)
    ReloadedContext.of(settings)
    (told,) = caplog.messages
    assert str(pair.key) in told
    assert "chmod 600" in told


def test_start_is_refused(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """A mistake stops the start with 2, and nothing is made."""
    root = tmp_path / "root"
    said = refused("serve", "--root", root, *options(Pair(pair.certificate, authority.server("x").key, 0)))
    assert said.startswith("moorage: tls_key = ")
    assert "tls_certificate" in refused("serve", "--root", root, "--tls-key", pair.key)
    assert not root.exists()


BEYOND = {
    "TLS": (("tls",), {}, ()),
    "a proxy": ((), {"MOORAGE_TRUSTED_PROXIES": "192.0.2.1"}, ()),
    "the option": (("--insecure-http",), {}, ("others on the network can read and change",)),
    "the setting": ((), {"MOORAGE_INSECURE_HTTP": "true"}, ("others on the network can read and change",)),
}


@pytest.mark.parametrize("how", BEYOND)
def test_beyond_loopback(tmp_path: Path, authority: Authority, pair: Pair, how: str) -> None:
    """Beyond loopback a server starts with TLS, behind a declared proxy, or where plain HTTP is asked for."""
    arguments, environment, said = BEYOND[how]
    arguments = options(pair) if arguments == ("tls",) else arguments
    with running(tmp_path, "--host", "0.0.0.0", *arguments, MOORAGE_OPEN_ACCESS="true", **environment) as server:
        scheme = "https" if how == "TLS" else "http"
        assert server.url == f"{scheme}://localhost:{server.port}"
        assert httpx.get(f"{server.url}/v2/", verify=trusting(authority)).status_code == 200
        assert ("plain HTTP on" in server.log) == bool(said)
        for each in said:
            assert each in server.log


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_plain_http_beyond_loopback_is_refused(tmp_path: Path, host: str) -> None:
    """Plain HTTP beyond loopback has to be asked for; the message says by which settings."""
    said = refused("serve", "--root", tmp_path / "root", "--host", host)
    assert said.startswith(f"moorage: host = {host!r}: ")
    for word in ("allowed: ", "loopback", "tls_certificate", "trusted_proxies", "insecure_http"):
        assert word in said
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3"])
def test_plain_http_on_loopback(tmp_path: Path, host: str) -> None:
    """On loopback plain HTTP needs no setting."""
    with running(tmp_path, "--host", host) as server:
        assert httpx.get(f"{server.url}/v2/").status_code == 200
