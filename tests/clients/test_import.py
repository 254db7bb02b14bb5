"""What real programs stored is taken in byte for byte, what is broken is named, and real programs read an export."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support
from tests.buckets import Engine
from tests.clients.kit import Door, Home, Layout, assert_same
from tests.clients.test_skopeo import FROM, KEEP, TO
from tests.clients.trees import REPOSITORY, data, digests_of, distribution, fill, links, push_blob, put, started
from tests.server import free_port, running
from tests.support import EMPTY, LAYER, OCI_MANIFEST, digest_of, encode, eventually
from tests.test_cli import refused
from tests.test_cli import run as moorage

pytestmark = [pytest.mark.clients, pytest.mark.own_root]


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: Home, multi: Layout) -> Path:
    """The storage tree of distribution."""
    folder = tmp_path_factory.mktemp(request.param)
    with distribution(request.param, folder) as door:
        (folder / "tags.json").write_text(json.dumps(fill(door, run, multi)))
    return folder / "tree"


@pytest.fixture
def broken(tree: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return Path(shutil.copytree(tree, tmp_path / "broken"))


def imported(source: Path | str, root: Path, *options: str | Path, code: int = 0) -> str:
    done = moorage("import", source, "--root", root, *options)
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


def test_tree_of_distribution(tree: Path, multi: Layout, tmp_path: Path) -> None:
    """Every tag and digest pulls, referrers answer, a server may serve; a second import reads nothing."""
    root = tmp_path / "root"
    image = digest_of(encode(support.image()))
    tags = json.loads((tree.parent / "tags.json").read_text())
    with running(root) as server:
        door = Door(server.url)
        would = imported(tree, root, "--dry-run")
        assert would.startswith("would be imported: 2 repositories")
        assert door.tags(REPOSITORY) == []
        line = imported(tree / "docker", root)
        assert line == would.removeprefix("would be imported: ")
        for tag, digest in tags.items():
            assert door.digest(REPOSITORY, tag) == digest
            assert list(digests_of(door, REPOSITORY, digest))
        door.assert_holds(REPOSITORY, "multi", multi)
        door.assert_holds("library/deep/er", "v1", multi)
        (entry,) = door.referrers(REPOSITORY, image)
        assert entry["artifactType"] == "application/vnd.example.sbom"
        again = imported(tree / "docker/registry/v2", root)
        assert "0 manifests, 0 tags, 0 blobs read (0 bytes), 0 mounted" in again
    assert "nothing is wrong" in moorage("check", "--full", "--root", root).stdout
    assert "by import" in moorage("history", f"{REPOSITORY}:v1", "--root", root).stdout


@pytest.mark.parametrize("program", ["docker-registry", "registry"])
def test_tree_in_a_bucket(program: str, seaweedfs: Engine, run: Home, multi: Layout, tmp_path: Path) -> None:
    """As distribution's driver for S3 keeps it, with the settings of buckets; a second import reads nothing."""
    folder, root, settings = tmp_path / f"{program}-import", tmp_path / "root", tmp_path / "moorage.toml"
    folder.mkdir()
    with distribution(program, folder, seaweedfs) as door:
        tags = fill(door, run, multi)
    wanted = {name: value for name, value in seaweedfs.settings.items() if name != "storage"}
    settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in wanted.items()))
    source = f"{seaweedfs.settings['storage']}/{folder.name}"
    line = imported(source, root, "--config", settings)
    assert line.startswith("2 repositories: 11 manifests, 6 tags")
    assert "0 manifests, 0 tags, 0 blobs read (0 bytes), 0 mounted" in imported(source, root, "--config", settings)
    with running(root) as server:
        door = Door(server.url)
        assert {tag: door.digest(REPOSITORY, tag) for tag in door.tags(REPOSITORY)} == tags
        assert all(list(digests_of(door, REPOSITORY, digest)) for digest in tags.values())
        door.assert_holds("library/deep/er", "v1", multi)
        assert len(door.referrers(REPOSITORY, tags["v1"])) == 1
    nothing = f"{seaweedfs.settings['storage']}/nothing"
    assert "holds nothing that can be imported" in refused("import", nothing, "--root", root, "--config", settings)
    assert "allowed with storage" in refused("import", folder, "--root", root, "--config", settings)


def test_export_and_back(tree: Path, run: Home, multi: Layout, tmp_path: Path) -> None:
    """skopeo reads what is exported; imported again, each tag names the same digest and referrers are there."""
    root, layout, again = (tmp_path / each for each in ("root", "layout", "again"))
    imported(tree, root, "--repository", "old")
    name = f"old/{REPOSITORY}"
    done = moorage("export", f"{name}:multi", layout, "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    run("skopeo", "copy", "--all", KEEP, f"oci:{layout}:multi", f"oci:{tmp_path / 'copy'}:multi")
    assert_same(Layout(tmp_path / "copy", "multi"), multi)
    assert moorage("export", name, layout, "--root", root).returncode == 0
    assert " 0 manifests and 0 blobs written" in moorage("export", name, layout, "--root", root).stdout
    imported(layout, again, "--repository", "new")
    tags = json.loads((tree.parent / "tags.json").read_text())
    with running(again) as server:
        door = Door(server.url)
        assert {tag: door.digest("new", tag) for tag in door.tags("new")} == tags
        assert len(door.referrers("new", tags["v1"])) == 1


def test_broken_tree(tree: Path, broken: Path, multi: Layout, tmp_path: Path) -> None:
    """What is missing, damaged or empty is named, and the rest comes; once mended, it comes, too."""
    root = tmp_path / "root"
    tags = json.loads((tree.parent / "tags.json").read_text())
    signature = next(tag for tag in tags if tag.endswith(".sig"))
    data(broken, digest_of(LAYER)).unlink()
    for digest in (digest_of(EMPTY), tags["schema2"]):
        content = data(broken, digest).read_bytes()
        data(broken, digest).write_bytes(content[:-1] + b"!")
    (links(broken) / "tags" / "multi" / "current" / "link").write_bytes(b"")
    said = imported(broken, root, code=1)
    for digest in (digest_of(LAYER), digest_of(EMPTY), tags["schema2"]):
        assert f"left out: {REPOSITORY}@{digest}: " in said
    assert "multi/current/link is empty" in said
    lost = {"v1", "schema2", signature}
    for tag in lost:
        assert f"left out: {REPOSITORY}:{tag}: names {tags[tag]}, which did not come" in said
    with running(root) as server:
        door = Door(server.url)
        assert sorted(door.tags(REPOSITORY)) == sorted(tags.keys() - lost - {"multi"})
        door.assert_holds(REPOSITORY, multi.digest, multi)
        door.assert_holds("library/deep/er", "v1", multi)
        imported(tree, root)
        assert {tag: door.digest(REPOSITORY, tag) for tag in tags} == tags
    assert "nothing is wrong" in moorage("check", "--full", "--root", root).stdout


def diff_ids(image: Layout) -> list[str]:
    """The digests of an image's layers as they are unpacked."""
    configuration = image.manifest(image.manifest(image.digest)["config"]["digest"])
    found: list[str] = configuration["rootfs"]["diff_ids"]
    return found


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_what_skopeo_writes(form: str, run: Home, image: Layout, tmp_path: Path) -> None:
    """A layout, a tar of one, and docker's archive, whose image has other layers but the same content."""
    target, root = tmp_path / "image.tar", tmp_path / "root"
    name = "example.org/library/app:v7" if form == "docker-archive" else "v7"
    run("skopeo", "copy", f"oci:{image.root}:{image.tag}", f"{form}:{target}:{name}")
    options = [] if form == "docker-archive" else ["--repository", REPOSITORY]
    assert "1 repositories: 1 manifests, 1 tags" in imported(target, root, *options)
    assert "0 manifests, 0 tags, 0 blobs read" in imported(target, root, *options)
    with running(root) as server:
        door = Door(server.url)
        assert door.tags(REPOSITORY) == ["v7"]
        if form != "docker-archive":
            door.assert_holds(REPOSITORY, "v7", image)
        at = f"docker://{server.host}/{REPOSITORY}:v7"
        run("skopeo", "copy", FROM, at, f"oci:{tmp_path / 'pulled'}:v7")
        assert diff_ids(Layout(tmp_path / "pulled", "v7")) == diff_ids(image)


def test_folder_of_layouts(run: Home, image: Layout, multi: Layout, tmp_path: Path) -> None:
    """As zot and olareg keep them; a blob that two repositories share is mounted."""
    for name, source in (("a", multi), ("a/b", multi), ("c", image)):
        (tmp_path / "zot" / name).mkdir(parents=True)
        run("skopeo", "copy", "--all", KEEP, f"oci:{source.root}:{source.tag}", f"oci:{tmp_path / 'zot' / name}:v1")
    said = imported(tmp_path / "zot", tmp_path / "root", "--repository", "z")
    assert said.startswith("3 repositories: 7 manifests, 3 tags")
    assert ", 0 mounted" not in said
    with running(tmp_path / "root") as server:
        door = Door(server.url)
        for name, source in (("a", multi), ("a/b", multi), ("c", image)):
            door.assert_holds(f"z/{name}", "v1", source)


@pytest.mark.parametrize("program", ["zot", "olareg"])
def test_root_of_another_registry(program: str, run: Home, multi: Layout, tmp_path: Path) -> None:
    """What zot and olareg keep: an index and a referrer of it; lists that olareg itself keeps do not come."""
    old, root, port = tmp_path / "old", tmp_path / "root", free_port()
    settings = tmp_path / "zot.json"
    http = {"address": "127.0.0.1", "port": str(port)}
    settings.write_text(
        json.dumps({"distSpecVersion": "1.1.0", "storage": {"rootDirectory": str(old)}, "http": http})
    )
    arguments = [settings] if program == "zot" else ["--dir", old, "--port", str(port)]
    referrer = encode(support.artifact(subject=multi.descriptor | {"annotations": {}}))
    with started(tmp_path, port, program, "serve", *arguments) as door:
        at = f"docker://{door.url.removeprefix('http://')}/{REPOSITORY}"
        run("skopeo", "copy", "--all", KEEP, TO, f"oci:{multi.root}:multi", f"{at}:v1")
        push_blob(door, EMPTY)
        put(door, digest_of(referrer), referrer, OCI_MANIFEST)
    assert imported(old, root).startswith("1 repositories: 4 manifests, 1 tags")
    with running(root) as server:
        door = Door(server.url)
        door.assert_holds(REPOSITORY, "v1", multi)
        assert [each["digest"] for each in door.referrers(REPOSITORY, multi.digest)] == [digest_of(referrer)]


def test_schema_1_is_left_out(broken: Path, tmp_path: Path) -> None:
    """What no client pulls any more is named."""
    content = b'{"schemaVersion": 1, "name": "app", "tag": "old", "fsLayers": [], "history": []}'
    digest = digest_of(content)
    for path in ("revisions/" + digest.replace(":", "/"), "tags/old/current"):
        (links(broken) / path).mkdir(parents=True)
        (links(broken) / path / "link").write_text(digest)
    data(broken, digest).parent.mkdir(parents=True)
    data(broken, digest).write_bytes(content)
    said = imported(broken, tmp_path / "root", code=1)
    assert f"left out: {REPOSITORY}@{digest}: a manifest of schema 1" in said
    assert said.count("left out: ") == 2


def test_killed(tree: Path, tmp_path: Path) -> None:
    """Killed in the middle, it is done again to the end."""
    root = tmp_path / "root"
    tags = json.loads((tree.parent / "tags.json").read_text())
    for reached in range(1, 9, 2):
        command = [sys.executable, "-m", "moorage", "import", str(tree), "--root", str(root), "--jobs", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(
            lambda: process.poll() is not None or len(list((root / "blobs").glob("??/*"))) >= reached,  # noqa: B023
            "something came",
        )
        process.kill()
        process.wait()
    imported(tree, root)
    assert "nothing is wrong" in moorage("check", "--full", "--root", root).stdout
    with running(root) as server:
        door = Door(server.url)
        assert {tag: door.digest(REPOSITORY, tag) for tag in tags} == tags
