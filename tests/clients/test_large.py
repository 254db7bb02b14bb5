"""A layer of 1 GiB through several clients, and transfers that break off and go on."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import material
from tests.clients.engines import Engines
from tests.clients.kit import Door, Home, Layout, assert_same, sha256, tool

pytestmark = [pytest.mark.clients, pytest.mark.slow]

QUIET = ["--silent", "--show-error", "--fail"]


@pytest.fixture(scope="module")
def large(scratch: Path) -> Iterator[Layout]:
    """An image with a layer of 1 GiB, for the tests of this file only."""
    yield material.large(scratch / "large")
    shutil.rmtree(scratch / "large")


@pytest.fixture
def pulled(scratch: Path) -> Iterator[Path]:
    """A folder for what is pulled, gone after each test."""
    yield scratch / "pulled"
    shutil.rmtree(scratch / "pulled", ignore_errors=True)


@pytest.fixture
def pushed(run: Home, large: Layout, reference: str) -> str:
    """The URL of the large layer in the test's repository."""
    run("crane", "push", large.root, f"{reference}:v1")
    host, _, repository = reference.partition("/")
    return f"http://{host}/v2/{repository}/blobs/{large.layers[0]}"


@pytest.mark.parametrize("client", ["skopeo", "crane", "oras", "regctl"])
def test_push_and_pull(
    run: Home, host: str, reference: str, door: Door, repository: str, large: Layout, pulled: Path, client: str
) -> None:
    """The large layer is pushed, served with the right digest, and pulled again byte for byte."""
    local = ("--host", f"reg={host},tls=disabled")
    push, pull = {
        "skopeo": (
            ("copy", "--dest-tls-verify=false", f"oci:{large.root}:large", f"docker://{reference}:v1"),
            ("copy", "--src-tls-verify=false", f"docker://{reference}:v1", f"oci:{pulled}:v1"),
        ),
        "crane": (
            ("push", f"{large.root}", f"{reference}:v1"),
            ("pull", "--format", "oci", f"{reference}:v1", f"{pulled}"),
        ),
        "oras": (
            ("cp", "--from-oci-layout", "--to-plain-http", f"{large.root}:large", f"{reference}:v1"),
            ("cp", "--from-plain-http", "--to-oci-layout", f"{reference}:v1", f"{pulled}:v1"),
        ),
        "regctl": (
            (*local, "image", "copy", f"ocidir://{large.root}:large", f"{reference}:v1"),
            (*local, "image", "copy", f"{reference}:v1", f"ocidir://{pulled}:v1"),
        ),
    }[client]
    run(client, *push)
    door.assert_holds(repository, "v1", large)
    run(client, *pull)
    assert_same(Layout(pulled, "v1"), large)


def test_containerd(engines: Engines, run: Home, reference: str, large: Layout, pushed: str, pulled: Path) -> None:
    """containerd fetches the large layer, checks its digest, and pushes it to another repository by a mount."""
    engines.ctr("content", "fetch", "--plain-http", f"{reference}:v1")
    try:
        assert large.layers[0] in engines.ctr("content", "ls", "--quiet").lines
        engines.ctr("images", "tag", f"{reference}:v1", f"{reference}-copy:v1")
        engines.ctr("images", "push", "--plain-http", f"{reference}-copy:v1")
    finally:
        engines.ctr("images", "rm", "--sync", *engines.ctr("images", "ls", "--quiet").lines)
    assert run("crane", "digest", f"{reference}-copy:v1").out.strip() == large.digest


def test_resume_pull(run: Home, pushed: str, large: Layout, pulled: Path) -> None:
    """A pull that breaks off goes on with ``Range`` where it stopped, and the file is the one pushed."""
    # head closes the pipe in the middle of the transfer.
    run("bash", "-c", f"curl --silent --location {pushed} | head --bytes 700000000 > {pulled}")
    assert pulled.stat().st_size == 700_000_000
    options = ("--location", "--continue-at", "-", "--write-out", "%{http_code}", "--output", pulled)
    assert run("curl", *QUIET, *options, pushed).out == "206"
    assert sha256(pulled) == large.layers[0]
    pulled.unlink()


def test_resume_push(run: Home, door: Door, repository: str, large: Layout, scratch: Path) -> None:
    """An upload that breaks off keeps what arrived; the client asks how much, sends the rest, and it is whole."""
    layer, digest = large.path(large.layers[0]), large.layers[0]
    path = door.request("POST", f"{repository}/blobs/uploads/").headers["location"].removeprefix("/v2/")
    patch = ["--request", "PATCH", "--header", "Content-Type: application/octet-stream"]
    broken = subprocess.Popen(
        [tool("curl"), *QUIET, *patch, "--limit-rate", "200M", "--upload-file", layer, f"{door.url}/v2/{path}"],
        env=run.variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1.5)
    broken.kill()
    broken.wait()
    # The server has to see the broken connection first; until then it says 0-0, which can mean nothing at all.
    deadline = time.monotonic() + 30
    while (arrived := _arrived(door, path)) <= 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert 1 < arrived < layer.stat().st_size
    rest = scratch / "rest"
    run("bash", "-c", f"tail --bytes +{arrived + 1} {layer} > {rest}")
    patch += ["--header", f"Content-Range: {arrived}-{layer.stat().st_size - 1}", "--upload-file", str(rest)]
    answer = run("curl", *QUIET, *patch, "--write-out", "%{http_code} %header{location}", f"{door.url}/v2/{path}")
    rest.unlink()
    status, location = answer.lines
    assert status == "202"
    closed = door.request("PUT", f"{location.removeprefix('/v2/')}?digest={digest}")
    assert closed.status_code == 201, closed.text
    assert door.blob(repository, digest) == digest


def _arrived(door: Door, path: str) -> int:
    """How many bytes of an upload the registry has, as its status says."""
    status = door.request("GET", path)
    assert status.status_code == 204
    return int(status.headers["range"].partition("-")[2]) + 1
