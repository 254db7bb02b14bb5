"""containerd pushes, pulls and runs images."""

from pathlib import Path

import pytest

from tests.clients.engines import Engines
from tests.clients.kit import Door, Home, Layout, assert_same

pytestmark = pytest.mark.clients

HTTP = "--plain-http"
SNAPSHOTS = ("--snapshotter", "native")


def load(engines: Engines, run: Home, image: Layout, reference: str, folder: Path) -> None:
    """Bring an image from its layout into containerd under the tag ``v1``."""
    archive = folder / "image.tar"
    run("tar", "--create", "--file", archive, "--directory", image.root, ".")
    engines.ctr("images", "import", "--all-platforms", "--no-unpack", "--base-name", reference, archive)
    engines.ctr("images", "tag", f"{reference}:{image.tag}", f"{reference}:v1")


def forget(engines: Engines) -> None:
    """Remove all images, and see that no content is left."""
    engines.ctr("images", "rm", "--sync", *engines.ctr("images", "ls", "--quiet").lines)
    assert engines.ctr("content", "ls", "--quiet").out == ""


@pytest.fixture
def pushed(engines: Engines, run: Home, image: Layout, reference: str, tmp_path: Path) -> str:
    """The test's repository, with the image pushed by containerd as ``v1`` and then forgotten by it."""
    load(engines, run, image, reference, tmp_path)
    engines.ctr("images", "push", HTTP, f"{reference}:v1")
    forget(engines)
    return reference


def test_push(pushed: str, door: Door, repository: str, image: Layout) -> None:
    """What containerd pushed is served byte for byte."""
    door.assert_holds(repository, "v1", image)


def test_pull_and_run(engines: Engines, pushed: str, repository: str) -> None:
    """The image is pulled again, and its container runs."""
    engines.ctr("images", "pull", HTTP, *SNAPSHOTS, f"{pushed}:v1")
    done = engines.ctr("run", "--rm", *SNAPSHOTS, f"{pushed}:v1", repository.replace("/", "-"))
    assert done.out == "made for amd64\n"


def test_pull_by_digest(engines: Engines, run: Home, pushed: str, image: Layout, tmp_path: Path) -> None:
    """An image pulled by its digest has every byte of the one pushed."""
    engines.ctr("images", "pull", HTTP, *SNAPSHOTS, f"{pushed}@{image.digest}")
    engines.ctr("images", "export", tmp_path / "pulled.tar", f"{pushed}@{image.digest}")
    (tmp_path / "pulled").mkdir()
    run("tar", "--extract", "--file", tmp_path / "pulled.tar", "--directory", tmp_path / "pulled")
    assert_same(Layout(tmp_path / "pulled", "v1"), image)


def test_multi_platform(
    engines: Engines, run: Home, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path
) -> None:
    """An index is pushed with all its images, and of all platforms pulled byte for byte."""
    load(engines, run, multi, reference, tmp_path)
    engines.ctr("images", "push", HTTP, f"{reference}:v1")
    door.assert_holds(repository, "v1", multi)
    forget(engines)
    engines.ctr("images", "pull", HTTP, *SNAPSHOTS, "--all-platforms", f"{reference}:v1")
    engines.ctr("images", "export", "--all-platforms", tmp_path / "pulled.tar", f"{reference}:v1")
    (tmp_path / "pulled").mkdir()
    run("tar", "--extract", "--file", tmp_path / "pulled.tar", "--directory", tmp_path / "pulled")
    assert_same(Layout(tmp_path / "pulled", "v1"), multi)


def test_copy(engines: Engines, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A pulled image that is pushed to another repository is mounted there, not sent."""
    engines.ctr("images", "pull", HTTP, *SNAPSHOTS, f"{pushed}:v1")
    engines.ctr("images", "tag", f"{pushed}:v1", f"{pushed}-copy:v1")
    done = engines.ctr("--debug", "images", "push", HTTP, "--http-dump", f"{pushed}-copy:v1")
    for descriptor in list(image.walk())[1:]:
        assert f"blobs/uploads/?mount={descriptor['digest']}&from={repository} HTTP" in done.text
    assert f"PUT /v2/{repository}-copy/manifests/v1" in done.text
    assert f"PUT /v2/{repository}-copy/blobs" not in done.text
    door.assert_holds(f"{repository}-copy", "v1", image)


def test_gone(engines: Engines, run: Home, pushed: str) -> None:
    """An image deleted from the registry can no longer be pulled."""
    run("crane", "delete", f"{pushed}:v1")
    assert "not found" in engines.ctr("images", "pull", HTTP, *SNAPSHOTS, f"{pushed}:v1", check=False).err
