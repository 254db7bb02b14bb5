"""Backup, restoring it, and moving, from the command line beside a server."""

from pathlib import Path

import httpx

from tests.server import running
from tests.support import CONFIG, LAYER, Repository, digest_of
from tests.test_cli import refused, run


async def test_backup_drill(tmp_path: Path) -> None:
    """While the server serves; the second brings what is new; what was restored pulls byte for byte."""
    root, copy, again = (tmp_path / name for name in ("root", "copy", "again"))
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            repository = Repository(client, "app")
            await repository.push_image("v1")
            done = run("backup", copy, "--root", root)
            assert (done.returncode, done.stderr) == (0, "")
            assert f"{copy} is what {root} was: 2 objects copied" in done.stdout
            await repository.push_image("v2")
            await repository.delete("manifests/v1")
            assert "0 objects copied (0 bytes), 2 were there" in run("backup", copy, "--root", root).stdout
    assert "nothing is wrong" in run("check", "--root", copy, "--full").stdout
    assert run("restore-backup", copy, "--root", again).returncode == 0
    with running(again) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            repository = Repository(client, "app")
            assert (await repository.get("tags/list")).json()["tags"] == ["v2"]
            assert (await repository.get("manifests/v2")).status_code == 200
            for content in (CONFIG, LAYER):
                assert (await repository.get(f"blobs/{digest_of(content)}")).content == content


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with running(tmp_path / "a"), running(tmp_path / "b") as server:
        httpx.post(f"{server.url}/v2/app/blobs/uploads/").raise_for_status()
    assert "of its own" in refused("restore-backup", tmp_path / "a", "--root", tmp_path / "b")
    assert "of its own" in refused("migrate", "--from", tmp_path / "a", "--to", tmp_path / "b")
    assert "there is no registry" in refused("migrate", "--from", tmp_path / "c", "--to", tmp_path / "d")
    assert "No such file" in refused("migrate", "--from", tmp_path / "a", "--to", tmp_path / "misspelt.toml")
    assert not (tmp_path / "misspelt.toml").exists()
