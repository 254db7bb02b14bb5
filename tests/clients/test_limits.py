"""A client that asks for more than its rate is slowed down, and does not fail."""

from collections.abc import Iterator

import pytest

from tests.clients.engines import Engines
from tests.clients.kit import Home, Layout
from tests.server import Server, running

pytestmark = pytest.mark.clients


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that lets an address send eight requests a second."""
    environment = {"MOORAGE_REQUESTS_PER_ADDRESS": "8", "MOORAGE_REQUEST_BURST": "1"}
    with running(tmp_path_factory.mktemp("limited"), **environment) as server:
        yield server


@pytest.mark.parametrize("client", ["crane", "skopeo", "regctl", "oras"])
def test_push(run: Home, limited: Server, repository: str, image: Layout, client: str) -> None:
    """A push needs more requests than may come at once, and succeeds."""
    name, source = f"{limited.host}/{repository}:v1", f"oci:{image.root}:{image.tag}"
    command = {
        "crane": ("crane", "push", image.root, name),
        "skopeo": ("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{name}"),
        "regctl": (
            *("regctl", "--host", f"reg={limited.host},tls=disabled"),
            *("image", "copy", f"ocidir://{image.root}:{image.tag}", name),
        ),
        "oras": ("oras", "cp", "--from-oci-layout", "--to-plain-http", f"{image.root}:{image.tag}", name),
    }[client]
    run(str(command[0]), *command[1:])
    assert "v1" in run("crane", "ls", f"{limited.host}/{repository}").lines


def test_docker_and_containerd(engines: Engines, run: Home, limited: Server, repository: str, image: Layout) -> None:
    """The engines, which give up when they are told 429, pull and push."""
    name, source = f"{limited.host}/{repository}", f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{name}:v1")
    engines.docker("pull", f"{name}:v1")
    engines.docker("tag", f"{name}:v1", f"{name}:v2")
    engines.docker("push", f"{name}:v2")
    engines.docker("rmi", f"{name}:v1", f"{name}:v2")
    engines.ctr("images", "pull", "--plain-http", "--snapshotter", "native", f"{name}:v2")
    engines.ctr("images", "rm", "--sync", f"{name}:v2")
