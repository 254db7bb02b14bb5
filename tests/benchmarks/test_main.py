"""The benchmark as a process: what it measures is installed, and nothing stays when it is ended."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from benchmarks.process import tree

import moorage.server


def benchmark(scratch: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks", "--peers", "moorage", "--cores", "one core"]
    return subprocess.Popen([*command, "--scratch", str(scratch), *arguments])


def test_moorage_has_its_byte_code_as_an_installation_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "cache"))
    assert benchmark(tmp_path, "--loads", "start", "--rounds", "1").wait(120) == 0
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    assert Path(cache_from_source(moorage.server.__file__)).exists()


def test_ended_by_sigterm_it_leaves_no_server_and_no_files(tmp_path: Path) -> None:
    process = benchmark(tmp_path, "--loads", "endurance", "--requests", "1000000000")
    try:
        while not list(tmp_path.glob("*/endurance-moorage/root/moorage.db")):
            assert process.poll() is None
            time.sleep(0.05)
        (server,) = tree(process.pid)[1:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
