"""Processes that used a bucket end as they should: the library's threads may abort an interpreter that ends early."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.buckets import Engine
from tests.server import as_environment, environment_of, running
from tests.support import digest_of

pytestmark = pytest.mark.stores

TURNS = 12


def on_one_core() -> list[str]:
    """What pins a command to one core, where an early end is most likely to be seen."""
    return [found, "-c", str(min(os.sched_getaffinity(0)))] if (found := shutil.which("taskset")) else []


def test_a_command_ends_with_its_code(moto: Engine, tmp_path: Path) -> None:
    """``moorage check`` exits with 0 each time, and never by a signal."""
    settings = as_environment(moto.place())
    with running(tmp_path, **settings) as server:
        content = b"content"
        url = f"{server.url}/v2/a/blobs/uploads/?digest={digest_of(content)}"
        assert httpx.post(url, content=content, trust_env=False).status_code == 201
        assert server.stop() == 0, server.log
    command = [*on_one_core(), sys.executable, "-m", "moorage", "check", "--full", "--root", str(tmp_path)]
    for _ in range(TURNS):
        ended = subprocess.run(
            command, env=environment_of(tmp_path, settings), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended
        assert "nothing is wrong" in ended.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_ends_with_its_code(moto: Engine, tmp_path: Path, workers: int) -> None:
    """A server that used its bucket stops with 0, also one whose workers were forked."""
    for turn in range(4):
        with running(tmp_path, "--workers", str(workers), **as_environment(moto.place())) as server:
            content = b"%d" % turn
            url = f"{server.url}/v2/a/blobs/uploads/?digest={digest_of(content)}"
            for _ in range(4):
                assert httpx.post(url, content=content, trust_env=False).status_code == 201
            assert server.stop() == 0, server.log
            assert "ended with" not in server.log


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"storage": "s3://no-such-bucket"}, "NoSuchBucket"),
        ({"object_credentials": "/no/such/file"}, "object_credentials = '/no/such/file'"),
        ({"object_ca_file": "/no/such/ca.pem"}, "object_ca_file = '/no/such/ca.pem'"),
    ],
)
def test_a_start_that_cannot_be(moto: Engine, tmp_path: Path, changed: dict[str, str], told: str) -> None:
    """A bucket that is not there, or a file that cannot be read, stops the start and is named."""
    settings = as_environment({**moto.place(), **changed})
    with pytest.raises(RuntimeError) as raised:
        running(tmp_path, **settings).__enter__()
    assert told in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_bucket_that_does_not_answer_yet(tmp_path: Path, moto: Engine) -> None:
    """The server starts all the same, says so, and answers 503 to what needs bytes."""
    quick = {"object_endpoint": "http://127.0.0.1:9", "object_retries": 0, "object_retry_timeout": 1.0}
    with running(tmp_path, **as_environment(moto.place(**quick))) as server:
        url = f"{server.url}/v2/a/blobs/uploads/?digest={digest_of(b'x')}"
        answer = httpx.post(url, content=b"x", trust_env=False)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert httpx.get(f"{server.url}/v2/", trust_env=False).status_code == 200
        assert "does not answer yet" in server.log
        assert server.stop() == 0


def test_the_library_is_missing(tmp_path: Path) -> None:
    """Without the optional library the start says what to install, and not more than that."""
    code = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'obstore' else real(name, *a)\n"
        "from moorage.cli import main; sys.argv = ['moorage', 'serve', '--storage', 's3://bucket']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=environment_of(tmp_path, {"MOORAGE_ROOT": str(tmp_path)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "pip install 'moorage[objects]'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
