"""Every client logs in by name and password or by an API key, and is told what is wrong when it may not.

All of it against a registry that takes both with each request, and against one that gives tokens for them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from tests.clients.conftest import Serve
from tests.clients.engines import Engines
from tests.clients.kit import Done, Home, Layout
from tests.clients.login import CLIENTS, UNCHECKED
from tests.login import NAME, PASSWORD
from tests.server import Serving

pytestmark = pytest.mark.clients

READER = "reader"
RULES = [
    {"who": [NAME], "repositories": ["**"], "allow": ["*"]},
    {"who": [READER], "repositories": ["**"], "allow": ["pull", "catalog"]},
]
REFUSED = ("unauthorized", "authentication required", "401", "credential not found")
DENIED = ("denied", "403")


@dataclass(frozen=True)
class Guarded:
    """A server that asks who one is; ``key`` may do everything below ``keys``."""

    server: Serving
    key: str

    @property
    def host(self) -> str:
        return self.server.host


@pytest.fixture(scope="module", params=["basic", "tokens"])
def guarded(request: pytest.FixtureRequest, scratch: Path, serve: Serve) -> Iterator[Guarded]:
    folder = scratch / f"guarded-{request.param}"
    folder.mkdir()
    file = folder / "htpasswd"
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    file.write_text(f"{NAME}:{hashed}\n{READER}:{hashed}\n")
    settings = {
        "MOORAGE_AUTHENTICATION": f"{'tokens,' * (request.param == 'tokens')}htpasswd,keys",
        "MOORAGE_HTPASSWD": str(file),
        "MOORAGE_RULES": json.dumps(RULES),
    }
    with serve(f"guarded-{request.param}-registry", **settings) as server:
        key = server.command("key", "create", "ci", "--scope", "keys/**:*").strip()
        yield Guarded(server, key)
        assert PASSWORD not in server.log
        assert key not in server.log


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home in which nobody has logged in yet."""
    return Home(tmp_path / "home").prepare()


def said(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text.lower() for word in words)


@pytest.mark.parametrize("name", CLIENTS)
def test_login_push_and_pull(guarded: Guarded, home: Home, image: Layout, tmp_path: Path, name: str) -> None:
    """With the right password everything that was granted goes well; before, it is refused."""
    client, reference = CLIENTS[name], f"{guarded.host}/login/{name}:v1"
    assert said(client.push(home, reference, image, tmp_path, False).text, REFUSED)
    client.login(home, guarded.host, NAME, PASSWORD, True)
    client.push(home, reference, image, tmp_path, True)
    client.pull(home, reference, tmp_path, True)


@pytest.mark.parametrize("name", CLIENTS)
def test_wrong_password(guarded: Guarded, home: Home, image: Layout, tmp_path: Path, name: str) -> None:
    """A wrong password, or one of nobody, is told by the client that tried it."""
    client, reference = CLIENTS[name], f"{guarded.host}/wrong/{name}:v1"
    for user, password in ((NAME, "guess"), ("nobody", PASSWORD)):
        done = client.login(home, guarded.host, user, password, False)
        if name in UNCHECKED:
            done = client.push(home, reference, image, tmp_path, False)
        assert said(done.text, (*REFUSED, "wrong name or password", "invalid username/password")), done.text


@pytest.mark.parametrize("name", CLIENTS)
def test_api_key(guarded: Guarded, home: Home, image: Layout, tmp_path: Path, name: str) -> None:
    """An API key is a password of any name; outside its scope it is refused."""
    client = CLIENTS[name]
    client.login(home, guarded.host, "ci", guarded.key, True)
    client.push(home, f"{guarded.host}/keys/{name}:v1", image, tmp_path, True)
    client.pull(home, f"{guarded.host}/keys/{name}:v1", tmp_path, True)
    refused = client.push(home, f"{guarded.host}/other/{name}2:v1", image, tmp_path, False)
    assert said(refused.text, DENIED), refused.text


@pytest.mark.parametrize("name", CLIENTS)
def test_who_may_only_read(guarded: Guarded, home: Home, image: Layout, tmp_path: Path, name: str) -> None:
    """Whoever may only pull does so, and is told that a push is denied."""
    client, reference = CLIENTS[name], f"{guarded.host}/shared/{name}:v1"
    client.login(home, guarded.host, NAME, PASSWORD, True)
    client.push(home, reference, image, tmp_path, True)
    client.login(home, guarded.host, READER, PASSWORD, True)
    client.pull(home, reference, tmp_path, True)
    denied = client.push(home, f"{guarded.host}/shared/{name}2:v1", image, tmp_path, False)
    assert said(denied.text, DENIED), denied.text


def test_docker(guarded: Guarded, engines: Engines, image: Layout, home: Home, tmp_path: Path) -> None:
    """docker logs in, pushes and pulls; with a wrong password or none it says so."""
    reference, folder = f"{guarded.host}/docker/image:v1", str(tmp_path / "docker")

    def docker(*arguments: str | Path, check: bool = True) -> Done:
        return engines.docker(*arguments, check=check, DOCKER_CONFIG=folder)

    home("skopeo", "copy", f"oci:{image.root}:{image.tag}", f"docker-archive:{tmp_path}/image.tar:{reference}")
    docker("load", "--input", tmp_path / "image.tar")
    try:
        refused = docker("push", reference, check=False)
        assert said(refused.text, ("no basic auth credentials", *REFUSED)), refused.text
        wrong = docker("login", guarded.host, "-u", NAME, "-p", "guess", check=False)
        assert said(wrong.text, REFUSED), wrong.text
        assert "Login Succeeded" in docker("login", guarded.host, "-u", NAME, "-p", PASSWORD).out
        docker("push", reference)
        docker("rmi", "--force", reference)
        docker("pull", reference)
        docker("logout", guarded.host)
        docker("rmi", "--force", reference)
        assert said(docker("pull", reference, check=False).text, ("no basic auth", *REFUSED))
    finally:
        docker("rmi", "--force", reference, check=False)


def test_containerd(guarded: Guarded, engines: Engines, image: Layout, home: Home) -> None:
    """containerd takes name and password with the pull."""
    reference = f"{guarded.host}/containerd/image:v1"
    CLIENTS["crane"].login(home, guarded.host, NAME, PASSWORD, True)
    home("crane", "push", image.root, reference)
    pull = ("images", "pull", "--plain-http", "--snapshotter", "native")
    try:
        engines.ctr(*pull, "--user", f"{READER}:{PASSWORD}", reference)
        assert image.digest in engines.ctr("images", "list").out
        for options in ((), ("--user", f"{READER}:guess")):
            assert said(engines.ctr(*pull, *options, reference, check=False).text, REFUSED)
    finally:
        engines.ctr("images", "remove", reference, check=False)
