"""Users of an htpasswd file."""

import shutil
import subprocess
from pathlib import Path

import bcrypt
import pytest

from moorage.auth.htpasswd import Htpasswd
from moorage.auth.passwords import verify_password
from tests.clients.kit import missing


def line(name: str, password: str, cost: int = 4) -> str:
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode().replace('$2b$', '$2y$')}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "htpasswd"


async def test_file_of_apache(file: Path) -> None:
    """What ``htpasswd -B`` writes is read."""
    program = shutil.which("htpasswd") or missing("htpasswd is not on this machine")
    subprocess.run([program, "-cbB", "-C", "5", file, "alice", "sesame"], check=True, capture_output=True)
    found = await Htpasswd(file).entry("alice")
    assert found is not None
    assert verify_password(found.hash, "sesame")
    assert not verify_password(found.hash, "guess")


async def test_entries(file: Path) -> None:
    """Comments and empty lines are passed over; of two entries of one name the first counts."""
    first = line("alice", "one")
    file.write_text(f"# users\n\n{first}{line('alice', 'two')}{line('bob@example.org', 'three', 6)}")
    users = Htpasswd(file)
    found = await users.entry("alice")
    assert found is not None
    assert f"alice:{found.hash}\n" == first
    assert await users.entry("bob@example.org")
    assert await users.entry("eve") is None
    assert await users.entry("") is None
    assert users.dummy.startswith("$2b$06$")
    assert not verify_password(users.dummy, "three")


REFUSED = {
    "mark:$apr1$salt$hash": ("'mark'", "not MD5"),
    "olga:$1$salt$hash": ("'olga'", "not MD5"),
    "sarah:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=": ("'sarah'", "not SHA-1"),
    "sid:$6$salt$hash": ("'sid'", "not SHA-512"),
    "carl:rqXexS6ZhobKA": ("'carl'", "not crypt or plain text"),
    "paul:sesame": ("'paul'", "not crypt or plain text"),
    "dear:$2y$99$" + "a" * 53: ("'dear'", "cost"),
    "cheap:$2y$03$" + "a" * 53: ("'cheap'", "cost"),
    "nothing": ("whoever is meant", "bcrypt"),
    "anonymous:$2y$04$" + "a" * 53: ("'anonymous'", "meaning of its own"),
    "@dev:$2y$04$" + "a" * 53: ("'@dev'", "no name"),
}


@pytest.mark.parametrize("entry", REFUSED)
async def test_refused_entries_are_named(file: Path, entry: str, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be taken is told by line and name, without the hash; the others can log in."""
    file.write_text(f"{line('alice', 'one')}{entry}\n")
    users = Htpasswd(file)
    (told,) = caplog.messages
    for word in (str(file), "line 2", "cannot log in", *REFUSED[entry]):
        assert word in told
    if ":" in entry:
        assert entry.partition(":")[2] not in told
    assert await users.entry(entry.partition(":")[0]) is None
    assert await users.entry("alice")


def test_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Htpasswd(file)


async def test_changes_are_seen_within_a_second(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is looked at once a second, however often it is asked; replaced or rewritten, it is read anew."""
    caplog.set_level("INFO")
    now = [0.0]
    file.write_text(line("alice", "one"))
    users = Htpasswd(file, lambda: now[0])
    new = file.with_name("new")
    new.write_text(line("bob", "two"))
    new.replace(file)
    assert await users.entry("bob") is None
    now[0] = 1.0
    assert await users.entry("bob")
    assert await users.entry("alice") is None
    assert caplog.messages == [f"{file} was read anew: 1 users"]
    file.write_text("")
    now[0] = 2.0
    assert await users.entry("bob") is None


async def test_file_that_goes_away(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What was read before stays in use, which is logged once, until there is a file again."""
    now = [0.0]
    file.write_text(line("alice", "one"))
    users = Htpasswd(file, lambda: now[0])
    file.unlink()
    for second in (1.0, 2.0, 3.0):
        now[0] = second
        assert await users.entry("alice")
    (told,) = caplog.messages
    assert "stays in use" in told
    file.write_text(line("bob", "two"))
    now[0] = 4.0
    assert await users.entry("alice") is None
    assert await users.entry("bob")
