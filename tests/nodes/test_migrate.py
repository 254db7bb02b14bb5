"""A registry moves from one machine to PostgreSQL and a bucket, and home again, while clients push to it."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage.build import store_of
from moorage.config import load
from tests.buckets import Engine
from tests.server import Server, administer, as_environment
from tests.support import OCI_MANIFEST, digest_of, encode

BEFORE = 60  # images that are there when the move begins
LAYER = 200_000  # bytes
REPOSITORY = "moving/app"


@dataclass
class Side:
    """A registry that can be served, and be moved from or to."""

    root: Path
    settings: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """Its settings, as ``moorage migrate`` takes them."""
        path = self.root.with_suffix(".toml")
        path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in self.described.items()))
        return path

    @property
    def described(self) -> dict[str, Any]:
        return {**self.settings, "root": str(self.root)}

    @contextmanager
    def served(self) -> Iterator[Server]:
        server = Server(self.root, (), as_environment(self.settings)).start()
        try:
            yield server
            assert server.stop() == 0, server.log
            assert "Traceback" not in server.log, server.log
        finally:
            server.kill()

    def check(self) -> str:
        return administer(self.root, as_environment(self.settings), "check", "--full")

    def objects(self) -> int:
        """How many are in its place for bytes."""

        async def count() -> int:
            async with store_of(load(arguments=self.described)) as store:
                return len([key async for key in store.list()])

        return asyncio.run(count())


@dataclass
class Pusher:
    """Pushes one image after the other; ``acknowledged`` is what the registry said it holds, by path."""

    url: str
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    images: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def push(self, client: httpx.Client) -> None:
        number, documents = self.images, {}
        for kind, content in (("config", b'{"n": %d}' % number), ("layer", os.urandom(LAYER))):
            documents[kind] = {
                "mediaType": f"application/x-{kind}",
                "digest": digest_of(content),
                "size": len(content),
            }
            opened = client.post(f"/v2/{REPOSITORY}/blobs/uploads/")
            assert opened.status_code == 202, opened.text
            done = client.put(opened.headers["location"], params={"digest": digest_of(content)}, content=content)
            assert done.status_code == 201, done.text
            self.acknowledged[f"blobs/{digest_of(content)}"] = content
        manifest = encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": documents["config"],
                "layers": [documents["layer"]],
            }
        )
        for tag in (f"v{number}", "latest"):
            done = client.put(
                f"/v2/{REPOSITORY}/manifests/{tag}", content=manifest, headers={"content-type": OCI_MANIFEST}
            )
            assert done.status_code == 201, done.text
            self.acknowledged[f"manifests/{tag}"] = manifest
        self.acknowledged[f"manifests/{digest_of(manifest)}"] = manifest
        self.images += 1

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Push all the while."""
        over = threading.Event()

        def work() -> None:
            try:
                with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
                    while not over.wait(0.02):
                        self.push(client)
            except BaseException as error:  # noqa: BLE001  told by the test's thread
                self.failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not self.failures, self.failures

    def pull(self, url: str) -> None:
        """Every tag and digest that was acknowledged gives what was pushed."""
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for path, content in self.acknowledged.items():
                answer = client.get(f"/v2/{REPOSITORY}/{path}", follow_redirects=True)
                assert answer.status_code == 200, (path, answer.text)
                assert hashlib.sha256(answer.content).digest() == hashlib.sha256(content).digest(), path
            tags = client.get(f"/v2/{REPOSITORY}/tags/list").json()["tags"]
        assert set(tags) == {path.partition("/")[2] for path in self.acknowledged if ":" not in path}


def migrate(source: Side, target: Side) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "moorage", "migrate", "--from", str(source.file), "--to", str(target.file)]
    return subprocess.Popen(
        [*command, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finished(migration: "subprocess.Popen[str]") -> tuple[int, int]:
    """How many objects a migration copied, and how many were there."""
    output, _ = migration.communicate(timeout=300)
    assert migration.returncode == 0, output
    found = re.search(r"(\d+) objects copied \(.*\), (\d+) were there", output)
    assert found, output
    return int(found[1]), int(found[2])


def broken_off(source: Side, target: Side, at: int) -> int:
    """Kill a migration when the target has ``at`` objects; how many it has then."""
    migration = migrate(source, target)
    try:
        while (there := target.objects()) < at:
            assert migration.poll() is None, "it was done before it could be killed"
            time.sleep(0.02)
    finally:
        migration.send_signal(signal.SIGKILL)
        migration.communicate()
    assert migration.returncode == -signal.SIGKILL, "it was done before it could be killed"
    return there


def move(source: Side, target: Side) -> None:
    """Move while clients push, killed twice on the way; then once more when they have gone, and all is there."""
    with source.served() as server:
        pusher = Pusher(server.url)
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            for _ in range(BEFORE):
                pusher.push(client)
        with pusher.pushing():
            first = broken_off(source, target, 10)
            broken_off(source, target, first + 10)
            copied, kept = finished(migrate(source, target))
            assert kept >= first + 10
            assert copied > 0
            before = len(pusher.acknowledged)
            deadline = time.monotonic() + 60
            while len(pusher.acknowledged) < before + 12:
                assert not pusher.failures
                assert time.monotonic() < deadline
                time.sleep(0.02)
        pusher.pull(server.url)
        caught_up, kept_then = finished(migrate(source, target))
    assert kept_then >= copied + kept
    assert 0 < caught_up < copied + kept
    assert "nothing is wrong" in target.check()
    with target.served() as server:
        pusher.pull(server.url)
        goes_on = Pusher(server.url, images=pusher.images)
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            goes_on.push(client)
        pusher.acknowledged |= goes_on.acknowledged
        pusher.pull(server.url)
    assert "nothing is wrong" in target.check()


@pytest.fixture
def home(tmp_path: Path) -> Side:
    """SQLite and a folder."""
    return Side(tmp_path / "home", {})


@pytest.fixture
def away(tmp_path: Path, new_database: str, seaweedfs: Engine) -> Side:
    """PostgreSQL and a bucket."""
    return Side(tmp_path / "away", {**seaweedfs.place(), "metadata": new_database})


def test_away_from_home(home: Side, away: Side) -> None:
    move(home, away)


def test_home_again(home: Side, away: Side) -> None:
    move(away, home)
