"""``moorage health`` beside real servers: what a container's health check goes by."""

import signal
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.server import Server, running
from tests.test_cli import refused, run


def verdict(server: Server, tmp_path: Path, **environment: str) -> tuple[int, str]:
    """The exit code, and what is said; the port comes from a file, as an administrator would write one."""
    file = tmp_path / "moorage.toml"
    file.write_text(f"port = {server.port}\n")
    done = run("health", "--config", file, **{**server.environment, **environment})
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_health(tmp_path: Path) -> None:
    """0 as long as it answers, however a proxy is set; 1 and the reason when it hangs, or is gone."""
    with running(tmp_path / "root") as server:
        assert verdict(server, tmp_path) == (0, "")
        assert verdict(server, tmp_path, http_proxy="http://127.0.0.1:1") == (0, "")
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        assert verdict(server, tmp_path) == (1, f"moorage: {server.host}: timed out\n")
        server.process.send_signal(signal.SIGCONT)
        assert verdict(server, tmp_path) == (0, "")
    code, said = verdict(server, tmp_path)
    assert code == 1
    assert "refused" in said


@pytest.mark.parametrize("verify", ["optional", "required"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_health_with_tls(tmp_path: Path, host: str, verify: str) -> None:
    """A certificate of any name will do, and a server that wants one of its clients answers by refusing this one."""
    authority = Authority(tmp_path / "authority").make()
    pair = authority.server()
    environment = {
        "MOORAGE_HOST": host,
        "MOORAGE_TLS_CERTIFICATE": str(pair.certificate),
        "MOORAGE_TLS_KEY": str(pair.key),
        "MOORAGE_TLS_CLIENT_CA": str(authority.certificate),
        "MOORAGE_TLS_CLIENT_VERIFY": verify,
        "MOORAGE_AUTHENTICATION": "certificate",
    }
    with running(tmp_path / "root", **environment) as server:
        assert verdict(server, tmp_path) == (0, "")
    assert verdict(server, tmp_path)[0] == 1


def test_health_by_other_protocol(tmp_path: Path) -> None:
    """Whoever asks for HTTP where TLS is spoken is told that it is not well."""
    pair = Authority(tmp_path / "authority").make().server()
    with running(tmp_path / "root", "--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)) as server:
        code, said = verdict(server, tmp_path)
    assert code == 1
    assert "400" in said


def test_health_of_wrong_settings() -> None:
    """A setting that cannot be is 2, as with every command."""
    assert "MOORAGE_PORT" in refused("health", MOORAGE_PORT="x")
