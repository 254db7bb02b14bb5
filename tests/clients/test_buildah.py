"""buildah builds an image from a Dockerfile and pushes it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout
from tests.clients.material import BUSYBOX

pytestmark = pytest.mark.clients

AT = "--tls-verify=false"
DOCKERFILE = """FROM {base}
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo built by buildah > /built"]
ENTRYPOINT ["/bin/busybox"]
"""


@pytest.fixture
def built(run: Home, reference: str, tmp_path: Path) -> str:
    """The test's repository, with an image built by buildah pushed as ``v1``."""
    shutil.copy(BUSYBOX, tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base="scratch"))
    run("buildah", "build", "--tag", f"{reference}:v1", tmp_path)
    run("buildah", "push", AT, "--digestfile", tmp_path / "digest", f"{reference}:v1")
    return reference


def test_build_and_push(built: str, door: Door, repository: str, tmp_path: Path) -> None:
    """The registry has the digest that buildah reported, and serves each blob of it whole."""
    assert door.digest(repository, "v1") == (tmp_path / "digest").read_text()
    content = json.loads(door.manifest(repository, "v1"))
    for descriptor in (content["config"], *content["layers"]):
        assert door.blob(repository, descriptor["digest"]) == descriptor["digest"]


def test_build_from_registry(run: Home, built: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A build ``FROM`` an image of the registry pulls it, and its layers are the first of the new image."""
    run("buildah", "rmi", "--all", "--force")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base=f"{built}:v1"))
    run("buildah", "build", AT, "--tag", f"{built}:v2", tmp_path)
    run("buildah", "push", AT, f"{built}:v2")
    first, second = (json.loads(door.manifest(repository, tag))["layers"] for tag in ("v1", "v2"))
    assert len(second) == len(first) + 1
    assert door.tags(repository) == ["v1", "v2"]


def test_pull(run: Home, built: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A pulled image has the digest of the pushed one, and its file system what the build wrote."""
    run("buildah", "rmi", "--all", "--force")
    run("buildah", "pull", AT, f"{built}:v1")
    (seen,) = run("buildah", "images", "--json", f"{built}:v1").json
    assert seen["digest"] == door.digest(repository, "v1")
    container = run("buildah", "from", "--pull-never", f"{built}:v1").out.strip()
    try:
        assert run("buildah", "run", container, "/bin/busybox", "cat", "/built").out == "built by buildah\n"
    finally:
        run("buildah", "rm", container)


def test_push_index(run: Home, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path) -> None:
    """``manifest push --all`` of an index with both platforms; what is pulled has the bytes of the images."""
    run("buildah", "manifest", "create", f"{reference}:v1")
    source = f"oci:{multi.root}:{multi.tag}"
    run("buildah", "manifest", "add", "--all", f"{reference}:v1", source)
    run("buildah", "manifest", "push", AT, "--all", "--format", "oci", f"{reference}:v1", f"docker://{reference}:v1")
    content = json.loads(door.manifest(repository, "v1"))
    assert [e["digest"] for e in content["manifests"]] == [
        d["digest"] for d in multi.manifest(multi.digest)["manifests"]
    ]
    for child in multi.manifest(multi.digest)["manifests"]:
        assert door.manifest(repository, child["digest"]) == multi.path(child["digest"]).read_bytes()


def test_copy(run: Home, built: str, door: Door, repository: str) -> None:
    """A push of the same image to another repository mounts its layers."""
    done = run("buildah", "--log-level", "debug", "push", AT, f"{built}:v1", f"{built}-copy:v1")
    assert done.err.count("mount OK") == len(json.loads(door.manifest(repository, "v1"))["layers"])
    assert door.digest(f"{repository}-copy", "v1") == door.digest(repository, "v1")
