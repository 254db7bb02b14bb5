"""docs/embedding.md keeps what it says: each Python block is a file, and each file is run."""

import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "embedding.md"
FENCED = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"# (?P<name>\w+\.py)\n")
PREFIXES = {"registry_app.py": "", "fastapi_app.py": "", "starlette_app.py": "/registry"}
BYTES = bytes(range(256)) * 5000
DIGEST = "sha256:" + hashlib.sha256(BYTES).hexdigest()


@dataclass(frozen=True)
class File:
    """A block of the document, and what it says that the block prints."""

    name: str
    text: str
    output: str | None


def files() -> list[File]:
    blocks = list(FENCED.finditer(DOCUMENT.read_text("utf-8")))
    found = []
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block["language"] == "python":
            named = NAMED.match(block["text"])
            assert named, f"a block without a name: {block['text'][:200]}"
            output = following["text"] if following and following["language"] == "text" else None
            found.append(File(named["name"], block["text"], output))
    return found


FILES = {file.name: file for file in files()}
TESTS = [name for name in FILES if name.startswith("test_")]
APPLICATIONS = [name for name in FILES if name.endswith("_app.py")]
SCRIPTS = [name for name in FILES if FILES[name].output is not None]
IMPORTED = ["mapping_store.py"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all files of the document."""
    for file in FILES.values():
        (tmp_path / file.name).write_text(file.text)
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    """What Python prints; it must end well, and may warn of nothing."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_is_run() -> None:
    assert len(FILES) == len(files()), "two blocks have one name"
    assert sorted(TESTS + APPLICATIONS + SCRIPTS + IMPORTED) == sorted(FILES)
    assert set(APPLICATIONS) == set(PREFIXES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name: str, folder: Path) -> None:
    assert run(folder, name) == FILES[name].output


def test_tests(folder: Path) -> None:
    """They pass without any plugin for asyncio."""
    plugins = ["-p", "no:asyncio", "-p", "no:anyio", "-p", "no:cacheprovider"]
    printed = run(folder, "-m", "pytest", "-q", *plugins, *TESTS)
    assert re.search(r"^\d+ passed in", printed, re.MULTILINE), printed


@contextmanager
def application(folder: Path, name: str) -> Iterator[str]:
    """The URL at which uvicorn serves an application; its own end is orderly."""
    command = [sys.executable, "-m", "uvicorn", f"{name.removesuffix('.py')}:app", "--port", "0"]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not (found := re.search(r"running on (http://\S+)", (folder / "log").read_text())):
                assert process.poll() is None, (folder / "log").read_text()
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    printed = (folder / "log").read_text()
    assert "Application shutdown complete" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(name: str, folder: Path) -> None:
    """Push and pull below its prefix; after a restart everything is there."""
    prefix = PREFIXES[name]
    with application(folder, name) as url:
        registry = url + prefix
        assert httpx.get(f"{registry}/v2/").json() == {}
        opened = httpx.post(f"{registry}/v2/library/thing/blobs/uploads/")
        assert opened.headers["location"].startswith(f"{prefix}/v2/library/thing/blobs/uploads/")
        pushed = httpx.put(f"{url}{opened.headers['location']}?digest={DIGEST}", content=BYTES)
        assert pushed.status_code == 201
        assert httpx.get(url + pushed.headers["location"]).content == BYTES
        tagged = httpx.put(
            f"{registry}/v2/library/thing/manifests/latest",
            json={"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []},
            headers={"content-type": "application/vnd.oci.image.index.v1+json"},
        )
        assert tagged.status_code == 201
        digest = tagged.headers["docker-content-digest"]
        if name == "fastapi_app.py":
            assert httpx.get(f"{url}/repositories/library/thing/latest").json() == {"digest": digest}
        elif name == "starlette_app.py":
            assert httpx.get(url).text == "my own page"
        else:
            assert httpx.delete(f"{url}/v2/library/thing/manifests/latest").status_code == 405
    with application(folder, name) as url:
        assert httpx.get(f"{url}{prefix}/v2/library/thing/blobs/{DIGEST}").content == BYTES
        assert httpx.head(f"{url}{prefix}/v2/library/thing/manifests/{digest}").status_code == 200
