"""No secret in a log, an answer, an error, the list of processes or help, whatever goes wrong."""

import base64
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
import httpx
import pytest

from moorage.auth.keys import make_key
from moorage.settings import SECRETS
from tests.certificates import Authority
from tests.login import basic
from tests.server import Server
from tests.support import connect, eventually

HERE = Path(__file__).parents[1]


@dataclass
class Secrets:
    """Everything that nobody shall read, by what it is."""

    known: dict[str, str] = field(default_factory=dict)

    def make(self, what: str, value: str | None = None) -> str:
        """A new secret, or ``value`` as one."""
        self.known[what] = value or f"hush-{what.replace(' ', '-')}-7f3a9c"
        return self.known[what]

    def assert_not_in(self, text: str, where: str) -> None:
        """Neither as it is nor as it is sent."""
        for what, secret in self.known.items():
            forms = {secret, base64.b64encode(secret.encode()).decode().rstrip("=")}
            assert not [form for form in forms if form in text], f"{what} is in {where}"


def run(*words: str, given: str = "", environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "moorage", *words],
        env=clean | {"COLUMNS": "200"} | dict(environment),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def command_lines(server: Server) -> str:
    """What everybody on the machine can read of the server and its workers."""
    assert server.process is not None
    group = server.process.pid
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                found += [(process / name).read_bytes().decode("latin-1") for name in ("cmdline", "comm", "stat")]
        except OSError:
            continue
    assert len(found) >= 9, "the server, two workers"
    return "\n".join(found)


def test_nothing_is_told(tmp_path: Path) -> None:
    """A server with every kind of secret fails in many ways at the loudest log level, and tells none of them."""
    secrets = Secrets()
    authority = Authority(tmp_path / "authority").make()
    pair = authority.server("server", password=secrets.make("password of the key"))
    for number, line in enumerate(pair.key.read_text().splitlines()[1:-1]):
        secrets.make(f"line {number} of the key", line)
    htpasswd = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(secrets.make("password of alice").encode(), bcrypt.gensalt(4)).decode()
    htpasswd.write_text(f"alice:{secrets.make('hash of alice', hashed)}\n")
    root = tmp_path / "root"
    environment = {
        "MOORAGE_ROOT": str(root),
        "MOORAGE_AUTHENTICATION": "htpasswd,users,keys",
        "MOORAGE_HTPASSWD": str(htpasswd),
        "MOORAGE_LOG_LEVEL": "debug",
        "MOORAGE_TLS_CERTIFICATE": str(pair.certificate),
        "MOORAGE_TLS_KEY": str(pair.key),
        "MOORAGE_TLS_KEY_PASSWORD": secrets.known["password of the key"],
        "MOORAGE_WORKERS": "2",
        "AWS_SECRET_ACCESS_KEY": secrets.make("secret of a bucket"),
        "PGPASSWORD": secrets.make("password of a database"),
    }
    done = run("user", "add", "bob", given=secrets.make("password of bob") + "\n", environment=environment)
    assert done.returncode == 0, done.stderr
    secrets.assert_not_in(done.stdout + done.stderr, "what user add prints")
    done = run("key", "create", "ci", "--as", "bob", environment=environment)
    made = re.search(r"moorage_\w+", done.stdout)
    assert made, done
    secrets.make("API key", made[0])
    secrets.assert_not_in(run("key", "list", environment=environment).stdout, "the list of keys")
    secrets.assert_not_in(run("user", "list", environment=environment).stdout, "the list of users")
    server = Server(root, (), environment).start()
    try:
        secrets.assert_not_in(command_lines(server), "the list of processes")
        answers = "".join(_torment(server, authority, secrets))
        pair.key.write_text(pair.key.read_text()[:200])
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "those before stay in use" in server.log, "the broken key is noticed")
        htpasswd.write_text(f"alice:{secrets.make('plain text of alice')}\n")
        eventually(
            lambda: _login(server, authority, "alice", "x") and "cannot log in" in server.log,
            "the broken file is noticed",
        )
        for file in root.glob("moorage.db*"):  # what is behind the server breaks
            file.write_bytes(b"broken" * 1000)
        answers += "".join(_torment(server, authority, secrets))
        server.stop()
        secrets.assert_not_in(answers, "an answer")
        secrets.assert_not_in(server.log, "the log")
        assert "Traceback" in server.log, "something failed that nobody foresaw"
    finally:
        server.kill()


def _login(server: Server, authority: Authority, name: str, password: str, path: str = "/v2/") -> str:
    import ssl

    context = ssl.create_default_context(cafile=str(authority.certificate))
    answer = httpx.get(f"{server.url}{path}", headers=basic(name, password), verify=context)
    return f"{answer.status_code} {answer.headers} {answer.text}"


def _torment(server: Server, authority: Authority, secrets: Secrets) -> list[str]:
    """What is answered to logins right and wrong, to secrets where they do not belong, and to worse."""
    import ssl

    context = ssl.create_default_context(cafile=str(authority.certificate))
    found = [
        _login(server, authority, name, password, path)
        for name in ("alice", "bob", "nobody")
        for password in [*secrets.known.values(), make_key()][:12]
        for path in ("/v2/", "/v2/a/tags/list", "/nowhere")
    ]
    for secret in [*secrets.known.values()][:12]:
        for header in (f"Bearer {secret}", f"Basic {secret}", f"Digest {secret}", secret, f"Basic {secret}:"):
            with httpx.Client(base_url=server.url, verify=context, headers={"authorization": header}) as client:
                for method, path in (("GET", "/v2/"), ("POST", "/v2/a/blobs/uploads/"), ("PUT", "/v2/a/manifests/x")):
                    answer = client.request(method, path, content=b"{")
                    found.append(f"{answer.status_code} {answer.headers} {answer.text}")
    # What is not HTTP, with a secret amid it; and what is no TLS.
    for secret in [*secrets.known.values()][:12]:
        for noise in (f"GET /v2/ HTTP/1.1\r\nAuthorization : Basic {secret}\r\n\r\n", f"{secret}\r\n\r\n"):
            with connect(server.url) as plain:
                plain.sendall(noise.encode())
            with connect(server.url) as plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(noise.encode())
                found.append(secure.recv(65536).decode("latin-1"))
    return found


COMMANDS = [
    ("--help",),
    ("serve", "--help"),
    ("check", "--help"),
    ("user", "add", "--help"),
    ("key", "create", "--help"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help(words: tuple[str, ...]) -> None:
    """Help shows no value of the environment."""
    secrets = Secrets()
    environment = {f"MOORAGE_{name.upper()}": secrets.make(name) for name in SECRETS}
    assert environment
    done = run(*words, environment=environment)
    assert done.returncode == 0
    secrets.assert_not_in(done.stdout + done.stderr, "help")


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_wrong_settings(tmp_path: Path, name: str) -> None:
    """Whatever is wrong beside it or with it, a secret setting is not told."""
    secrets = Secrets()
    value = secrets.make(name)
    file = tmp_path / "moorage.toml"
    for text in (
        f'{name} = ["{value}"]',
        f'{name} = "{value}"\ntls_key = "/absent"',
        f'{name} = "{value}"\nport = "x"',
        f'{name} = "{value}"\n{name}_file = "x"',
        f'{name} = "{value}',
        f'{name} = "{value}"\ntls_certificate = "{tmp_path}/absent"',
    ):
        file.write_text(text)
        done = run("serve", "--config", str(file), "--root", str(tmp_path / "root"), environment={})
        assert done.returncode == 2
        secrets.assert_not_in(done.stdout + done.stderr, f"the error about {text.replace(value, '…')}")
    done = run(
        "serve", "--root", str(tmp_path / "root"), environment={f"MOORAGE_{name.upper()}": value, "MOORAGE_PORT": "x"}
    )
    assert done.returncode == 2
    secrets.assert_not_in(done.stdout + done.stderr, "the error about the environment")


def test_no_option_takes_a_secret() -> None:
    """A secret setting has no option, since everybody on the machine sees those."""
    said = run("serve", "--help", environment={}).stdout
    assert "--tls-key" in said
    for name in SECRETS:
        assert f"--{name.replace('_', '-')}" not in said
