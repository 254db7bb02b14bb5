"""``moorage user``, ``key`` and ``access`` as real processes, and what a running server makes of them at once."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import httpx
import pytest

from tests.login import basic
from tests.server import Server, running
from tests.support import LAYER, digest_of

DIGEST = digest_of(LAYER)


@dataclass
class Commands:
    """Runs commands over one root."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, given: str = "", code: int = 0) -> str:
        """What a command prints; it must end with ``code``."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MOORAGE_")}
        done = subprocess.run(
            [sys.executable, "-m", "moorage", *words],
            env=environment | {"MOORAGE_ROOT": str(self.root)} | self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def moorage(tmp_path: Path) -> Commands:
    return Commands(tmp_path / "root")


def test_users(moorage: Commands, tmp_path: Path) -> None:
    """Users are added with a password from standard input or a file, listed, changed and removed."""
    moorage("user", "add", "alice", "--group", "dev", "-g", "ops", given="sesame\n")
    file = tmp_path / "password"
    file.write_text("open\n")
    moorage("user", "add", "bob", "--password-file", str(file))
    assert moorage("user", "list") == "alice dev ops\nbob\n"
    moorage("user", "groups", "alice")
    moorage("user", "groups", "bob", "dev")
    moorage("user", "passwd", "bob", given="other\n")
    moorage("user", "remove", "alice")
    assert moorage("user", "list") == "bob dev\n"


WRONG = {
    "a user twice": (("user", "add", "bob"), "the user bob is there already"),
    "a reserved name": (("user", "add", "local"), "'local' has a meaning of its own"),
    "no such user": (("user", "passwd", "eve"), "there is no user eve"),
    "no such file": (("user", "add", "eve", "--password-file", "/nowhere"), "/nowhere"),
    "no password": (("user", "add", "eve", "--password-file", "/dev/null"), "one character at least"),
    "no scope": (("key", "create", "ci"), "needs a scope"),
    "a scope without actions": (("key", "create", "ci", "--scope", "a/**"), "like team-a/**:pull,push"),
    "a wrong time": (("key", "create", "ci", "--scope", "a:pull", "--expires", "soon"), "like 90d"),
    "no such key": (("key", "revoke", "ci"), "there is no key ci"),
    "a wrong action": (("access", "allow", "bob", "fly", "**"), "action 'fly': allowed: pull, push"),
    "a wrong pattern": (("access", "deny", "bob", "pull", "A"), "repositories 'A': allowed"),
    "anonymous who pushes": (("access", "allow", "anonymous", "push", "**"), "may not be granted push"),
    "no such rule": (("access", "remove", "7"), "there is no rule 7"),
    "a wrong repository": (("access", "explain", "bob", "pull", "A"), "invalid repository name"),
    "memory": (("user", "list", "--config", "MEMORY"), "forgotten"),
}


def test_what_is_wrong_is_told(moorage: Commands, tmp_path: Path) -> None:
    """A mistake ends with 2 and one line that names it, and changes nothing."""
    moorage("user", "add", "bob", given="x\n")
    (tmp_path / "memory.toml").write_text('storage = "memory"\n')
    for what, (words, told) in WRONG.items():
        words = tuple(str(tmp_path / "memory.toml") if each == "MEMORY" else each for each in words)
        printed = moorage(*words, given="y\n", code=2)
        assert printed.startswith("moorage: "), what
        assert printed.count("\n") == 1, what
        assert told in printed, what
    assert "is not in the range" in moorage("access", "remove", "9" * 20, code=2)
    assert moorage("user", "list") == "bob\n"
    assert moorage("key", "list") == ""
    assert "default" in moorage("access", "list")


def test_passwords_are_never_arguments(moorage: Commands) -> None:
    """No command takes a password or a key as a word."""
    for words in (("user", "add"), ("user", "passwd"), ("key", "create")):
        assert not re.search(r"--(password|secret|key)\b(?!-)", moorage(*words, "--help"))
    moorage("user", "add", "alice", "sesame", code=2)


def test_keys(moorage: Commands) -> None:
    """A key is printed once, and listed by what it may do."""
    moorage("user", "add", "alice", given="x\n")
    scopes = ("--scope", "a/**:pull,push", "--scope", "b:pull")
    secret = moorage("key", "create", "ci", *scopes, "--expires", "1h").strip()
    moorage("key", "create", "laptop", "--as", "alice")
    first, second = moorage("key", "list").splitlines()
    assert re.fullmatch(r"ci; a/\*\*:pull,push; b:pull; expires 20\d\d-\d\d-\d\d \d\d:\d\d UTC; never used", first)
    assert second == "laptop; as alice; never expires; never used"
    assert secret not in first
    moorage("key", "revoke", "ci")
    moorage("user", "remove", "alice")
    assert moorage("key", "list") == ""


def test_explain(moorage: Commands, tmp_path: Path) -> None:
    """Each decision is explained by its rule, for whoever it may be; the exit code is the answer."""
    file = tmp_path / "htpasswd"
    file.write_text(f"carol:{bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}\n")
    moorage.environment = {
        "MOORAGE_AUTHENTICATION": "users,htpasswd,keys",
        "MOORAGE_HTPASSWD": str(file),
        "MOORAGE_RULES": json.dumps([{"who": ["@dev"], "repositories": ["{user}/**"], "allow": ["*"]}]),
    }
    moorage("user", "add", "alice", "-g", "dev", given="x\n")
    moorage("key", "create", "ci", "--scope", "team/**:push")
    moorage("key", "create", "laptop", "--as", "alice", "--scope", "**:pull")
    assert moorage("access", "allow", "anonymous,local", "pull", "public/**", "shared/*") == "rule 1\n"
    assert moorage("access", "deny", "alice", "delete", "**") == "rule 2\n"
    assert moorage("access", "list").splitlines() == [
        "allow @dev pull,push,create,retag,delete,catalog {user}/** (settings)",
        "allow anonymous,local pull public/**,shared/* (rule 1)",
        "deny alice delete ** (rule 2)",
    ]
    own = "allow @dev pull,push,create,retag,delete,catalog {user}/** (settings)"
    for words, allowed, why in (
        ("alice push alice/app", True, own),
        ("alice delete alice/app", False, "deny alice delete ** (rule 2)"),
        ("alice push bob/app", False, "no rule allows it"),
        ("carol pull shared/app", True, "allow anonymous,local pull public/**,shared/* (rule 1)"),
        ("carol push carol/app", False, "no rule allows it"),
        ("carol push carol/app --group dev", True, own),
        ("stranger pull shared/app", False, "no rule allows it"),
        ("stranger push stranger/x -g dev", True, own),
        ("anonymous pull public/app", True, "allow anonymous,local pull public/**,shared/* (rule 1)"),
        ("anonymous push public/app", False, "anonymous may pull and list at most"),
        ("key:ci push team/app", True, "granted by the key itself"),
        ("key:ci pull team/app", False, "outside the scope of the key"),
        ("key:laptop pull alice/app", True, own),
        ("key:laptop push alice/app", False, "outside the scope of the key"),
    ):
        told = moorage("access", "explain", *words.split(), code=0 if allowed else 1)
        assert told == f"{'allowed' if allowed else 'denied'}: {why}\n", words
    moorage("access", "explain", "key:nobody", "pull", "a", code=2)


@pytest.fixture
def server(moorage: Commands) -> Iterator[Server]:
    """A server of two workers with users, keys and one repository, beside which the commands run."""
    moorage.environment = {"MOORAGE_AUTHENTICATION": "users,keys"}
    moorage("user", "add", "alice", "-g", "dev", given="sesame\n")
    with running(moorage.root, "--workers", "2", **moorage.environment) as started:
        url = f"{started.url}/v2/team/app/blobs/uploads/?digest={DIGEST}"
        assert httpx.post(url, content=LAYER, headers=basic("alice", "sesame")).status_code == 201
        yield started
        assert "sesame" not in started.log
        assert "Traceback" not in started.log


def statuses(server: Server, headers: dict[str, str], path: str = f"team/app/blobs/{DIGEST}") -> set[int]:
    """What sixteen requests over connections of their own get: the kernel gives them to both workers."""

    def ask(_: int) -> int:
        return httpx.get(f"{server.url}/v2/{path}", headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(ask, range(16)))


def test_changes_take_effect_at_once_on_every_worker(moorage: Commands, server: Server) -> None:
    """Every change counts for the next request of whichever worker, also where it had remembered the opposite."""
    alice = basic("alice", "sesame")
    assert statuses(server, alice) == {200}
    assert statuses(server, {}) == {401}
    moorage("access", "allow", "bob", "pull", "team/**")
    assert statuses(server, alice) == {404}
    moorage("access", "allow", "@dev", "pull", "team/**")
    assert statuses(server, alice) == {200}
    moorage("user", "groups", "alice", "ops")
    assert statuses(server, alice) == {404}
    moorage("user", "groups", "alice", "dev")
    assert statuses(server, alice) == {200}
    moorage("access", "deny", "alice", "pull", "**/app")
    assert statuses(server, alice) == {404}
    moorage("access", "remove", "3")
    assert statuses(server, alice) == {200}
    moorage("user", "passwd", "alice", given="other\n")
    assert statuses(server, alice) == {401}
    alice = basic("alice", "other")
    assert statuses(server, alice) == {200}
    key = {"authorization": f"Bearer {moorage('key', 'create', 'laptop', '--as', 'alice').strip()}"}
    robot = basic("x", moorage("key", "create", "ci", "--scope", "team/*:pull").strip())
    assert statuses(server, key) == {200}
    assert statuses(server, robot) == {200}
    assert statuses(server, robot, "other/app/tags/list") == {404}
    moorage("key", "revoke", "ci")
    assert statuses(server, robot) == {401}
    moorage("user", "remove", "alice")
    assert statuses(server, alice) == {401}
    assert statuses(server, key) == {401}
    moorage("access", "allow", "anonymous", "pull", "team/**")
    assert statuses(server, {}) == {200}
    assert statuses(server, {}, "") == {401}


def test_last_use_is_listed(moorage: Commands, server: Server) -> None:
    """What a key did until the server ended is told."""
    key = moorage("key", "create", "ci", "--scope", "team/*:pull").strip()
    assert statuses(server, {"authorization": f"Bearer {key}"}) == {200}
    assert server.stop() == 0
    assert re.search(r"; used 20\d\d-", moorage("key", "list"))


def test_htpasswd(tmp_path: Path) -> None:
    """A server with an htpasswd file names what it cannot take, lets in the others, and follows the file."""
    file = tmp_path / "htpasswd"

    def line(name: str) -> str:
        return f"{name}:{bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode()}\n"

    file.write_text(f"{line('alice')}mark:$apr1$xyz\n")
    settings = {"MOORAGE_AUTHENTICATION": "htpasswd", "MOORAGE_HTPASSWD": str(file)}
    with running(tmp_path / "root", **settings) as server:
        assert f"{file}, line 2: 'mark' cannot log in: the password must be hashed with bcrypt" in server.log
        for name, status in (("alice", 200), ("mark", 401), ("bob", 401)):
            assert httpx.get(f"{server.url}/v2/", headers=basic(name, name)).status_code == status
        file.write_text(line("bob"))
        for name, status in (("bob", 200), ("alice", 401)):
            while httpx.get(f"{server.url}/v2/", headers=basic(name, name)).status_code != status:
                assert server.process
                assert server.process.poll() is None
    file.unlink()
    with pytest.raises(RuntimeError, match=r"ended with 2: moorage: htpasswd = .*No such file"):
        Server(tmp_path / "other", (), settings).start()
