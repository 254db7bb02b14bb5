"""The clocks of nodes differ; the time of the database is what counts."""

import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.buckets import Engine
from tests.conformance import Door
from tests.conformance.material import Blob, Maker
from tests.nodes.kit import nodes
from tests.postgres import Cluster


def test_an_hour_ahead(tmp_path: Path, postgres: Cluster, seaweedfs: Engine) -> None:
    """S3 refuses requests signed by such a clock: the node does not start, and says why."""
    refused = pytest.raises(RuntimeError, match=r"the registry cannot be opened.*RequestTimeTooSkewed")
    with refused, nodes(tmp_path, postgres, seaweedfs, 1, ahead={0: "+1h"}):
        pass


def test_fourteen_minutes_ahead(tmp_path: Path, postgres: Cluster, seaweedfs: Engine) -> None:
    """Such a node, which S3 still takes, neither ends uploads nor collects what others have just begun."""
    settings = {"UPLOAD_EXPIRY": "600", "COLLECT_GRACE": "600", "HOUSEKEEPING_INTERVAL": "0.1"}
    variables = {f"MOORAGE_{name}": value for name, value in settings.items()}
    with nodes(tmp_path, postgres, seaweedfs, 2, ahead={0: "+14m"}, **variables) as made, Door(made.host) as door:
        told = httpx.get(f"{made.servers[0].url}/v2/", trust_env=False).headers["date"]
        assert parsedate_to_datetime(told).timestamp() > time.time() + 700
        loose, begun = (Blob(Maker("sha256", "clocks").noise(name, 50_000), "sha256") for name in ("loose", "begun"))
        door.push_blob("clocks", loose)
        session = door.patch(door.start("clocks"), begun.content[:20_000], 0)
        made.servers[1].kill()  # from here on the duties are those of the node whose clock is ahead
        time.sleep(3)
        session = door.patch(session, begun.content[20_000:], 20_000)
        door.send(201, "PUT", door.follow(session, digest=begun.digest))
        for each in (loose, begun):
            door.serves_blob("GET", f"clocks/blobs/{each.digest}", each)
        assert "nothing is wrong" in made.check()
