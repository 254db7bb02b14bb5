"""A push beyond a quota fails in each client with words that say which quota it is and how much of it is left."""

import json
from collections.abc import Iterator

import pytest

from tests.clients.engines import Engines
from tests.clients.kit import Door, Home, Layout
from tests.server import Server, running

pytestmark = pytest.mark.clients

QUOTAS = [
    {"repository": "bytes/**", "bytes": 100_000},
    {"repository": "tags/**", "tags": 1},
    {"repository": "repositories/**", "repositories": 0},
]
TOO_MUCH = {
    "bytes": "the quota of bytes/** allows 100.0 kB; used: ",
    "repositories": "the quota of repositories/** allows 0 repositories; used: 0, asked for: 1 more",
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("quotas"), MOORAGE_QUOTAS=json.dumps(QUOTAS)) as server:
        yield server
        assert "Traceback" not in server.log, server.log


def push(run: Home, client: str, name: str, image: Layout, *, check: bool) -> str:
    """What a client says of a push."""
    source = f"oci:{image.root}:{image.tag}"
    host = name.partition("/")[0]
    command = {
        "crane": ("crane", "push", image.root, name),
        "skopeo": ("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{name}"),
        "regctl": (
            *("regctl", "--host", f"reg={host},tls=disabled"),
            *("image", "copy", f"ocidir://{image.root}:{image.tag}", name),
        ),
        "oras": ("oras", "cp", "--from-oci-layout", "--to-plain-http", f"{image.root}:{image.tag}", name),
    }[client]
    return run(str(command[0]), *command[1:], check=check).text


@pytest.mark.parametrize("client", ["crane", "skopeo", "regctl", "oras"])
@pytest.mark.parametrize("of", sorted(TOO_MUCH))
def test_refused(run: Home, limited: Server, image: Layout, client: str, of: str) -> None:
    """The message is the registry's, and nothing of the image is there."""
    name = f"{of}/{client}"
    said = push(run, client, f"{limited.host}/{name}:v1", image, check=False)
    # regctl goes on after any refusal of a body, in chunks and from a wrong place, and tells of that.
    assert ("416" if (client, of) == ("regctl", "bytes") else TOO_MUCH[of]) in said, said
    assert not Door(limited.url).has(name, "manifests", "v1")


@pytest.mark.parametrize("client", ["crane", "skopeo", "regctl", "oras"])
def test_one_tag(run: Home, limited: Server, image: Layout, client: str) -> None:
    """A tag that is there can be pushed again, one more cannot."""
    name = f"{limited.host}/tags/a"
    for _ in range(2):
        push(run, client, f"{name}:v1", image, check=True)
    said = push(run, client, f"{name}:v2", image, check=False)
    assert "the quota of tags/** allows 1 tags; used: 1, asked for: 1 more" in said, said


def test_docker(engines: Engines, run: Home, limited: Server, image: Layout) -> None:
    """The engine sends layers without their length."""
    run("skopeo", "copy", f"oci:{image.root}:{image.tag}", f"docker-archive:{run.path}/quota.tar:quota:v1")
    engines.docker("load", "--input", run.path / "quota.tar")
    for of, words in TOO_MUCH.items():
        name = f"{limited.host}/{of}/docker:v1"
        engines.docker("tag", "quota:v1", name)
        said = engines.docker("push", name, check=False).text
        assert words in said, said
    engines.docker("image", "prune", "--all", "--force")
