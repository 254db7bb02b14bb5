"""Tokens of a real server: two workers, commands beside it, what is imported, and settings that cannot be."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from moorage import Settings, SettingsError, create_app
from moorage.config import load
from moorage.issuer_settings import IdentityRule, IssuerSetting
from tests.server import Server, running
from tests.support import eventually

TOKEN = "/v2/token"
SCOPE = "repository:team/app:pull,push"
PATH = "/v2/team/app/tags/list"


def moorage(root: Path, *arguments: str, text: str = "") -> str:
    """What a command prints; it must end well."""
    command = [sys.executable, "-m", "moorage", *arguments, "--root", str(root)]
    ended = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers that give tokens to alice."""
    moorage(tmp_path, "user", "add", "alice", text="right\n")
    with running(tmp_path, "--workers", "2", MOORAGE_AUTHENTICATION="tokens,users,keys") as found:
        yield found
        assert "Traceback" not in found.log, found.log


def statuses(server: Server, token: str, path: str = "/v2/", n: int = 12) -> set[int]:
    """What several connections, and so both workers, answer."""
    headers = {"authorization": f"Bearer {token}"}
    return {httpx.get(f"{server.url}{path}", headers=headers, trust_env=False).status_code for _ in range(n)}


def login(server: Server, name: str = "alice", password: str = "right") -> dict[str, Any]:
    """What docker gets at its login."""
    query = {"service": "moorage", "scope": SCOPE, "offline_token": "true"}
    response = httpx.get(f"{server.url}{TOKEN}", params=query, auth=(name, password), trust_env=False)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refresh(server: Server, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "scope": SCOPE}
    return httpx.post(f"{server.url}{TOKEN}", data=form, trust_env=False)


def test_two_workers(server: Server) -> None:
    """A token of one worker is good at the other, also after a rotation and a restart."""
    tokens = [login(server)["token"] for _ in range(6)]
    assert {status for token in tokens for status in statuses(server, token)} == {200}
    kid = moorage(server.root, "token", "rotate-key").removeprefix("key ").strip()
    fresh = login(server)["token"]
    assert jwt.get_unverified_header(fresh)["kid"] == kid
    assert statuses(server, fresh) == {200}
    assert statuses(server, tokens[0]) == {200}
    listed = moorage(server.root, "token", "keys").splitlines()
    assert listed[0].startswith(f"{kid} EdDSA; ")
    assert [line.rpartition("; ")[2].split()[0] for line in listed] == ["signs", "verifies"]
    assert server.stop() == 0
    server.start()
    assert statuses(server, tokens[0]) == statuses(server, fresh) == {200}


def test_rotation_at_once(server: Server) -> None:
    """With --now every token of an earlier key ends on every worker within a moment; refresh tokens go on."""
    given = login(server)
    assert statuses(server, given["token"]) == {200}
    moorage(server.root, "token", "rotate-key", "--now")
    eventually(lambda: statuses(server, given["token"]) == {401}, "the end of the token")
    fresh = refresh(server, given["refresh_token"]).json()["token"]
    assert statuses(server, fresh) == {200}


def test_removed_user(server: Server) -> None:
    """Whoever is removed, or gets another password, is not let in any more, whatever he was given before."""
    given = login(server)
    assert statuses(server, given["token"]) == {200}
    moorage(server.root, "user", "passwd", "alice", text="other\n")
    assert statuses(server, given["token"]) == {401}
    assert refresh(server, given["refresh_token"]).status_code == 401
    given = login(server, password="other")
    assert statuses(server, given["token"]) == {200}
    moorage(server.root, "user", "remove", "alice")
    assert statuses(server, given["token"]) == {401}
    assert refresh(server, given["refresh_token"]).status_code == 401


def test_changed_rule(server: Server) -> None:
    """A rule that is added holds for tokens that were given before, on every worker."""
    given = login(server)
    headers = {"authorization": f"Bearer {given['token']}"}
    opened = httpx.post(f"{server.url}/v2/team/app/blobs/uploads/", headers=headers, trust_env=False)
    assert opened.status_code == 202
    moorage(server.root, "access", "deny", "alice", "push", "team/**")
    assert statuses(server, given["token"]) == {200}
    for _ in range(8):
        response = httpx.post(f"{server.url}/v2/team/app/blobs/uploads/", headers=headers, trust_env=False)
        assert response.status_code == 403


def test_revoked_logins(server: Server) -> None:
    """The command ends every refresh token of a user, and nobody else's."""
    moorage(server.root, "user", "add", "bob", text="right\n")
    given = [login(server)["refresh_token"] for _ in range(3)]
    kept = login(server, "bob")["refresh_token"]
    assert moorage(server.root, "token", "revoke", "alice") == "3 logins revoked\n"
    assert {refresh(server, token).status_code for token in given} == {401}
    assert refresh(server, kept).status_code == 200


def test_api_key(server: Server) -> None:
    """A key gets tokens for what it may do, which end with it; it may do with them no more than without."""
    key = moorage(server.root, "key", "create", "ci", "--scope", "team/**:pull,push").strip()
    for name in ("alice", "other"):
        own = moorage(server.root, "key", "create", name, "--as", "alice", "--scope", "team/**:pull").strip()
        given = login(server, "whoever", own)
        assert given["scope"] == "repository:team/app:pull"
        refused = httpx.post(
            f"{server.url}/v2/team/app/blobs/uploads/",
            headers={"authorization": f"Bearer {given['token']}"},
            trust_env=False,
        )
        assert refused.status_code == 403
    assert statuses(server, key) == {200}  # also as a bearer token, which is of another form
    given = login(server, "ci", key)
    assert statuses(server, given["token"]) == {200}
    assert statuses(server, given["token"], "/v2/other/app/tags/list") == {404}  # no other token would help
    assert refresh(server, given["refresh_token"]).status_code == 200
    moorage(server.root, "key", "revoke", "ci")
    assert statuses(server, given["token"]) == {401}
    assert refresh(server, given["refresh_token"]).status_code == 401


def test_nothing_is_imported_where_tokens_are_off() -> None:
    """The libraries of tokens cost their time and memory only where tokens are on."""
    look = "import sys; print([n for n in ('jwt', 'cryptography', 'urllib.request') if n in sys.modules])"
    for settings, found in (
        ("authentication=['users', 'keys']", "[]"),
        ("authentication=['tokens']", "['jwt', 'cryptography', 'urllib.request']"),
    ):
        code = f"import moorage.server; from moorage import create_app; create_app({settings}); {look}"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ended.stdout.strip() == found


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_missing_libraries(missing: str) -> None:
    """A start without the libraries says what to install."""
    code = (
        "import sys; from moorage import create_app, SettingsError; "
        f"sys.modules[{missing!r}] = None\n"
        "try: create_app(authentication=['tokens'])\nexcept SettingsError as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "moorage[tokens]" in ended.stdout
    assert missing in ended.stdout


GOOD: dict[str, Any] = {
    "issuer": "https://a.test",
    "audience": ["b"],
    "identities": [{"claims": {"sub": "*"}, "identity": "x"}],
}


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        (GOOD | {"audience": []}, "audience"),
        (GOOD | {"identities": []}, "identities"),
        (GOOD | {"identities": [{"claims": {}, "identity": "x"}]}, "claims"),
        (GOOD | {"identities": [{"claims": {"sub": 1}, "identity": "x"}]}, "claims"),
        (GOOD | {"issuer": "gitlab"}, "keys"),
        (GOOD | {"issuer": "http://a.test"}, "https://"),
        (GOOD | {"keys": "http://a.test/keys"}, "https://"),
        (GOOD | {"keys": "ftp://a.test/keys"}, "https://"),
        (GOOD | {"access": "all"}, "access"),
        (GOOD | {"kyes": "x"}, "kyes"),
        ({"issuer": "https://a.test"}, "audience"),
    ],
    ids=str,
)
def test_issuers_that_cannot_be(entry: dict[str, Any], named: str) -> None:
    """What is wrong with an issuer stops the start, and is named."""
    arguments = {"authentication": ["issuers"], "issuers": [entry]}
    with pytest.raises(SettingsError, match=named):
        load(arguments=arguments)
    load(arguments=arguments | {"issuers": [GOOD]})


def test_issuers_and_authentication_go_together() -> None:
    """Issuers that nobody asks, and asking without any, are mistakes; so is a realm beside one's own tokens."""
    for arguments in (
        {"issuers": [GOOD]},
        {"authentication": ["issuers"]},
        {"authentication": ["issuers"], "issuers": [GOOD, GOOD]},
        {"authentication": ["issuers", "tokens"], "issuers": [GOOD | {"realm": "https://a.test/token"}]},
    ):
        with pytest.raises(SettingsError, match="issuers"):
            load(arguments=arguments)


async def test_issuers_in_the_environment() -> None:
    """Issuers can be given as JSON."""
    settings = load(environment={"MOORAGE_ISSUERS": json.dumps([GOOD]), "MOORAGE_AUTHENTICATION": "issuers"})
    expected = IssuerSetting("https://a.test", ["b"], identities=[IdentityRule({"sub": "*"}, "x")])
    assert settings == Settings(authentication=["issuers"], issuers=[expected])
    await create_app(settings=settings).aclose()
