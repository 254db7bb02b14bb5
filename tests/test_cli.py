"""The command ``moorage``: help, version, exit codes, and what is said of what is wrong."""

import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from moorage import __version__, open_registry
from tests.support import CONFIG, LAYER, digest_of, encode, image, pieces


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``moorage`` to its end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    return subprocess.run(
        [sys.executable, "-m", "moorage", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**clean, "COLUMNS": "100", "NO_COLOR": "1", **environment},
        check=False,
        timeout=60,
    )


def refused(*arguments: str | Path, **environment: str) -> str:
    """What is said on standard error by a command that must end with 2 without a traceback."""
    done = run(*arguments, **environment)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str) -> None:
    """The version is one line, and 0."""
    done = run(flag)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"moorage {__version__}\n", "")


def test_script() -> None:
    """The installed script ``moorage`` is the same command."""
    script = Path(sys.executable).parent / "moorage"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"moorage {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag: str) -> None:
    """Help lists the commands, and each command its options with their defaults."""
    done = run(flag)
    assert done.returncode == 0
    for word in ("serve", "check", "--version", "--help"):
        assert word in done.stdout
    done = run("serve", flag)
    assert done.returncode == 0
    for word in ("--host", "--port", "-p", "--storage", "-s", "--root", "--workers", "--config", "127.0.0.1", "8968"):
        assert word in done.stdout
    assert "--full" in run("check", flag).stdout


def test_no_command() -> None:
    """Without a command help is shown."""
    done = run()
    assert "Usage" in done.stdout + done.stderr
    assert "serve" in done.stdout + done.stderr


@pytest.mark.parametrize(("arguments", "word"), [(["sail"], "sail"), (["serve", "--colour", "blue"], "--colour")])
def test_unknown_command_or_option(arguments: list[str], word: str) -> None:
    """An unknown command or option is 2 and is named."""
    assert word in refused(*arguments)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--port", "http", ["port", "'http'", "0 to 65535"]),
        ("--port", "70000", ["port", "70000", "0 to 65535"]),
        ("--workers", "0", ["workers", "0", "1 to 256"]),
        ("--storage", "s3", ["storage", "'s3'", "filesystem, memory"]),
        ("--storage", "file://host/path", ["storage", "file://host/path", "file:///path"]),
        ("--storage", "filesystem:x", ["storage", "filesystem:x"]),
    ],
)
def test_wrong_setting(tmp_path: Path, option: str, value: str, words: list[str]) -> None:
    """A wrong setting is 2 with a message that names the key, the value and what is allowed."""
    said = refused("serve", "--root", tmp_path, option, value)
    assert said.startswith("moorage: ")
    for word in words:
        assert word in said


def test_wrong_variable_and_file(tmp_path: Path) -> None:
    """A wrong variable or file is 2 and named."""
    assert "MOORAGE_SPARSE" in refused("serve", MOORAGE_SPARSE="some")
    assert "none.toml" in refused("serve", "--config", tmp_path / "none.toml")
    file = tmp_path / "moorage.toml"
    file.write_text("colour = 1\n")
    assert "unknown setting 'colour'" in refused("serve", MOORAGE_CONFIG=str(file))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_in_use(tmp_path: Path, workers: str) -> None:
    """A port that is taken is 2 with the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("serve", "--root", tmp_path, "-p", str(port), "--workers", workers)
    assert "127.0.0.1" in said
    assert str(port) in said
    assert "Address already in use" in said


def test_address_that_is_not_ours(tmp_path: Path) -> None:
    """An address that this machine does not have, or a name that nobody has, is 2."""
    assert "192.0.2.1" in refused("serve", "--root", tmp_path, "-p", "0", "--host", "192.0.2.1")
    assert "no.such.host.invalid" in refused("serve", "--root", tmp_path, "-p", "0", "--host", "no.such.host.invalid")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_root_that_cannot_be(tmp_path: Path, workers: str) -> None:
    """A root that is a file is 2 with its name."""
    file = tmp_path / "file"
    file.write_text("in the way")
    said = refused("serve", "-p", "0", "--root", file, "--workers", workers)
    assert str(file) in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_facts_that_cannot_be_read(tmp_path: Path, workers: str) -> None:
    """Facts that are no database, are a failed start with the reason, without a traceback."""
    (tmp_path / "moorage.db").write_bytes(b"this is no database, though it is long enough to be one" * 100)
    done = run("serve", "-p", "0", "--root", tmp_path, "--workers", workers)
    assert done.returncode in (1, 2)
    assert "not a database" in done.stderr
    assert "serves" not in done.stdout


async def fill(root: Path) -> None:
    """A small registry."""
    async with open_registry(root) as registry:
        for content in (CONFIG, LAYER):
            await registry.uploads.push("a", digest_of(content), pieces(content))
        await registry.manifests.put("a", "latest", encode(image()))


async def test_check(tmp_path: Path) -> None:
    """A sound root is 0 with its counts; a broken one is 1 with what is wrong; nothing is changed."""
    await fill(tmp_path)
    for arguments in ([], ["--full"]):
        done = run("check", "--root", tmp_path, *arguments)
        assert done.returncode == 0, done
        assert "1 repositories, 1 tags, 1 manifests, 2 blobs, 0 uploads" in done.stdout
        assert "nothing is wrong" in done.stdout
    (file,) = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file() and each.read_bytes() == LAYER]
    file.write_bytes(LAYER[::-1])
    assert run("check", "--root", tmp_path).returncode == 0
    done = run("check", "--root", tmp_path, "--full")
    assert done.returncode == 1
    assert f"wrong: a stored blob has its bytes: {digest_of(LAYER)}" in done.stdout
    assert "1 things are wrong" in done.stdout
    file.unlink()
    done = run("check", "--storage", f"file://{tmp_path}")
    assert done.returncode == 1
    assert "its bytes are gone" in done.stdout


async def test_check_tells_of_lost_files(tmp_path: Path) -> None:
    """Files that no fact names are told, and are nothing wrong."""
    await fill(tmp_path)
    (tmp_path / "blobs" / "zz").mkdir()
    (tmp_path / "blobs" / "zz" / "zz00").write_bytes(b"x")
    done = run("check", "--root", tmp_path)
    assert done.returncode == 0
    assert "1 objects that no fact names" in done.stdout


@pytest.mark.parametrize(("version", "words"), [(0, "broken off"), (1, "schema 1"), (99, "schema 99")])
async def test_check_of_another_schema(tmp_path: Path, version: int, words: str) -> None:
    """What was killed while it was made, or what another version wrote, is told in one line."""
    async with open_registry(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "moorage.db")) as facts:
        facts.execute(f"PRAGMA user_version = {version}")
    assert words in refused("check", "--root", tmp_path)


def test_check_without_a_registry(tmp_path: Path) -> None:
    """A folder without a registry, or storage in memory, is 2; nothing is made."""
    said = refused("check", "--root", tmp_path / "none")
    assert "there is no registry" in said
    assert not (tmp_path / "none").exists()
    assert "memory" in refused("check", "--storage", "memory")
