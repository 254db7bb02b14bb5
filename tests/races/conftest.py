import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from tests.server import Server, running


@pytest.fixture(scope="session", params=[1, 4], ids=["1 worker", "4 workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server; after all races it ends well, has nothing to complain of, and its root is whole."""
    root = tmp_path_factory.mktemp(f"races-{request.param}") / "root"
    with running(root, "--workers", str(request.param)) as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log, started.log
        assert "ERROR" not in started.log, started.log
    found = subprocess.run(
        [sys.executable, "-m", "moorage", "check", "--full", "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "no fact names" not in found.stdout, found.stdout


@pytest.fixture
def repository() -> str:
    """A name that no other test uses."""
    return f"races/{uuid.uuid4().hex}"
