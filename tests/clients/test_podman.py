"""podman pushes, finds, pulls and runs images."""

import json

import pytest

from tests.clients.kit import OURS, Door, Home, Layout

pytestmark = pytest.mark.clients

AT = "--tls-verify=false"


@pytest.fixture
def pushed(run: Home, image: Layout, reference: str) -> str:
    """The test's repository, with the image as ``v1`` from podman's own store."""
    run("podman", "pull", f"oci:{image.root}:{image.tag}")
    run("podman", "tag", _identity(image), f"{reference}:v1")
    run("podman", "push", AT, "--format", "oci", f"{reference}:v1")
    return reference


def _identity(image: Layout) -> str:
    """podman's name for an image: the digest of its configuration."""
    return str(image.manifest(image.digest)["config"]["digest"])


def test_push(pushed: str, door: Door, repository: str, image: Layout) -> None:
    """podman packs layers anew; the pushed image has the same configuration, and each blob is served whole."""
    content = json.loads(door.manifest(repository, "v1"))
    assert content["config"]["digest"] == _identity(image)
    assert len(content["layers"]) == len(image.layers)
    for descriptor in (content["config"], *content["layers"]):
        assert door.blob(repository, descriptor["digest"]) == descriptor["digest"]


def test_list(run: Home, pushed: str, host: str, repository: str) -> None:
    """``podman search`` finds the repository in the catalog and lists its tags."""
    run("podman", "push", AT, f"{pushed}:v1", f"{pushed}:v2")
    (found,) = run("podman", "search", AT, "--list-tags", "--format", "json", pushed).json
    assert found["Tags"] == ["v1", "v2"]
    names = run("podman", "search", AT, "--limit", "100", "--format", "{{.Name}}", f"{host}/{repository}")
    assert names.lines == [pushed]


def test_pull_and_run(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """An image that was pushed, removed and pulled by digest is the same one, and its container runs."""
    digest = door.digest(repository, "v1")
    run("podman", "rmi", "--force", _identity(image))
    run("podman", "pull", AT, f"{pushed}@{digest}")
    seen = run("podman", "inspect", "--type", "image", f"{pushed}@{digest}").json[0]
    assert f"sha256:{seen['Id']}" == _identity(image)
    assert seen["Digest"] == digest
    done = run("podman", "run", "--rm", "--network", "none", "--cgroup-parent", f"/{OURS}", f"{pushed}@{digest}")
    assert done.out == "made for amd64\n"


def test_manifest_list(run: Home, reference: str, door: Door, repository: str, multi: Layout) -> None:
    """A list made by ``podman manifest`` is pushed with all its images, and both platforms can be pulled."""
    name = f"{reference}:v1"
    run("podman", "manifest", "create", name)
    for child in multi.manifest(multi.digest)["manifests"]:
        part = f"{reference}:{child['platform']['architecture']}"
        run("crane", "push", _single(multi, child), part)
        run("podman", "manifest", "add", AT, name, f"docker://{part}")
    run("podman", "manifest", "push", AT, "--all", name, f"docker://{name}")
    pushed = json.loads(door.manifest(repository, "v1"))["manifests"]
    assert [entry["platform"]["architecture"] for entry in pushed] == ["amd64", "arm64"]
    for entry in pushed:
        assert door.digest(repository, entry["digest"]) == entry["digest"]
        run("podman", "pull", AT, "--arch", entry["platform"]["architecture"], f"{reference}@{entry['digest']}")


def test_copy(run: Home, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A push of known layers to another repository mounts them instead of sending them."""
    done = run("podman", "--log-level", "debug", "push", AT, "--format", "oci", f"{pushed}:v1", f"{pushed}-copy:v1")
    assert done.err.count("mount OK") == len(image.layers)
    assert door.digest(f"{repository}-copy", "v1") == door.digest(repository, "v1")


def _single(multi: Layout, child: dict[str, object]) -> str:
    """A layout beside the index that has one of its images."""
    root = multi.root.parent / f"single-{child['digest']}".replace(":", "-")
    if not root.exists():
        root.mkdir()
        (root / "blobs").symlink_to(multi.root / "blobs")
        (root / "oci-layout").write_bytes((multi.root / "oci-layout").read_bytes())
        (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [child]}))
    return str(root)
