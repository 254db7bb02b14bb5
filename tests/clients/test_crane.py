"""crane pushes, lists, pulls, changes, copies and deletes images without a container engine."""

import json
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout, assert_same, sha256

pytestmark = pytest.mark.clients


@pytest.fixture
def pushed(run: Home, image: Layout, reference: str) -> str:
    """The test's repository, with the image as ``v1``."""
    run("crane", "push", image.root, f"{reference}:v1")
    return reference


def test_push(pushed: str, door: Door, repository: str, image: Layout) -> None:
    """What crane pushed is served byte for byte."""
    door.assert_holds(repository, "v1", image)


def test_pull(run: Home, pushed: str, image: Layout, tmp_path: Path) -> None:
    """An image pulled into a layout has every byte of the one pushed; a layer alone too."""
    run("crane", "pull", "--format", "oci", f"{pushed}:v1", tmp_path / "pulled")
    assert_same(Layout(tmp_path / "pulled", "v1"), image)
    run("crane", "validate", "--remote", f"{pushed}:v1")
    assert run("crane", "manifest", f"{pushed}:v1").out.encode() == image.path(image.digest).read_bytes()
    assert run("crane", "digest", f"{pushed}:v1").out.strip() == image.digest
    config = image.manifest(image.digest)["config"]["digest"]
    assert run("crane", "config", f"{pushed}:v1").out.encode() == image.path(config).read_bytes()


def test_export(run: Home, pushed: str, tmp_path: Path) -> None:
    """The file system exported from the registry has the busybox that went into the image."""
    run("crane", "export", f"{pushed}:v1", tmp_path / "root.tar")
    run("tar", "--extract", "--file", tmp_path / "root.tar", "--directory", tmp_path)
    assert sha256(tmp_path / "bin" / "busybox") == sha256(Path("/bin/busybox"))


def test_index(run: Home, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path) -> None:
    """An index is pushed with its images, pulled byte for byte, and gives each platform its own image."""
    run("crane", "push", multi.root, f"{reference}:v1")
    door.assert_holds(repository, "v1", multi)
    run("crane", "pull", "--format", "oci", f"{reference}:v1", tmp_path / "pulled")
    assert_same(Layout(tmp_path / "pulled", "v1"), multi)
    for child in multi.manifest(multi.digest)["manifests"]:
        platform = f"linux/{child['platform']['architecture']}"
        assert run("crane", "digest", "--platform", platform, f"{reference}:v1").out.strip() == child["digest"]


def test_index_append(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """``index append`` makes an index of an image that is already there."""
    run("crane", "index", "append", "--manifest", f"{pushed}:v1", "--tag", f"{pushed}:index")
    (child,) = json.loads(door.manifest(repository, "index"))["manifests"]
    assert child["digest"] == image.digest


def test_list(run: Home, pushed: str, host: str, repository: str) -> None:
    """``ls`` shows the tags in order, however many; ``catalog`` shows the repository."""
    tags = sorted(f"t{number}" for number in range(30))
    for tag in tags:
        run("crane", "tag", f"{pushed}:v1", tag)
    assert run("crane", "ls", pushed).lines == [*tags, "v1"]
    assert repository in run("crane", "catalog", host).lines


def test_copy(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A copy to another repository mounts each blob, and is the same image."""
    done = run("crane", "--verbose", "copy", f"{pushed}:v1", f"{pushed}-copy:v1")
    assert done.err.count("mounted blob:") == len(image.layers) + 1
    assert "PATCH" not in done.err
    door.assert_holds(f"{repository}-copy", "v1", image)


def test_copy_all_tags(run: Home, pushed: str, door: Door, repository: str) -> None:
    """``copy --all-tags`` copies every tag of a repository."""
    run("crane", "tag", f"{pushed}:v1", "v2")
    run("crane", "copy", "--all-tags", pushed, f"{pushed}-copy")
    assert door.tags(f"{repository}-copy") == ["v1", "v2"]


def test_mutate(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A changed label makes a new image on the same layers, and leaves the first as it was."""
    run("crane", "mutate", "--label", "color=blue", "--tag", f"{pushed}:v2", f"{pushed}:v1")
    content = json.loads(door.manifest(repository, "v2"))
    assert [layer["digest"] for layer in content["layers"]] == image.layers
    assert run("crane", "config", f"{pushed}:v2").json["config"]["Labels"] == {"color": "blue"}
    door.assert_holds(repository, "v1", image)


def test_move_a_tag(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A tag that is pushed again names the new image; the old one stays there by digest."""
    run("crane", "mutate", "--label", "color=red", "--tag", f"{pushed}:v1", f"{pushed}:v1")
    assert door.digest(repository, "v1") != image.digest
    door.assert_holds(repository, image.digest, image)


def test_append(run: Home, pushed: str, door: Door, repository: str, image: Layout, tmp_path: Path) -> None:
    """``append`` streams a new layer on top of an image in the registry."""
    (tmp_path / "note").write_text("one more layer\n")
    run("tar", "--create", "--file", tmp_path / "layer.tar", "--directory", tmp_path, "note")
    run(
        "crane",
        "append",
        "--base",
        f"{pushed}:v1",
        "--new_layer",
        tmp_path / "layer.tar",
        "--new_tag",
        f"{pushed}:v2",
    )
    layers = [layer["digest"] for layer in json.loads(door.manifest(repository, "v2"))["layers"]]
    assert layers[:-1] == image.layers
    assert door.blob(repository, layers[-1]) == layers[-1]


def test_delete(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A deleted tag is gone while the image stays by digest; deleted by digest, it is gone too."""
    run("crane", "tag", f"{pushed}:v1", "v2")
    run("crane", "delete", f"{pushed}:v1")
    assert run("crane", "ls", pushed).lines == ["v2"]
    assert door.has(repository, "manifests", image.digest)
    run("crane", "delete", f"{pushed}@{image.digest}")
    assert door.tags(repository) == []
    assert not door.has(repository, "manifests", image.digest)
