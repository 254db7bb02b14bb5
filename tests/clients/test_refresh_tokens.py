"""docker keeps a refresh token instead of the password; other clients read it where docker wrote it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import Serve
from tests.clients.engines import Engines
from tests.clients.kit import Home, Layout
from tests.login import NAME, PASSWORD, logged_in
from tests.server import Serving

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def giving(scratch: Path, serve: Serve) -> Iterator[Serving]:
    """A registry that gives tokens."""
    folder = scratch / "giving"
    folder.mkdir()
    with serve("giving-registry", **logged_in(folder / "htpasswd", "tokens").settings) as server:
        yield server
        assert "mrt_" not in server.log


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in which nobody has logged in yet."""
    return Home(tmp_path / "home").prepare()


def test_docker_keeps_no_password(
    giving: Serving, engines: Engines, home: Home, image: Layout, tmp_path: Path
) -> None:
    """docker's login holds a refresh token that it and everybody else use again and again, until it is revoked."""
    reference, folder = f"{giving.host}/docker/kept:v1", tmp_path / "docker"
    config = str(folder)
    engines.docker("login", giving.host, "-u", NAME, "-p", PASSWORD, DOCKER_CONFIG=config)
    entry = json.loads((folder / "config.json").read_text())["auths"][giving.host]
    refresh = entry["identitytoken"]
    assert refresh.startswith("mrt_")
    assert PASSWORD not in base64.b64decode(entry["auth"]).decode()
    home("skopeo", "copy", f"oci:{image.root}:{image.tag}", f"docker-archive:{tmp_path}/image.tar:{reference}")
    engines.docker("load", "--input", tmp_path / "image.tar")
    try:
        for _ in range(2):
            engines.docker("push", reference, DOCKER_CONFIG=config)
            engines.docker("rmi", "--force", reference)
            engines.docker("pull", reference, DOCKER_CONFIG=config)
        auth = {"DOCKER_CONFIG": config, "REGISTRY_AUTH_FILE": str(folder / "config.json")}
        for command in (
            ("crane", "digest", reference),
            ("oras", "manifest", "fetch", "--plain-http", reference),
            ("skopeo", "inspect", "--tls-verify=false", f"docker://{reference}"),
            ("podman", "pull", "--tls-verify=false", reference),
            ("regctl", "--host", f"reg={giving.host},tls=disabled", "manifest", "head", reference),
        ):
            home(*command, environment=auth)
        assert json.loads((folder / "config.json").read_text())["auths"][giving.host]["identitytoken"] == refresh
        assert giving.command("token", "revoke", NAME) == "1 logins revoked\n"
        engines.docker("rmi", "--force", reference)
        refused = engines.docker("pull", reference, check=False, DOCKER_CONFIG=config)
        assert "log in again" in refused.text
        for command in (("crane", "digest", reference), ("oras", "manifest", "fetch", "--plain-http", reference)):
            refused = home(*command, environment=auth, check=False)
            assert "log in again" in refused.text
    finally:
        engines.docker("rmi", "--force", reference, check=False)
