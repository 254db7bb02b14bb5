"""Kept answers: as right as new ones, whoever commits; and the locks of SQLite stay what they were."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.metadata import snapshots
from moorage.metadata.base import Row, Unit, run
from moorage.metadata.snapshots import Answers, WalIndex
from moorage.metadata.sqlite import SQLiteMetadata

# Moves a tag each time it is asked to, and says so when it is done.
MOVER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    database.execute("BEGIN IMMEDIATE")
    if line.strip() == "gone":
        database.execute("DELETE FROM tags")
    else:
        database.execute("INSERT INTO tags (repository_id, name, digest, updated_at) VALUES (1, 'tag', ?, 0) "
                         "ON CONFLICT (repository_id, name) DO UPDATE SET digest = excluded.digest", (line.strip(),))
    database.execute("COMMIT")
    if line.strip() == "m0":
        database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    print("done", flush=True)
"""


def manifests(count: int) -> Unit[None]:
    yield from run("add_repository", "a")
    for n in range(count):
        yield from run("add_manifest", 1, f"m{n}", "type", 1, None, None, None, 0.0, b"%d" % n)


@contextmanager
def another(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process, which is told and tells line by line."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def test_another_process_commits(tmp_path: Path) -> None:
    """What another process committed is seen at the next question, however often the last answer was kept."""
    path = tmp_path / "moorage.db"
    async with SQLiteMetadata(path) as metadata:
        await metadata.transact(manifests, 5)
        with another(MOVER, str(path)) as mover:
            assert mover.stdin is not None
            assert mover.stdout is not None
            for n in range(400):
                said = "gone" if n % 7 == 6 else f"m{n % 5}"
                print(said, file=mover.stdin, flush=True)
                for _ in range(n % 3):  # while it commits: either is right
                    await metadata.fetch("describe_by_tag", "a", "tag")
                assert mover.stdout.readline() == "done\n"
                for _ in range(3):
                    rows = await metadata.fetch("describe_by_tag", "a", "tag")
                    assert [row[0] for row in rows] == ([] if said == "gone" else [said])


async def test_own_commits(tmp_path: Path) -> None:
    """What was committed here is seen at once, and what was undone is not."""

    def move(tag: str, digest: str, *, fail: bool = False) -> Unit[None]:
        yield from run("set_tag", 1, tag, digest, 0.0)
        if fail:
            raise KeyError

    async with SQLiteMetadata(tmp_path / "moorage.db") as metadata:
        await metadata.transact(manifests, 3)
        for n in range(30):
            await metadata.transact(move, "tag", f"m{n % 3}")
            assert (await metadata.fetch("manifest_by_tag", "a", "tag"))[0][0] == f"m{n % 3}"
            with pytest.raises(KeyError):
                await metadata.transact(move, "tag", "m0", fail=True)
            assert (await metadata.fetch("manifest_by_tag", "a", "tag"))[0][0] == f"m{n % 3}"


async def test_answers_are_kept(tmp_path: Path) -> None:
    """The same question is answered without SQLite until somebody commits, also right after the start."""
    path = tmp_path / "moorage.db"
    async with SQLiteMetadata(path) as metadata:
        await metadata.transact(manifests, 1)
    async with SQLiteMetadata(path) as metadata:
        first = await metadata.fetch("manifest_by_digest", "a", "m0")
        assert first
        assert await metadata.fetch("manifest_by_digest", "a", "m0") is first
        assert await metadata.fetch("manifest_by_digest", "a", "m1") == []
        await metadata.transact(run, "add_repository", "b")
        again = await metadata.fetch("manifest_by_digest", "a", "m0")
        assert again == first
        assert again is not first


async def test_what_is_made_is_kept(tmp_path: Path) -> None:
    """What is made of an answer is kept in its place, by function and parameters, until somebody commits."""
    made = []

    def digests(rows: Sequence[Row], parameters: tuple[Any, ...]) -> Row:
        made.append(parameters)
        return (",".join(row[0] for row in rows),)

    def count(rows: Sequence[Row], parameters: tuple[Any, ...]) -> Row:
        return (len(rows),)

    async with SQLiteMetadata(tmp_path / "moorage.db") as metadata:
        await metadata.transact(manifests, 2)
        for digest in ("m0", "m1", "m0", "m1"):
            assert await metadata.made(digests, "describe_by_digest", "a", digest) == (digest,)
        assert made == [("a", "m0"), ("a", "m1")]
        assert await metadata.made(count, "describe_by_digest", "a", "m2") == (0,)
        await metadata.transact(run, "add_manifest", 1, "m2", "type", 1, None, None, None, 0.0, b"")
        assert await metadata.made(count, "describe_by_digest", "a", "m2") == (1,)
        assert await metadata.made(digests, "describe_by_digest", "a", "m0") == ("m0",)
        assert made == [("a", "m0"), ("a", "m1"), ("a", "m0")]
    async with SQLiteMetadata() as memory:  # where nothing is kept
        assert await memory.made(count, "describe_by_digest", "a", "m2") == (0,)


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not say who locks what")
async def test_locks_outlive_a_neighbour(tmp_path: Path) -> None:
    """Of two that opened one database in one process, the first to close leaves the other's locks alone."""
    path = tmp_path / "moorage.db"
    others = set(WalIndex._shared)  # of registries that other tests keep open

    def locks() -> int:
        inode = path.with_name("moorage.db-shm").stat().st_ino
        lines = Path("/proc/locks").read_text().splitlines()
        return sum(f" {os.getpid()} " in line and f":{inode} " in line for line in lines)

    async with SQLiteMetadata(path) as outer:
        alone = locks()
        assert alone
        async with SQLiteMetadata(path) as inner:
            await inner.transact(manifests, 1)
            await inner.fetch("manifest_by_digest", "a", "m0")
        assert locks() == alone
        assert await outer.fetch("manifest_by_digest", "a", "m0")
    assert set(WalIndex._shared) <= others


class Still(WalIndex):
    """A wal-index that says what a test wants."""

    def __init__(self, header: bytes) -> None:
        self.said = header

    def header(self) -> bytes:
        return self.said


def asked(answers: Answers, key: tuple[Any, ...], rows: Sequence[Row]) -> bool:
    """Whether an answer is kept once it was asked for."""
    answers.get(key)
    answers.keep(key, rows)
    return answers.get(key) is not None


def test_when_nothing_is_kept() -> None:
    """Without a log, and where somebody committed between the question and its answer."""
    assert not asked(Answers(Still(bytes(48))), ("q",), [(1,)])
    index = Still(bytes(47) + b"\1")
    assert not asked(Answers(index), ("q",), [(1,)])  # the checksum alone is no log
    index.said = b"\1" * 48
    answers = Answers(index)
    assert asked(answers, ("q",), [(1,)])
    assert answers.get(("other",)) is None
    index.said = b"\2" * 48
    answers.keep(("other",), [(2,)])
    index.said = b"\1" * 48
    assert answers.get(("other",)) is None
    index.said = b"\2" * 48
    assert answers.get(("q",)) is None


def test_how_much_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many entries and so many bytes, the newest of them; nothing very large."""
    monkeypatch.setattr(snapshots, "_MOST_ENTRIES", 3)
    answers = Answers(Still(b"\1" * 48))
    assert all(asked(answers, (n,), [(n,)]) for n in range(5))
    assert [answers.get((n,)) for n in range(5)] == [None, None, [(2,)], [(3,)], [(4,)]]
    assert not asked(answers, ("large",), [(b"x" * 1_100_000,)])
    monkeypatch.setattr(snapshots, "_MOST_BYTES", 10_000)
    assert asked(answers, ("a",), [(b"x" * 5000,)])
    assert asked(answers, ("b",), [(b"x" * 5000,)])
    assert answers.get(("a",)) is None
    assert answers.get((4,)) is None


def test_sqlite_keeps_the_form(tmp_path: Path) -> None:
    """The header is where and what is read here: a commit changes it, a read does not, and its salts are those."""
    path = tmp_path / "moorage.db"
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
        index = WalIndex.of(path)
        assert index is not None
        assert index.has_log()
        log = path.with_name("moorage.db-wal").read_bytes()
        assert index.header()[32:40] == log[16:24]
        before = index.header()
        database.execute("SELECT * FROM t").fetchall()
        assert index.header() == before
        database.execute("INSERT INTO t VALUES (1)")
        assert index.header() != before
    database.close()
    index.close()
