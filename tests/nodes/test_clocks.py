"""The clocks of nodes differ; the time of the database is what counts."""

import base64
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.buckets import Engine
from tests.clients.kit import tool
from tests.conformance import Door
from tests.conformance.material import Blob, Maker
from tests.login import NAME, PASSWORD, basic, logged_in
from tests.nodes.kit import Nodes, nodes
from tests.postgres import Cluster
from tests.server import Server, environment_of
from tests.support import OCI_MANIFEST, digest_of, encode


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


AHEAD = {0: "+1h", 1: "-1h", 2: "+30m"}  # the fourth is right
IMAGE = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}


@dataclass
class Folder:
    """A place that all nodes see, which asks nobody for the time."""

    path: Path

    def place(self) -> dict[str, str]:
        return {"storage": f"file://{self.path}"}


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster) -> Iterator[Nodes]:
    """Four nodes whose clocks are up to two hours apart."""
    folder = tmp_path_factory.mktemp("apart")
    settings = {
        "MOORAGE_UPLOAD_EXPIRY": "600",
        "MOORAGE_COLLECT_GRACE": "600",
        "MOORAGE_HOUSEKEEPING_INTERVAL": "0.2",
        "MOORAGE_TOKEN_LIFETIME": "60",
        **logged_in(folder / "htpasswd", "tokens").settings,
        "MOORAGE_RULES": json.dumps([{"who": [NAME], "repositories": ["**"], "allow": ["*"]}]),
    }
    (folder / "bytes").mkdir()
    with nodes(folder, postgres, Folder(folder / "bytes"), 4, ahead=AHEAD, **settings) as made:
        shown = [parsedate_to_datetime(ask(server, "GET", "/v2/").headers["date"]) for server in made.servers]
        assert max(shown).timestamp() - min(shown).timestamp() > 7000
        yield made
        assert "nothing is wrong" in made.check()
        assert made.stop() == 0, made.log
        assert "Traceback" not in made.log, made.log


def ask(server: Server, method: str, path: str, **request: Any) -> httpx.Response:
    return httpx.request(method, f"{server.url}{path}", trust_env=False, timeout=30, **request)


def token(server: Server, **more: str) -> dict[str, Any]:
    """What a node answers to who wants a token for everything in ``clocks``."""
    scope = {"service": "moorage", "scope": "repository:clocks:pull,push", **more}
    answer = ask(server, "GET", "/v2/token", params=scope, headers=basic(NAME, PASSWORD))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(server: Server) -> dict[str, str]:
    return {"authorization": f"Bearer {token(server)['token']}"}


def push(server: Server, tag: str, content: bytes) -> None:
    headers = {**bearer(server), "content-type": OCI_MANIFEST}
    empty = {"content": b"{}", "params": {"digest": digest_of(b"{}")}}
    opened = ask(server, "POST", "/v2/clocks/blobs/uploads/", headers=headers, **empty)
    assert opened.status_code == 201, opened.text
    done = ask(server, "PUT", f"/v2/clocks/manifests/{tag}", content=content, headers=headers)
    assert done.status_code == 201, done.text


def manifest(number: int) -> bytes:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b"{}"), "size": 2}
    return encode({**IMAGE, "config": config, "annotations": {"number": str(number)}})


def test_tokens_of_any_are_good_at_all(apart: Nodes) -> None:
    """For as long as they say, and a refresh token too."""
    for one, other in itertools.product(apart.servers, apart.servers):
        made = token(one, offline_token="true", client_id="test")
        for wanted in (made["token"], _renewed(other, made["refresh_token"])):
            answer = ask(other, "GET", "/v2/", headers={"authorization": f"Bearer {wanted}"})
            assert answer.status_code == 200, answer.text
        claims = json.loads(base64.urlsafe_b64decode(made["token"].split(".")[1] + "=="))
        assert abs(claims["iat"] - time.time()) < 10


def _renewed(server: Server, refresh_token: str) -> str:
    form = {"grant_type": "refresh_token", "service": "moorage", "client_id": "test", "refresh_token": refresh_token}
    answer = ask(server, "POST", "/v2/token", data=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def test_an_upload_goes_from_one_to_the_other(apart: Nodes) -> None:
    """Begun by any, it is open at all others while their housekeeping goes on; and what it left stays."""
    content = [bytes([n]) * 50_000 for n in range(4)]
    for turn in itertools.islice(itertools.permutations(apart.servers), 0, 24, 9):
        data = b"".join([*content, turn[0].url.encode()])
        place = ask(turn[0], "POST", "/v2/clocks/blobs/uploads/", headers=bearer(turn[0])).headers["location"]
        for server, chunk in zip(turn, [*content[:3], content[3] + turn[0].url.encode()], strict=True):
            time.sleep(0.3)
            sent = ask(server, "PATCH", _path(place), content=chunk, headers=bearer(server))
            assert sent.status_code == 202, sent.text
            place = sent.headers["location"]
        closed = ask(turn[1], "PUT", _path(place), params={"digest": digest_of(data)}, headers=bearer(turn[1]))
        assert closed.status_code == 201, closed.text
        time.sleep(0.5)
        for server in turn:
            found = ask(server, "GET", f"/v2/clocks/blobs/{digest_of(data)}", headers=bearer(server))
            assert found.content == data


def _path(location: str) -> str:
    return location[location.index("/v2/") :]


def test_history_is_in_order(apart: Nodes) -> None:
    """A tag that one after the other moves: what it was at a moment is what it was then, for each node."""
    moments: list[tuple[str, bytes]] = []
    for number, server in enumerate(apart.servers):
        push(server, "moves", manifest(number))
        time.sleep(1.1)  # names tell whole seconds
        moments.append((datetime.now(UTC).strftime("%Y-%m-%dt%H%M%Sz"), manifest(number)))
        time.sleep(1.1)
    for server in apart.servers:
        headers = bearer(server)
        for moment, content in moments:
            found = ask(server, "GET", f"/v2/at-{moment}/clocks/manifests/moves", headers=headers)
            assert (found.status_code, found.content) == (200, content), (moment, found.text)


@pytest.mark.parametrize("by", ["+1h", "-1h"])
def test_a_key_ends_when_it_should(apart: Nodes, by: str) -> None:
    """Made on a machine whose clock is wrong, for four seconds: good at all nodes, and then at none."""
    command = [tool("faketime"), "--exclude-monotonic", "-f", by, sys.executable, "-m", "moorage", "key", "create"]
    root = apart.folder / "another"
    made = subprocess.run(
        [*command, f"short{by}", "--scope", "**:pull", "--expires", "4s"],
        env=environment_of(root, {**apart.settings, "MOORAGE_ROOT": str(root)}),
        capture_output=True,
        text=True,
        check=True,
    )
    headers = basic("any", made.stdout.strip())
    ended = time.monotonic() + 4
    assert [ask(server, "GET", "/v2/", headers=headers).status_code for server in apart.servers] == [200] * 4
    time.sleep(max(0.0, ended - time.monotonic()) + 1)
    assert [ask(server, "GET", "/v2/", headers=headers).status_code for server in apart.servers] == [401] * 4
