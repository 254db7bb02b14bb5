"""regctl manages images, artifacts, blobs and tags."""

import json
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout, assert_same

pytestmark = pytest.mark.clients

REPORT = "application/vnd.example.report"


class Regctl:
    """regctl, told that the registry speaks plain HTTP."""

    def __init__(self, run: Home, host: str) -> None:
        self.run = run
        self.start = ("--host", f"reg={host},tls=disabled")

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        return self.run("regctl", *self.start, *arguments, check=check).out

    def trace(self, *arguments: str | Path) -> str:
        """The log of each request."""
        return self.run("regctl", *self.start, "--verbosity", "trace", *arguments).err


@pytest.fixture
def regctl(run: Home, host: str) -> Regctl:
    return Regctl(run, host)


@pytest.fixture
def pushed(regctl: Regctl, image: Layout, reference: str) -> str:
    """The test's repository, with the image as ``v1``."""
    regctl("image", "copy", f"ocidir://{image.root}:{image.tag}", f"{reference}:v1")
    return reference


def test_push(pushed: str, door: Door, repository: str, image: Layout) -> None:
    """What regctl pushed is served byte for byte."""
    door.assert_holds(repository, "v1", image)


def test_pull(regctl: Regctl, pushed: str, image: Layout, tmp_path: Path) -> None:
    """An image pulled into a layout has every byte of the one pushed."""
    regctl("image", "copy", f"{pushed}:v1", f"ocidir://{tmp_path}/pulled:v1")
    assert_same(Layout(tmp_path / "pulled", "v1"), image)
    assert regctl("image", "digest", f"{pushed}:v1").strip() == image.digest


def test_index(regctl: Regctl, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path) -> None:
    """A multi-platform image is pushed and pulled byte for byte, and each platform has its digest."""
    regctl("image", "copy", f"ocidir://{multi.root}:{multi.tag}", f"{reference}:v1")
    door.assert_holds(repository, "v1", multi)
    regctl("image", "copy", f"{reference}:v1", f"ocidir://{tmp_path}/pulled:v1")
    assert_same(Layout(tmp_path / "pulled", "v1"), multi)
    for child in multi.manifest(multi.digest)["manifests"]:
        platform = f"linux/{child['platform']['architecture']}"
        assert regctl("image", "digest", "--platform", platform, f"{reference}:v1").strip() == child["digest"]


def test_index_add(regctl: Regctl, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """``index create`` joins images that are there, and ``index delete`` takes one out again."""
    regctl("index", "create", "--ref", f"{pushed}:v1", f"{pushed}:index")
    (child,) = json.loads(door.manifest(repository, "index"))["manifests"]
    assert child["digest"] == image.digest
    regctl("index", "delete", "--digest", image.digest, f"{pushed}:index")
    assert json.loads(door.manifest(repository, "index"))["manifests"] == []


def test_list(regctl: Regctl, pushed: str, host: str, repository: str) -> None:
    """``tag ls`` and ``repo ls`` show tags and repositories, also page by page."""
    for tag in ("v2", "v3"):
        regctl("image", "copy", f"{pushed}:v1", f"{pushed}:{tag}")
    assert regctl("tag", "ls", pushed).split() == ["v1", "v2", "v3"]
    assert regctl("tag", "ls", "--limit", "2", pushed).split() == ["v1", "v2"]
    assert regctl("tag", "ls", "--last", "v2", pushed).split() == ["v3"]
    assert repository in regctl("repo", "ls", host).split()


def test_copy(regctl: Regctl, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A copy to another repository is done by mounts alone, and is the same image."""
    log = regctl.trace("image", "copy", f"{pushed}:v1", f"{pushed}-copy:v1")
    assert log.count("performed server side with registry mount") == len(image.layers) + 1
    assert "req-method=PATCH" not in log
    door.assert_holds(f"{repository}-copy", "v1", image)


def test_blob(regctl: Regctl, run: Home, reference: str, pushed: str, door: Door, repository: str) -> None:
    """A blob is put, found, copied by a mount to another repository, and deleted there only."""
    script = f'echo a blob | "$0" {" ".join(regctl.start)} blob put {reference}'
    digest = run("sh", "-c", script, "regctl").out.strip()
    assert regctl("blob", "get", reference, digest) == "a blob\n"
    regctl("blob", "head", reference, digest)
    regctl("blob", "copy", reference, f"{reference}-copy", digest)
    assert door.blob(f"{repository}-copy", digest) == digest
    regctl("blob", "delete", f"{reference}-copy", digest)
    assert not door.has(f"{repository}-copy", "blobs", digest)
    assert door.has(repository, "blobs", digest)


def test_artifact(regctl: Regctl, pushed: str, door: Door, repository: str, image: Layout, tmp_path: Path) -> None:
    """An artifact put with a subject is listed as its referrer, shown in the tree, and fetched byte for byte."""
    (tmp_path / "report.json").write_text('{"report": "first"}')
    regctl(
        *("artifact", "put", "--artifact-type", REPORT, "--file", tmp_path / "report.json"),
        *("--annotation", "text=first", "--subject", f"{pushed}:v1"),
    )
    (entry,) = json.loads(regctl("artifact", "list", "--format", "body", f"{pushed}:v1"))["manifests"]
    assert (entry["artifactType"], entry["annotations"]["text"]) == (REPORT, "first")
    assert [found["digest"] for found in door.referrers(repository, image.digest)] == [entry["digest"]]
    assert entry["digest"] in regctl("artifact", "tree", f"{pushed}:v1")
    filters = ("--filter-artifact-type", REPORT, "--subject")
    assert regctl("artifact", "get", *filters, f"{pushed}:v1") == '{"report": "first"}'
    assert door.tags(repository) == ["v1"]


def test_copy_with_referrers(
    regctl: Regctl, pushed: str, door: Door, repository: str, tmp_path: Path, image: Layout
) -> None:
    """``image copy --referrers`` brings the artifacts that refer to the image along."""
    (tmp_path / "report.json").write_text('{"report": "first"}')
    regctl(
        "artifact", "put", "--artifact-type", REPORT, "--file", tmp_path / "report.json", "--subject", f"{pushed}:v1"
    )
    regctl("image", "copy", "--referrers", f"{pushed}:v1", f"{pushed}-copy:v1")
    copied, original = (door.referrers(name, image.digest) for name in (f"{repository}-copy", repository))
    assert copied == original != []


def test_modify(regctl: Regctl, pushed: str, door: Door, repository: str) -> None:
    """``image mod`` writes a changed image beside the first."""
    regctl("image", "mod", "--annotation", "color=blue", "--create", f"{pushed}:v2", f"{pushed}:v1")
    assert json.loads(door.manifest(repository, "v2"))["annotations"] == {"color": "blue"}
    assert "annotations" not in json.loads(door.manifest(repository, "v1"))


def test_delete(regctl: Regctl, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """``tag delete`` leaves the image and its other tags; ``manifest delete`` removes the image."""
    regctl("image", "copy", f"{pushed}:v1", f"{pushed}:v2")
    regctl("tag", "delete", f"{pushed}:v1")
    assert regctl("tag", "ls", pushed).split() == ["v2"]
    door.assert_holds(repository, "v2", image)
    regctl("manifest", "delete", f"{pushed}@{image.digest}")
    assert not door.has(repository, "manifests", image.digest)
    assert door.tags(repository) == []
