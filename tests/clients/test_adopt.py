"""A real registry's storage tree is served where it lies and stays as it was; the old registry goes on with it."""

import json
import os
import shutil
from pathlib import Path

import httpx
import pytest

from tests import support
from tests.buckets import Engine
from tests.clients.kit import Door, Home, Layout
from tests.clients.trees import REPOSITORY, data, digests_of, distribution, fill, links, put
from tests.server import as_environment, running
from tests.support import EMPTY, LAYER, OCI_MANIFEST, digest_of, encode
from tests.test_cli import refused
from tests.test_cli import run as moorage

pytestmark = [pytest.mark.clients, pytest.mark.own_root]


@pytest.fixture(scope="module", params=["docker-registry", "registry"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, run: Home, multi: Layout) -> Path:
    """The folder of a registry's settings and of its storage tree."""
    folder = tmp_path_factory.mktemp(request.param)
    with distribution(request.param, folder) as door:
        (folder / "tags.json").write_text(json.dumps(fill(door, run, multi)))
    (folder / "program").write_text(request.param)
    return folder


@pytest.fixture
def old(kept: Path, tmp_path: Path) -> Path:
    """A copy of it, for a test that lets the old registry go on."""
    return Path(shutil.copytree(kept, tmp_path / "old"))


def program(old: Path) -> str:
    return (old / "program").read_text()


def tags_of(old: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((old / "tags.json").read_text())
    return found


def listing(tree: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path of a tree with its mode, the time it was changed and its bytes."""
    found = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        state = path.lstat()
        found[str(path)] = state.st_mode, state.st_mtime_ns, path.read_bytes() if path.is_file() else b""
    return found


def adopted(tree: Path | str, root: Path, *options: str | Path, code: int = 0) -> str:
    done = moorage("adopt", tree, "--root", root, *options)
    assert (done.returncode, done.stderr) == (code, ""), done
    return done.stdout


def delete(door: Door, reference: str) -> None:
    assert door.request("DELETE", f"{REPOSITORY}/manifests/{reference}").status_code == 202


def comes(door: Door, digest: str) -> bool:
    """Whether a blob is answered with 200 and as many bytes as are announced."""
    try:
        return door.request("GET", f"{REPOSITORY}/blobs/{digest}").status_code == 200
    except httpx.RemoteProtocolError:
        return False


def assert_served(door: Door, tags: dict[str, str], multi: Layout) -> None:
    """Every tag and digest pulls byte for byte, and referrers answer."""
    assert {tag: door.digest(REPOSITORY, tag) for tag in door.tags(REPOSITORY)} == tags
    for digest in tags.values():
        assert list(digests_of(door, REPOSITORY, digest))
    door.assert_holds(REPOSITORY, "multi", multi)
    door.assert_holds("library/deep/er", "v1", multi)
    (entry,) = door.referrers(REPOSITORY, tags["v1"])
    assert entry["artifactType"] == "application/vnd.example.sbom"


def test_served_where_it_lies(old: Path, multi: Layout, run: Home, tmp_path: Path) -> None:
    """No byte is copied, pushes go elsewhere, the tree is as it was, and the old registry starts on it again."""
    tree, root, tags = old / "tree", tmp_path / "root", tags_of(old)
    before = listing(tree)
    said = adopted(tree, root)
    assert said.startswith("2 repositories: 11 manifests, 6 tags, ")
    assert f"adopt = {str(tree)!r}" in said
    assert not list((root / "blobs").glob("*/*"))
    with running(root, MOORAGE_ADOPT=str(tree / "docker")) as server:
        door = Door(server.url)
        assert_served(door, tags, multi)
        at = f"docker://{server.host}/{REPOSITORY}"
        run("skopeo", "copy", "--all", "--src-tls-verify=false", f"{at}:multi", f"oci:{tmp_path / 'pulled'}:multi")
        put(door, "new", encode(support.image()), OCI_MANIFEST)  # over blobs in the tree
        delete(door, tags["schema2"])
        assert "0 manifests, 0 tags, 0 blobs" in adopted(tree, root)
        assert sorted(door.tags(REPOSITORY)) == sorted({*tags, "new"} - {"schema2"})
        moorage("collect", "--grace", "0", "--history", "0", "--root", root, MOORAGE_ADOPT=str(tree))
        assert door.blob(REPOSITORY, digest_of(LAYER)) == digest_of(LAYER)
    done = moorage("check", "--full", "--root", root, MOORAGE_ADOPT=str(tree))
    assert "nothing is wrong" in done.stdout, done
    assert listing(tree) == before
    with distribution(program(old), old) as door:
        assert {tag: door.digest(REPOSITORY, tag) for tag in door.tags(REPOSITORY)} == tags
        assert all(list(digests_of(door, REPOSITORY, digest)) for digest in tags.values())


def test_while_the_old_registry_serves(old: Path, multi: Layout, tmp_path: Path) -> None:
    """A second run takes what came since; what was moved or deleted here stays so, whatever the tree names."""
    tree, root, tags = old / "tree", tmp_path / "root", tags_of(old)
    image, other = encode(support.image()), encode(support.image(layers=[EMPTY]))
    with distribution(program(old), old) as door:
        for tag in ("follows", "moved", "deleted", "twice"):
            put(door, tag, image, OCI_MANIFEST)
        adopted(tree, root)
        with running(root, MOORAGE_ADOPT=str(tree)) as server:
            here = Door(server.url)
            put(here, "moved", encode(support.image(annotations={"a": "b"})), OCI_MANIFEST)
            moved = here.digest(REPOSITORY, "moved")
            delete(here, "deleted")
            delete(here, "twice")
            adopted(tree, root)
            for tag in ("follows", "moved", "twice", "fresh"):
                put(door, tag, other, OCI_MANIFEST)
            said = adopted(tree, root, code=1)
            for tag in ("moved", "twice"):
                assert f"left out: {REPOSITORY}:{tag}: was changed here" in said
            assert said.count("left out: ") == 2
            assert "left out: " not in adopted(tree, root)
            assert here.digest(REPOSITORY, "follows") == here.digest(REPOSITORY, "fresh") == digest_of(other)
            assert here.digest(REPOSITORY, "moved") == moved
            assert sorted(here.tags(REPOSITORY)) == sorted({*tags, "follows", "fresh", "moved"})
    assert "by adopt" in moorage("history", f"{REPOSITORY}:v1", "--root", root, MOORAGE_ADOPT=str(tree)).stdout


def test_finished(old: Path, multi: Layout, tmp_path: Path) -> None:
    """Taken in while a server serves, the bytes are the registry's own: the tree may go, and so the setting."""
    tree, root, tags = old / "tree", tmp_path / "root", tags_of(old)
    adopted(tree, root)
    assert "until `moorage adopt --finish`" in refused("check", "--root", root)
    assert "until `moorage adopt --finish`" in refused("backup", tmp_path / "backup", "--root", root)
    with running(root, MOORAGE_ADOPT=str(tree)) as server:
        assert_served(Door(server.url), tags, multi)
        said = adopted(tree, root, "--finish", "--rate", "100")
        assert said.endswith(", 0 damaged\n")
        assert not said.startswith("0 blobs")
        assert_served(Door(server.url), tags, multi)
    assert adopted(tree, root, "--finish").startswith("0 blobs taken in")
    shutil.rmtree(tree)
    assert "nothing is wrong" in moorage("check", "--full", "--root", root).stdout
    with running(root) as server:
        assert_served(Door(server.url), tags, multi)


def test_backup_and_migrate(old: Path, multi: Layout, tmp_path: Path) -> None:
    """A backup holds the bytes too and stands alone, also where it is restored; the next one copies nothing."""
    tree, root, tags = old / "tree", tmp_path / "root", tags_of(old)
    adopted(tree, root)
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    assert moorage("backup", backup, "--root", root, MOORAGE_ADOPT=str(tree)).returncode == 0
    assert ": 0 objects copied" in moorage("backup", backup, "--root", root, MOORAGE_ADOPT=str(tree)).stdout
    shutil.rmtree(tree)
    assert "nothing is wrong" in moorage("check", "--full", "--root", backup).stdout
    assert moorage("restore-backup", backup, "--root", restored).returncode == 0
    with running(restored) as server:
        assert_served(Door(server.url), tags, multi)


def test_damaged_tree(old: Path, multi: Layout, tmp_path: Path) -> None:
    """What is missing or cut short does not come; a flipped byte is never served in whole, and a push mends it."""
    tree, root, tags = old / "tree", tmp_path / "root", tags_of(old)
    signature = next(tag for tag in tags if tag.endswith(".sig"))
    broken = Path(shutil.copytree(tree, tmp_path / "broken"))
    os.truncate(data(broken, digest_of(EMPTY)), 1)
    content = bytearray(data(broken, digest_of(LAYER)).read_bytes())
    content[-1] ^= 1
    data(broken, digest_of(LAYER)).write_bytes(content)
    data(broken, multi.layers[0]).unlink()
    (links(broken) / "tags" / "schema2" / "current" / "link").write_bytes(b"")
    said = adopted(broken, root, code=1)
    assert f"left out: {REPOSITORY}@{tags[signature]}: a blob is cut short" in said
    assert multi.layers[0] in said
    with running(root, MOORAGE_ADOPT=str(broken)) as server:
        door = Door(server.url)
        assert set(door.tags(REPOSITORY)) == {"v1", digest_of(encode(support.image())).replace(":", "-")}
        for _ in range(3):
            assert not comes(door, digest_of(LAYER))
    done = moorage("check", "--root", root, MOORAGE_ADOPT=str(broken))
    assert "quarantined: its bytes have the digest" in done.stdout
    adopted(tree, root)


def test_tree_in_a_bucket(kept: Path, seaweedfs: Engine, run: Home, multi: Layout, tmp_path: Path) -> None:
    """As distribution's driver for S3 keeps it; the bucket holds what it held, and the old registry goes on."""
    folder, root, settings = tmp_path / f"{program(kept)}-adopt", tmp_path / "root", tmp_path / "moorage.toml"
    folder.mkdir()
    with distribution(program(kept), folder, seaweedfs) as door:
        tags = fill(door, run, multi)
    place = f"{seaweedfs.settings['storage']}/{folder.name}"
    wanted = {**seaweedfs.settings, "storage": "filesystem", "adopt": place}
    settings.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in wanted.items()))
    done = moorage("adopt", "--config", settings, "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    with running(root, **as_environment(wanted)) as server:
        assert_served(Door(server.url), tags, multi)
        assert not list((root / "blobs").glob("*/*"))
        assert moorage("adopt", "--finish", "--config", settings, "--root", root).returncode == 0
        assert_served(Door(server.url), tags, multi)
    with distribution(program(kept), folder, seaweedfs) as door:
        assert {tag: door.digest(REPOSITORY, tag) for tag in door.tags(REPOSITORY)} == tags
