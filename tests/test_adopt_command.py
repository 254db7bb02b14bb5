"""``moorage adopt``: with facts in PostgreSQL, killed at any moment, and what is said of what is wrong."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.clients.kit import Door
from tests.distribution_tree import DistributionTree
from tests.server import environment_of, running
from tests.support import LAYER, digest_of
from tests.test_cli import refused, run


@pytest.fixture
def tree(tmp_path: Path) -> DistributionTree:
    made = DistributionTree(tmp_path / "old")
    for number in range(300):
        made.push_image("a", number, f"v{number}")
    return made


def killed_after(seconds: float, *arguments: str | Path, root: Path) -> int:
    """The exit code of a command that is killed once it ran so long."""
    command = [sys.executable, "-m", "moorage", *map(str, arguments), "--root", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment_of(root, {}))
    time.sleep(seconds)
    process.kill()
    return process.wait()


def test_killed(tree: DistributionTree, tmp_path: Path) -> None:
    """Killed in the middle of taking in facts and then bytes, both are done again to the end."""
    root, before = tmp_path / "root", tree.listing()
    options = ("adopt", tree.root)
    codes = [killed_after(0.4 + 0.1 * n, *options, root=root) for n in range(5)]
    done = run(*options, "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    codes += [killed_after(0.4 + 0.1 * n, *options, "--finish", "--rate", "0.002", root=root) for n in range(5)]
    assert -signal.SIGKILL in codes
    done = run("check", "--full", "--root", root, MOORAGE_ADOPT=str(tree.root))
    assert "nothing is wrong" in done.stdout
    assert tree.listing() == before
    assert run(*options, "--finish", "--root", root).returncode == 0
    shutil.rmtree(tree.root)
    done = run("check", "--full", "--root", root)
    assert "1 repositories, 300 tags, 300 manifests, 301 blobs" in done.stdout
    assert "nothing is wrong" in done.stdout


def test_facts_in_postgresql(tree: DistributionTree, database: str, tmp_path: Path) -> None:
    """The same facts, in the other database: what was deleted stays so, and bytes are taken in."""
    root, options = tmp_path / "root", {"MOORAGE_METADATA": database, "MOORAGE_ADOPT": str(tree.root)}
    for count in ("300 manifests, 300 tags", "0 manifests, 0 tags"):
        assert count in run("adopt", "--root", root, **options).stdout
    with running(root, **options) as server:
        door = Door(server.url)
        assert len(door.tags("a")) == 300
        assert door.request("DELETE", f"a/manifests/{door.digest('a', 'v7')}").status_code == 202
        assert "0 manifests, 0 tags" in run("adopt", "--root", root, **options).stdout
        assert "v7" not in door.tags("a")
        layer = digest_of(b"8" + LAYER)
        assert door.blob("a", layer) == layer
        assert run("adopt", "--finish", "--root", root, **options).returncode == 0
        assert door.blob("a", layer) == layer
    done = run("check", "--full", "--root", root, MOORAGE_METADATA=database)
    assert "nothing is wrong" in done.stdout, done


def test_what_is_wrong_is_said(tree: DistributionTree, tmp_path: Path) -> None:
    root = ("--root", tmp_path / "root")
    assert "adopt is not set" in refused("adopt", *root)
    (tmp_path / "empty").mkdir()
    assert "no storage tree of distribution" in refused("adopt", tmp_path / "empty", *root)
    assert "adopt = " in refused("adopt", tmp_path / "nothing", *root)
    assert "memory" in refused("adopt", tree.root, "--storage", "memory")
    assert "is not written to" in refused("adopt", tree.root, "--root", tree.top / "new")
    assert "is not written to" in refused("serve", "--root", tree.root, MOORAGE_ADOPT=str(tree.root))
    assert not (tree.top / "new").exists()
    assert "allowed: s3://" in refused("adopt", "s3://a b", *root)
    with running(tmp_path / "root", MOORAGE_ADOPT=str(tree.root)) as server:
        assert "`moorage adopt` takes in what there is" in server.log
    assert run("adopt", tree.root, *root).returncode == 0
    assert "adopt is not set, and bytes are still in" in run("serve", *root).stderr
    assert "adopt is not set, and bytes are still in" in refused("why", "a:v1", *root)
    assert run("why", "a:v1", *root, MOORAGE_ADOPT=str(tree.root)).returncode == 0
