"""Schemathesis makes requests from the description, good and bad ones, and holds a real server to it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis import checks

from moorage.spec.digest import compute
from moorage.spec.manifest import OCI_MANIFEST
from tests.fuzz.answer import Answer, check
from tests.fuzz.description import DOCUMENT, check_described
from tests.fuzz.profile import bounded
from tests.fuzz.sentinel import SECRET, Sentinel
from tests.server import Server, running

EMPTY = b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": compute(EMPTY), "size": 2},
        "layers": [],
    }
).encode()


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
    ]
)
# A part of a JSON document (206) is not one, which this check cannot be told.
WHOLE = checks.CHECKS.get_by_names(["response_schema_conformance"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    sentinel = Sentinel.plant(tmp_path_factory.mktemp("schemathesis"))
    with running(sentinel.root) as started:
        yield started
        assert httpx.get(f"{started.url}/healthz").status_code == 200
        assert "Traceback" not in started.log
    sentinel.check()


@pytest.fixture(autouse=True)
def seeded(server: Server) -> None:
    """What the description's examples name is there."""
    with httpx.Client(base_url=server.url) as client:
        upload = f"/v2/busybox/blobs/uploads/?digest={compute(EMPTY)}"
        assert client.post(upload, content=EMPTY).status_code == 201
        pushed = client.put("/v2/busybox/manifests/latest", content=MANIFEST, headers={"Content-Type": OCI_MANIFEST})
        assert pushed.status_code == 201


@SCHEMA.parametrize()
@bounded(5)
def test_described_requests(case: Any, server: Server) -> None:
    response = case.call(base_url=server.url)
    case.validate_response(response, checks=CHECKS if response.status_code == 206 else [*CHECKS, *WHOLE])
    assert SECRET not in response.content
    if case.method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
        headers = tuple((name.lower(), value) for name, values in response.headers.items() for value in values)
        answer = Answer(response.status_code, headers, response.content)
        check(case.method, answer)
        check_described(case.method, response.request.path_url, answer)
