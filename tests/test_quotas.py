"""Quotas under many clients at once: several workers over one root, several nodes over one PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.server import Server
from tests.support import CONFIG, OCI_MANIFEST, digest_of, encode, errors, image

SIZE: Final = 1000  # bytes of each blob
FIT: Final = 10  # so many of them fit
CLIENTS: Final = 8
QUOTAS: Final = [{"repository": "a/**", "bytes": SIZE * FIT, "tags": 5}, {"repository": "b/*", "repositories": 3}]


@dataclass
class Registry:
    """Servers over the same facts; each client is one of them's, by a connection of its own."""

    urls: Sequence[str]
    root: Path
    arguments: tuple[str, ...]

    def ask(self, n: int, method: str, path: str, **more: Any) -> httpx.Response:
        url = self.urls[n % len(self.urls)]
        return httpx.request(method, path if path.startswith("http") else f"{url}{path}", timeout=60, **more)

    def at_once(self, do: Any, count: int) -> list[Any]:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return list(pool.map(do, range(count)))

    def run(self, *command: str) -> str:
        done = [sys.executable, "-m", "moorage", *command, "--root", str(self.root), *self.arguments]
        return subprocess.run(done, check=True, capture_output=True, text=True).stdout

    def used(self) -> list[str]:
        """The numbers of `moorage quota`, after the check found nothing wrong with them."""
        assert "nothing is wrong" in self.run("check", "--full")
        return [" ".join(line.split()) for line in self.run("quota").splitlines()]


@pytest.fixture(params=["four workers", "two nodes"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    workers = request.param == "four workers"
    environment = {"MOORAGE_QUOTAS": json.dumps(QUOTAS)}
    arguments = () if workers else ("--metadata", request.getfixturevalue("new_database"))
    servers = [Server(tmp_path, (*arguments, *(("--workers", "4") if workers else ())), environment)]
    servers += [] if workers else [Server(tmp_path, arguments, environment)]
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.stop)
            server.start()
        yield Registry([server.url for server in servers], tmp_path, arguments)
        for server in servers:
            assert "Traceback" not in server.log, server.log


def blob_path(repository: str, content: bytes) -> str:
    return f"/v2/{repository}/blobs/uploads/?digest={digest_of(content)}"


def taken(answers: Sequence[httpx.Response], quota: str, of: str) -> int:
    """How many were accepted; all others were refused by this quota."""
    for each in answers:
        if each.status_code != 201:
            detail = errors(each, 403, "DENIED")[0]["detail"]
            assert (detail["quota"], detail["of"]) == (quota, of)
    return sum(each.status_code == 201 for each in answers)


def test_the_last_bytes_go_to_as_many_as_fit(registry: Registry) -> None:
    """Whole blobs, sessions that reserve what they received, and mounts of what is stored elsewhere."""
    elsewhere = [os.urandom(SIZE) for _ in range(4 * FIT)]
    for content in elsewhere:
        assert registry.ask(0, "POST", blob_path("elsewhere", content), content=content).status_code == 201

    def push(n: int) -> httpx.Response:
        content, name = os.urandom(SIZE), f"a/{n % 3}"
        uploads = f"/v2/{name}/blobs/uploads/"
        if n % 4 == 0:
            return registry.ask(n, "POST", blob_path(name, content), content=content)
        if n % 4 == 1:
            return registry.ask(n, "POST", f"{uploads}?mount={digest_of(elsewhere[n])}&from=elsewhere")
        opened = registry.ask(n, "POST", uploads)
        location, closing = opened.headers.get("location", ""), {"digest": digest_of(content)}
        if opened.status_code != 202:
            return opened
        if n % 4 == 2:
            return registry.ask(n + 1, "PUT", location, params=closing, content=content)
        appended = registry.ask(n + 1, "PATCH", location, content=content)
        return registry.ask(n, "PUT", location, params=closing) if appended.status_code == 202 else appended

    assert taken(registry.at_once(push, 4 * FIT), "a/**", "bytes") == FIT
    assert registry.used()[0] == "a/** bytes 10.0 kB of 10.0 kB, 100.0 %"


def test_so_many_tags_and_repositories(registry: Registry) -> None:
    """Of those that come at once as many are taken as are allowed, and the others leave nothing."""
    assert registry.ask(0, "POST", blob_path("a/0", CONFIG), content=CONFIG).status_code == 201
    documents = [encode(image(CONFIG, [], annotations={"n": f"{n}"})) for n in range(12)]

    def tag(n: int) -> httpx.Response:
        headers = {"Content-Type": OCI_MANIFEST}
        return registry.ask(n, "PUT", f"/v2/a/0/manifests/v{n}", content=documents[n], headers=headers)

    def found(n: int) -> httpx.Response:
        return registry.ask(n, "POST", blob_path(f"b/{n}", CONFIG), content=CONFIG)

    assert taken(registry.at_once(tag, len(documents)), "a/**", "tags") == 5
    assert len(registry.ask(1, "GET", "/v2/a/0/tags/list").json()["tags"]) == 5
    stored = sum(
        registry.ask(n, "HEAD", f"/v2/a/0/manifests/{digest_of(each)}").status_code == 200
        for n, each in enumerate(documents)
    )
    assert stored == 5
    assert taken(registry.at_once(found, 12), "b/*", "repositories") == 3
    assert len(registry.ask(1, "GET", "/v2/_catalog").json()["repositories"]) == 4
    used = registry.used()
    assert used[1] == "a/** tags 5 of 5, 100.0 %"
    assert used[5] == "b/* repositories 3 of 3, 100.0 %"
