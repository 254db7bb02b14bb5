"""Unmodified clients pull what a tag named at a moment, also where that was deleted since."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.clients.kit import Door, Home, Layout, assert_same

pytestmark = pytest.mark.clients


@pytest.fixture
def past(run: Home, image: Layout, multi: Layout, host: str, repository: str, door: Door) -> str:
    """A name for the moment when ``v1`` was the image; since then it names an index, and the image was deleted."""
    run("crane", "push", image.root, f"{host}/{repository}:v1")
    time.sleep(1.1)  # names tell whole seconds
    moment = datetime.now(UTC).strftime("%Y-%m-%dt%H%M%Sz")
    time.sleep(1.1)
    run("crane", "push", multi.root, f"{host}/{repository}:v1")
    answer = httpx.delete(f"http://{host}/v2/{repository}/manifests/{image.digest}")
    assert answer.status_code == 202
    assert httpx.get(f"http://{host}/v2/{repository}/manifests/{image.digest}").status_code == 404
    assert door.digest(repository, "v1") == multi.digest
    return f"{host}/at-{moment}/{repository}"


def test_crane(run: Home, past: str, image: Layout, tmp_path: Path) -> None:
    """crane lists, pulls and validates the past."""
    assert run("crane", "ls", past).lines == ["v1"]
    assert run("crane", "digest", f"{past}:v1").out.strip() == image.digest
    run("crane", "validate", "--remote", f"{past}:v1")
    run("crane", "pull", "--format", "oci", f"{past}:v1", tmp_path / "pulled")
    assert_same(Layout(tmp_path / "pulled", "v1"), image)


def test_skopeo(run: Home, past: str, image: Layout, tmp_path: Path) -> None:
    """skopeo copies the past by tag and by digest, and cannot copy anything into it."""
    for name, suffix in (("tag", ":v1"), ("digest", f"@{image.digest}")):
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{past}{suffix}", f"oci:{tmp_path / name}:v1")
        assert_same(Layout(tmp_path / name, "v1"), image)
    answer = httpx.post(f"http://{past.replace('/', '/v2/', 1)}/blobs/uploads/")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "DENIED")


def test_podman(run: Home, past: str, image: Layout) -> None:
    """podman pulls the past, and it is the image that was deleted."""
    run("podman", "pull", "--tls-verify=false", f"{past}:v1")
    identity = run("podman", "image", "inspect", "--format", "{{.Id}}", f"{past}:v1").out.strip()
    assert f"sha256:{identity}" == image.manifest(image.digest)["config"]["digest"]
