"""A real client pushes through four nodes: each request of an upload reaches another node than the last."""

import itertools
import re
from pathlib import Path

import pytest

from tests.clients import material
from tests.clients.kit import Door, Home, Layout, assert_same
from tests.nodes.kit import COUNT, Nodes

pytestmark = pytest.mark.clients
MIB = 1 << 20


@pytest.fixture
def door(four: Nodes) -> Door:
    return Door(f"http://{four.host}")


def test_regctl_in_chunks(run: Home, four: Nodes, door: Door, tmp_path: Path) -> None:
    """With chunks of 1 MiB, one layer takes 24 requests or more, which go from node to node."""
    big = material.large(tmp_path / "big", 24 * MIB)  # nothing that could be mounted
    run("regctl", "registry", "set", "--tls", "disabled", four.host, "--blob-chunk", str(MIB), "--blob-max", str(MIB))
    run("regctl", "image", "copy", f"ocidir://{big.root}:large", f"{four.host}/regctl:v1")
    door.assert_holds("regctl", "v1", big)
    run("regctl", "image", "copy", f"{four.host}/regctl:v1", f"ocidir://{tmp_path}/pulled:large")
    assert_same(Layout(tmp_path / "pulled", "large"), big)
    log = (four.folder / "nginx" / "access.log").read_text()
    chunks: dict[str, list[str]] = {}
    for node, session in re.findall(r'^(\S+) "PATCH /v2/regctl/blobs/uploads/([0-9a-f-]+)', log, re.MULTILINE):
        chunks.setdefault(session, []).append(node)
    sequence = max(chunks.values(), key=len)
    assert len(sequence) >= 24
    assert len(set(sequence)) == COUNT
    assert all(one != other for one, other in itertools.pairwise(sequence))
