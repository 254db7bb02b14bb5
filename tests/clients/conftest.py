"""One registry for all clients; each test has a repository of its own."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.clients import material
from tests.clients.engines import Engines
from tests.clients.engines import started as engines_started
from tests.clients.kit import Door, Home, Layout, remove_control_groups
from tests.nodes.kit import nodes
from tests.server import Serving, running

Serve = Callable[..., AbstractContextManager[Serving]]


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for large things, gone after the tests."""
    # Not pytest's: podman waits 20 s for a container where its home's path has more than 46 characters.
    folder = Path(tempfile.mkdtemp(prefix="moorage-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def serve(request: pytest.FixtureRequest, scratch: Path) -> Serve:
    """Starts what clients speak to, in a folder named so: one server, or as many nodes as ``--nodes`` says.

    It ends without one error of its own.
    """
    count = request.config.getoption("--nodes")

    @contextmanager
    def started(name: str, **environment: str) -> Iterator[Serving]:
        serving: AbstractContextManager[Serving] = running(scratch / name, **environment)
        if count:
            database, bucket = (request.getfixturevalue(each) for each in ("postgres", "seaweedfs"))
            serving = nodes(scratch / name, database, bucket, count, ahead=None, **environment)
        with serving as made:
            yield made
            if count:
                assert "nothing is wrong" in made.command("check", "--full")
            assert made.stop() == 0, made.log
            assert "Traceback" not in made.log, made.log

    return started


@pytest.fixture(scope="session")
def host(serve: Serve) -> Iterator[str]:
    """``127.0.0.1:PORT`` of a registry that serves all these tests."""
    with serve("registry") as made:
        yield made.host


@pytest.fixture(scope="session")
def door(host: str) -> Door:
    return Door(f"http://{host}")


@pytest.fixture(scope="session")
def run(scratch: Path) -> Iterator[Home]:
    """Runs a client: ``run("crane", "ls", reference)``."""
    yield Home(scratch / "home").prepare()
    remove_control_groups()


@pytest.fixture(scope="session")
def image(run: Home, scratch: Path) -> Layout:
    """An image of two layers for linux/amd64."""
    return material.busybox(run, scratch / "image")


@pytest.fixture(scope="session")
def multi(run: Home, scratch: Path) -> Layout:
    """An index of images for linux/amd64 and linux/arm64."""
    return material.multi_platform(run, scratch / "multi")


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    words = f"{request.node.path.stem}/{request.node.name}".lower().removeprefix("test_").replace("/test_", "/")
    return re.sub("[^a-z0-9/]+", "-", words).strip("-")


@pytest.fixture
def reference(host: str, repository: str) -> str:
    """``HOST/REPOSITORY``, to which a tag or digest is added."""
    return f"{host}/{repository}"


@pytest.fixture(scope="session")
def engines(run: Home, scratch: Path) -> Iterator[Engines]:
    """dockerd and containerd."""
    with engines_started(run, scratch / "engines") as both:
        yield both
