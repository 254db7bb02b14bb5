"""The commands that look after content, on a root that a server serves at the same time."""

import re
from pathlib import Path

import httpx
import pytest

from tests.server import running
from tests.support import CONFIG, LAYER, Repository, digest_of, errors
from tests.test_cli import refused, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


async def test_collect_beside_a_server(root: Path) -> None:
    """The dry run names what the run then takes; the server goes on, and knows it at once."""
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            repository = Repository(client, "app")
            await repository.push_image("v1")
            await repository.push_blob(b"nobody references this")
            assert "0 would go" in run("collect", "--root", root, "--dry-run").stdout
            dry = run("collect", "--root", root, "--dry-run", "--grace", "0")
            assert f"would go: blob app@{digest_of(b'nobody references this')} (22 bytes)" in dry.stdout
            assert "1 would go, 22 bytes would be free" in dry.stdout
            assert (await repository.get(f"blobs/{digest_of(b'nobody references this')}")).status_code == 200
            done = run("collect", "--root", root, "--grace", "0")
            assert (done.returncode, done.stderr) == (0, "")
            assert "0 manifests, 1 blobs of repositories, the bytes of 1 blobs" in done.stdout
            assert (await repository.get(f"blobs/{digest_of(b'nobody references this')}")).status_code == 404
            for content in (CONFIG, LAYER):
                assert (await repository.get(f"blobs/{digest_of(content)}")).content == content
            assert run("check", "--root", root, "--full").returncode == 0


async def test_quotas(root: Path, tmp_path: Path) -> None:
    """A server's settings are what holds for everyone; what is used is told while it serves."""
    assert "there is no registry" in refused("quota", "--root", root)
    settings = tmp_path / "moorage.toml"
    settings.write_text(
        'quotas = [{ repository = "team/**", bytes = 1000, tags = 4 }, { repository = "x", tags = 0 }]'
    )
    with running(root, "--config", str(settings)) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            await Repository(client, "team/app").push_image("v1")
            listed = run("quota", "--root", root).stdout.splitlines()
            size = re.fullmatch(r"team/\*\*  bytes         (\d+) bytes of 1.0 kB, (\d+\.\d) %", listed[0])
            assert size
            assert float(size[2]) == pytest.approx(int(size[1]) / 10, abs=0.1)
            assert listed[1:] == [
                "team/**  tags          1 of 4, 25.0 %",
                "team/**  repositories  1",
                "x        bytes         0 bytes",
                "x        tags          0 of 0",
                "x        repositories  0",
            ]
            assert run("quota", "--root", root, "--recount").stdout.splitlines() == listed
            too_much = await client.post(
                f"/v2/team/app/blobs/uploads/?digest={digest_of(b'x' * 1000)}", content=b"x" * 1000
            )
            assert errors(too_much, 403, "DENIED")[0]["detail"]["quota"] == "team/**"
            # What comes by import is under the same quotas; what was copied or moved brings its counts along.
            assert run("export", "--root", root, "team/app:v1", tmp_path / "layout").returncode == 0
            left_out = run("import", "--root", root, "--repository", "x", tmp_path / "layout")
            assert left_out.returncode == 1
            assert "the quota of x allows 0 tags; used: 0, asked for: 1 more" in left_out.stdout
            assert run("import", "--root", root, "--repository", "elsewhere", tmp_path / "layout").returncode == 0
            assert run("backup", "--root", root, tmp_path / "backup").returncode == 0
            assert run("restore-backup", "--root", tmp_path / "other", tmp_path / "backup").returncode == 0
            assert run("quota", "--root", tmp_path / "other").stdout == run("quota", "--root", root).stdout
            assert run("check", "--root", tmp_path / "other").returncode == 0
        assert run("check", "--root", root).returncode == 0
    with running(root):
        assert run("quota", "--root", root).stdout == "there are no quotas\n"


def test_no_registry_there(root: Path) -> None:
    """A root that does not exist is not made, and said to be none."""
    assert "there is no registry" in refused("collect", "--root", root)
    assert not root.exists()
    assert "memory" in refused("collect", "--storage", "memory")


async def test_why_and_cost(root: Path) -> None:
    """Both tell what the facts say; what is nowhere gives 1, what is malformed 2."""
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            pushed = await Repository(client, "app").push_image("v1")
        done = run("why", "--root", root, digest_of(LAYER))
        assert done.returncode == 0
        lines = [line.partition(", since")[0] for line in done.stdout.splitlines()]
        assert lines == [f"blob app@{digest_of(LAYER)}", f"  layer of {pushed['digest']}", "    held by the tag v1"]
        done = run("why", "--root", root, digest_of(b"absent"))
        assert (done.returncode, done.stdout) == (1, f"{digest_of(b'absent')} is nowhere\n")
        told = run("cost", "--root", root, "app:v1").stdout
        assert told.startswith(
            f"{pushed['size'] + len(LAYER) + len(CONFIG)} bytes would be free: 1 manifests and 2 blo"
        )
        assert "reference=v9" in refused("why", "--root", root, "app:v9")
        assert "app: allowed: DIGEST, REPOSITORY:TAG" in refused("why", "--root", root, "app")
        assert "name=else" in refused("cost", "--root", root, "else")


async def test_history_and_restore(root: Path) -> None:
    """What happened to a tag is listed, and undone beside the server."""
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            app = Repository(client, "app")
            first = await app.push_image("v1")
            second = await app.push_image("v1", annotations={"n": "2"})
            await app.delete(f"manifests/{first['digest']}")
            lines = run("history", "--root", root, "app:v1").stdout.splitlines()
            assert [line.split("  ")[1:4] for line in lines] == [
                ["v1", f"{first['digest']} -> {second['digest']}", "by anonymous"],
                ["v1", f"nothing -> {first['digest']}", "by anonymous"],
            ]
            done = run("restore", "--root", root, "app:v1")
            assert (done.returncode, done.stdout) == (0, f"app:v1 names {first['digest']}\n")
            response = await app.get("manifests/v1")
            assert (response.status_code, response.headers["docker-content-digest"]) == (200, first["digest"])
            assert "by operator (restored)" in run("history", "--root", root, "app", "-n", "1").stdout
            assert run("restore", "--root", root, f"app:v1@{second['digest']}").returncode == 0
            assert "is not in the range" in refused("history", "--root", root, "app", "-n", "9" * 20)
            assert "allowed after the @" in refused("restore", "--root", root, "app:v1@soon-ish")
            assert "allowed" in refused("restore", "--root", root, "app")
            assert "named nothing then" in refused("restore", "--root", root, "app:v1@2020-01-01T00:00")


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "missing"])
async def test_damaged_files_heal(root: Path, how: str) -> None:
    """A file that is damaged on the disk is found, served to nobody, and right again after the next push."""
    with running(root, MOORAGE_SCRUB_RATE="0") as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            app = Repository(client, "app")
            await app.push_image("v1")
            (file,) = [each for each in (root / "blobs").rglob("*") if each.is_file() and each.read_bytes() == LAYER]
            if how == "missing":
                file.unlink()
            else:
                changed = {"flipped": LAYER[:-1] + b"?", "truncated": LAYER[:3], "emptied": b""}
                file.write_bytes(changed[how])
            done = run("scrub", "--root", root)
            assert done.returncode == 1
            assert f"quarantined: {digest_of(LAYER)}" in done.stdout
            for headers in ({}, {"range": "bytes=0-1"}):
                assert (await app.get(f"blobs/{digest_of(LAYER)}", headers=headers)).status_code == 404
            told = run("why", "--root", root, digest_of(LAYER)).stdout.splitlines()
            assert told[0].startswith(f"blob app@{digest_of(LAYER)}, since ")
            assert re.fullmatch(
                r"  quarantined, since [-\d]+ [:\d]+Z: its? .+; there for nobody until it is pushed again, .+",
                told[1],
            )
            assert "held by the tag v1" in told[-1]
            await app.push_image("v1")
            assert (await app.get(f"blobs/{digest_of(LAYER)}")).content == LAYER
            assert run("scrub", "--root", root).returncode == 0
            assert run("check", "--root", root, "--full").returncode == 0
