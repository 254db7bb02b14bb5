"""Importing and exporting from the command line: archives made by hand, and what is said of what is wrong."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.clients.kit import Door
from tests.server import running
from tests.support import CONFIG, LAYER, digest_of
from tests.test_cli import refused, run


def archive(path: Path, *, packed: bool = False) -> None:
    """As an old ``docker save`` wrote it: the same layer twice, the second time as a link to the first."""
    images = [
        {"Config": "c.json", "RepoTags": ["localhost:5000/old/app:v1"], "Layers": ["a/layer.tar", "b/layer.tar"]}
    ]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in (
            ("manifest.json", json.dumps(images).encode()),
            ("c.json", CONFIG),
            ("a/layer.tar", LAYER),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../a/layer.tar"
        tar.addfile(link)
    path.write_bytes(gzip.compress(content.getvalue()) if packed else content.getvalue())


@pytest.mark.parametrize("packed", [False, True])
def test_docker_archive(tmp_path: Path, *, packed: bool) -> None:
    """Layers as they are, links followed, the name without its host; the same archive gives the same digest."""
    archive(tmp_path / "app.tar", packed=packed)
    done = run("import", tmp_path / "app.tar", "--root", tmp_path / "root")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 repositories: 1 manifests, 1 tags, 2 blobs read")
    with running(tmp_path / "root") as server:
        door = Door(server.url)
        document = json.loads(door.manifest("old/app", "v1"))
        assert document["config"]["digest"] == digest_of(CONFIG)
        assert [each["digest"] for each in document["layers"]] == [digest_of(LAYER)] * 2
        assert door.blob("old/app", digest_of(LAYER)) == digest_of(LAYER)
    assert "0 manifests, 0 tags" in run("import", tmp_path / "app.tar", "--root", tmp_path / "root").stdout


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    root = ("--root", tmp_path / "root")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no tar")
    assert "allowed: a folder, a tar" in refused("import", tmp_path / "nothing", *root)
    assert "allowed: a folder, a tar" in refused("import", tmp_path / "text", *root)
    assert "holds nothing that can be imported" in refused("import", tmp_path / "empty", *root)
    assert "memory" in refused("import", tmp_path / "empty", "--storage", "memory")
    archive(tmp_path / "app.tar")
    assert "invalid repository name" in run("import", tmp_path / "app.tar", *root, "--repository", "UP").stdout
    assert run("import", tmp_path / "app.tar", *root).returncode == 0
    assert "REPOSITORY@DIGEST" in refused("export", digest_of(LAYER), tmp_path / "layout", *root)
    assert "unknown" in refused("export", "old/app:v2", tmp_path / "layout", *root)
    (tmp_path / "empty" / "index.json").write_text("[]")
    assert "no index" in refused("export", "old/app", tmp_path / "empty", *root)


def test_export_of_damaged_content(tmp_path: Path) -> None:
    """A blob whose bytes changed is named and not written; the rest is."""
    archive(tmp_path / "app.tar")
    root, layout = tmp_path / "root", tmp_path / "layout"
    assert run("import", tmp_path / "app.tar", "--root", root).returncode == 0
    (file,) = [each for each in (root / "blobs").glob("??/*") if each.read_bytes() == LAYER]
    file.chmod(0o600)
    file.write_bytes(bytes(len(LAYER)))
    done = run("export", "old/app:v1", layout, "--root", root)
    assert done.returncode == 1
    assert f"left out: old/app@{digest_of(LAYER)}" in done.stdout
    written = {each.name for each in (layout / "blobs" / "sha256").iterdir()}
    assert digest_of(CONFIG).partition(":")[2] in written
    assert not any(digest_of(LAYER).partition(":")[2] in each for each in written)
    assert len(written) == 2
