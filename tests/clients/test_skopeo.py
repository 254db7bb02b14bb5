"""skopeo copies images between layouts, folders and repositories."""

import json
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout, assert_same

pytestmark = pytest.mark.clients

TO = "--dest-tls-verify=false"
FROM = "--src-tls-verify=false"
AT = "--tls-verify=false"
# Else skopeo may take another packing of a layer that it knows to be there.
KEEP = "--preserve-digests"


@pytest.fixture
def pushed(run: Home, image: Layout, reference: str) -> str:
    """The test's repository, with the image as ``v1``."""
    run("skopeo", "copy", KEEP, TO, f"oci:{image.root}:{image.tag}", f"docker://{reference}:v1")
    return reference


def test_push(pushed: str, door: Door, repository: str, image: Layout) -> None:
    """What skopeo pushed is served byte for byte, by tag and by digest."""
    door.assert_holds(repository, "v1", image)
    door.assert_holds(repository, image.digest, image)


def test_pull(run: Home, pushed: str, image: Layout, tmp_path: Path) -> None:
    """An image pulled by tag or by digest into a layout has every byte of the one pushed."""
    for name, suffix in (("tag", ":v1"), ("digest", f"@{image.digest}")):
        run("skopeo", "copy", FROM, f"docker://{pushed}{suffix}", f"oci:{tmp_path / name}:v1")
        assert_same(Layout(tmp_path / name, "v1"), image)


def test_all_platforms(run: Home, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path) -> None:
    """``copy --all`` pushes an index with all its images and pulls the same bytes; one platform can be chosen."""
    run("skopeo", "copy", "--all", KEEP, TO, f"oci:{multi.root}:{multi.tag}", f"docker://{reference}:v1")
    door.assert_holds(repository, "v1", multi)
    run("skopeo", "copy", "--all", KEEP, FROM, f"docker://{reference}:v1", f"oci:{tmp_path / 'all'}:v1")
    assert_same(Layout(tmp_path / "all", "v1"), multi)
    arm = [child["digest"] for child in multi.manifest(multi.digest)["manifests"]][1]
    run(
        "skopeo",
        "--override-arch",
        "arm64",
        "copy",
        FROM,
        f"docker://{reference}:v1",
        f"oci:{tmp_path / 'arm'}:v1",
    )
    assert Layout(tmp_path / "arm", "v1").digest == arm


def test_list(run: Home, pushed: str, image: Layout) -> None:
    """``list-tags`` shows the tags in order, ``inspect`` the digest and the layers."""
    for tag in ("v10", "v2"):
        run("skopeo", "copy", KEEP, FROM, TO, f"docker://{pushed}:v1", f"docker://{pushed}:{tag}")
    assert run("skopeo", "list-tags", AT, f"docker://{pushed}").json["Tags"] == ["v1", "v10", "v2"]
    seen = run("skopeo", "inspect", AT, f"docker://{pushed}:v1").json
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == image.layers
    raw = run("skopeo", "inspect", "--raw", AT, f"docker://{pushed}:v1")
    assert raw.out.encode() == image.path(image.digest).read_bytes()


def test_copy(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A copy to another repository mounts the layers instead of sending them, and is the same image."""
    done = run("skopeo", "--debug", "copy", KEEP, FROM, TO, f"docker://{pushed}:v1", f"docker://{pushed}-copy:v1")
    assert done.err.count("mount OK") == len(image.layers)
    door.assert_holds(f"{repository}-copy", "v1", image)


def test_convert(run: Home, reference: str, door: Door, repository: str, image: Layout) -> None:
    """An image pushed in Docker's format keeps that format's media type and layers."""
    source = f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", TO, "--format", "v2s2", source, f"docker://{reference}:v1")
    content = json.loads(door.manifest(repository, "v1"))
    assert content["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert [layer["digest"] for layer in content["layers"]] == image.layers
    response = door.request("GET", f"{repository}/manifests/v1")
    assert response.headers["content-type"] == content["mediaType"]


def test_sync(run: Home, pushed: str, image: Layout, tmp_path: Path) -> None:
    """``sync`` finds every tag of a repository and brings all of them to a folder."""
    run("skopeo", "copy", KEEP, FROM, TO, f"docker://{pushed}:v1", f"docker://{pushed}:v2")
    run("skopeo", "sync", FROM, "--src", "docker", "--dest", "dir", pushed, tmp_path)
    manifests = sorted(tmp_path.glob("*/manifest.json"))
    assert [path.parent.name.rpartition(":")[2] for path in manifests] == ["v1", "v2"]
    assert {path.read_bytes() for path in manifests} == {image.path(image.digest).read_bytes()}


def test_delete(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """``delete`` removes the manifest that the tag names, with every tag on it; it then cannot be pulled."""
    run("skopeo", "delete", AT, f"docker://{pushed}:v1")
    assert not door.has(repository, "manifests", "v1")
    assert not door.has(repository, "manifests", image.digest)
    assert door.tags(repository) == []
    assert "manifest unknown" in run("skopeo", "inspect", AT, f"docker://{pushed}:v1", check=False).err
