"""The Docker engine builds, pushes, pulls and runs images."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.clients.engines import Engines
from tests.clients.kit import Door, Home, Layout
from tests.clients.material import BUSYBOX

pytestmark = pytest.mark.clients

DOCKERFILE = """FROM {base}
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo built by docker >> /built"]
ENTRYPOINT ["/bin/busybox"]
CMD ["cat", "/built"]
"""


def forget(engines: Engines) -> None:
    """Remove all images, and see that none is left."""
    engines.docker("image", "prune", "--all", "--force")
    assert engines.docker("images", "--all", "--quiet").out == ""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with busybox."""
    shutil.copy(BUSYBOX, tmp_path / "busybox")
    return tmp_path


@pytest.fixture(scope="module")
def built(engines: Engines, scratch: Path) -> Path:
    """An archive of an image that docker built; the engine itself no longer has the image."""
    folder = scratch / "built"
    folder.mkdir()
    shutil.copy(BUSYBOX, folder / "busybox")
    (folder / "Dockerfile").write_text(DOCKERFILE.format(base="scratch"))
    engines.docker("build", "--network", "none", "--tag", "built:v1", folder)
    engines.docker("save", "--output", folder / "built.tar", "built:v1")
    forget(engines)
    return folder / "built.tar"


@pytest.fixture
def pushed(engines: Engines, reference: str, built: Path) -> str:
    """The test's repository, with the built image pushed as ``v1``."""
    forget(engines)
    engines.docker("load", "--input", built)
    engines.docker("tag", "built:v1", f"{reference}:v1")
    engines.docker("rmi", "built:v1")
    engines.docker("push", f"{reference}:v1")
    return reference


def test_build_and_push(engines: Engines, pushed: str, door: Door, repository: str) -> None:
    """The registry has the digest that docker reported, and serves each blob of it whole."""
    again = engines.docker("push", f"{pushed}:v1").out
    assert again.count("Layer already exists") == 2
    reported = re.search(r"digest: (sha256:\w+) size: (\d+)", again)
    assert reported
    content = door.manifest(repository, "v1")
    assert (door.digest(repository, "v1"), len(content)) == (reported[1], int(reported[2]))
    manifest = json.loads(content)
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    for descriptor in (manifest["config"], *manifest["layers"]):
        assert door.blob(repository, descriptor["digest"]) == descriptor["digest"]


def test_pull_and_run(engines: Engines, pushed: str) -> None:
    """An image that was pushed, removed and pulled is the same one, and its container runs."""
    identity = engines.docker("inspect", "--format", "{{.Id}}", f"{pushed}:v1").out
    forget(engines)
    assert "Downloaded newer image" in engines.docker("pull", f"{pushed}:v1").out
    assert engines.docker("inspect", "--format", "{{.Id}}", f"{pushed}:v1").out == identity
    assert engines.docker("run", "--rm", "--network", "none", f"{pushed}:v1").out == "built by docker\n"


def test_pull_by_digest(engines: Engines, pushed: str, door: Door, repository: str) -> None:
    """An image is pulled by its digest, without any tag."""
    name = f"{pushed}@{door.digest(repository, 'v1')}"
    forget(engines)
    engines.docker("pull", name)
    assert engines.docker("inspect", "--format", "{{.RepoDigests}}", name).out == f"[{name}]\n"


def test_all_tags(engines: Engines, pushed: str, door: Door, repository: str) -> None:
    """``push --all-tags`` and ``pull --all-tags`` take every tag of the repository."""
    for tag in ("v2", "v3"):
        engines.docker("tag", f"{pushed}:v1", f"{pushed}:{tag}")
    engines.docker("push", "--all-tags", pushed)
    assert door.tags(repository) == ["v1", "v2", "v3"]
    forget(engines)
    engines.docker("pull", "--all-tags", pushed)
    assert sorted(engines.docker("images", "--format", "{{.Tag}}", pushed).lines) == ["v1", "v2", "v3"]


def test_copy(engines: Engines, pushed: str, door: Door, repository: str) -> None:
    """A push of the image to another repository mounts its layers, and is the same image."""
    engines.docker("tag", f"{pushed}:v1", f"{pushed}-copy:v1")
    done = engines.docker("push", f"{pushed}-copy:v1")
    assert done.out.count(f"Mounted from {repository}") == 2
    assert door.manifest(f"{repository}-copy", "v1") == door.manifest(repository, "v1")


def test_build_from_registry(engines: Engines, pushed: str, context: Path) -> None:
    """A build ``FROM`` an image of the registry pulls it, and the new image has its content."""
    forget(engines)
    (context / "Dockerfile").write_text(DOCKERFILE.format(base=f"{pushed}:v1"))
    engines.docker("build", "--network", "none", "--pull", "--no-cache", "--tag", f"{pushed}:v2", context)
    engines.docker("push", f"{pushed}:v2")
    forget(engines)
    done = engines.docker("run", "--rm", "--network", "none", f"{pushed}:v2")
    assert done.out == "built by docker\n" * 2


def test_buildkit(engines: Engines, pushed: str, context: Path, door: Door, repository: str) -> None:
    """BuildKit pulls its base from the registry, and takes its cache from an image that carries one."""
    forget(engines)
    (context / "Dockerfile").write_text(f"FROM {pushed}:v1\nCOPY busybox /bin/another\n")
    options = ("build", "--progress", "plain", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "--tag", f"{pushed}:v2")
    engines.docker(*options, context, DOCKER_BUILDKIT="1")
    engines.docker("push", f"{pushed}:v2")
    assert len(json.loads(door.manifest(repository, "v2"))["layers"]) == 3
    engines.docker("builder", "prune", "--all", "--force")
    forget(engines)
    done = engines.docker(*options, "--cache-from", f"{pushed}:v2", context, DOCKER_BUILDKIT="1")
    assert "CACHED" in done.err


def test_multi_platform(engines: Engines, run: Home, reference: str, multi: Layout) -> None:
    """Of a multi-platform image docker pulls and runs the one for this machine."""
    run("crane", "push", multi.root, f"{reference}:v1")
    engines.docker("pull", f"{reference}:v1")
    assert engines.docker("run", "--rm", "--network", "none", f"{reference}:v1").out == "made for amd64\n"
    digests = engines.docker("inspect", "--format", "{{.RepoDigests}}", f"{reference}:v1").out
    assert multi.digest in digests


def test_manifest_list(engines: Engines, pushed: str, door: Door, repository: str) -> None:
    """``docker manifest`` makes a list in Docker's format and pushes it."""
    engines.docker("manifest", "create", "--insecure", f"{pushed}:list", f"{pushed}:v1")
    engines.docker("manifest", "push", "--insecure", f"{pushed}:list")
    content = json.loads(door.manifest(repository, "list"))
    assert content["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert [entry["digest"] for entry in content["manifests"]] == [door.digest(repository, "v1")]


def test_gone(engines: Engines, run: Home, pushed: str) -> None:
    """An image deleted from the registry can no longer be pulled, and docker says that its manifest is unknown."""
    forget(engines)
    run("crane", "delete", f"{pushed}:v1")
    assert "manifest unknown" in engines.docker("pull", f"{pushed}:v1", check=False).err
