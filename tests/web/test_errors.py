"""Errors through the door: form, unknown routes, wrong methods, malformed names and digests; spec "Error Codes"."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from moorage import Registry, create_app, open_registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.errors import StorageFull, TooManyRequests
from moorage.spec.routes import TABLE
from moorage.storage.memory import MemoryBlobStore
from tests.support import DISCONNECT, LAYER, Exchange, Repository, body, detail, digest_of, errors, served

DIGEST = digest_of(b"nowhere")


async def ask(registry: Registry, method: str, path: str, **headers: str) -> httpx.Response:
    """A request whose path nobody normalizes on its way."""
    return (await Exchange(create_app(registry), method, path, headers).run()).response


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v2/a",
        "/v2/a/b/c",
        "/v2/a/manifests",
        "/v2/a/tags",
        "/v2/a/tags/other",
        "/v2/a/referrers/",
        "/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "BREW"])
async def test_unknown_route(registry: Registry, method: str, path: str) -> None:
    """A path that no endpoint has is 404 UNSUPPORTED, by whatever method."""
    assert detail(await ask(registry, method, path), 404, "UNSUPPORTED") == {"path": path}


@pytest.mark.parametrize("rows", TABLE, ids=lambda rows: next(iter(rows.values())).path)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_wrong_method(registry: Registry, method: str, rows: dict[str, Any]) -> None:
    """A method that an endpoint does not have is 405 UNSUPPORTED with Allow."""
    template = next(iter(rows.values())).path
    path = template.format(name="a/b", digest=DIGEST, reference="latest", upload="x", release="r")
    response = await ask(registry, method, path)
    if method in rows:
        assert response.status_code != 405
        return
    assert response.headers["allow"] == ", ".join(sorted(rows))
    if method != "HEAD":
        assert detail(response, 405, "UNSUPPORTED") == {"method": method, "allowed": sorted(rows)}


@pytest.mark.parametrize(
    "path",
    [
        "manifests/latest",
        f"blobs/{DIGEST}",
        "tags/list",
        f"referrers/{DIGEST}",
        "blobs/uploads/x",
        "_oci/ext/discover",
    ],
)
@pytest.mark.parametrize("name", ["A", "a//b", "a/../../b", "-", "a_", "ä", "a b", "a" * 256, ".", "", "a\x00b"])
async def test_malformed_name(registry: Registry, name: str, path: str) -> None:
    """A malformed repository name is 400 NAME_INVALID that says what is allowed."""
    found = detail(await ask(registry, "GET", f"/v2/{name}/{path}"), 400, "NAME_INVALID")
    assert found["name"] == name
    assert "at most 255 characters" in found["allowed"]


@pytest.mark.parametrize("digest", ["x", "latest", "sha256:", "sha256:x", f"{DIGEST}0", "md5:" + "0" * 32, "a:b:c"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_malformed_digest_of_a_blob(repository: Repository, method: str, digest: str) -> None:
    """A malformed or unsupported digest in a blob's path is 400 DIGEST_INVALID."""
    response = await repository.client.request(method, repository.at(f"blobs/{digest}"))
    assert response.status_code == 400
    if method != "HEAD":
        assert detail(response, 400, "DIGEST_INVALID")["digest"] == digest


@pytest.mark.parametrize("reference", ["-x", ".x", "x" * 129, "a+b", "é"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_malformed_tag(repository: Repository, method: str, reference: str) -> None:
    """A malformed tag names nothing: 404 MANIFEST_UNKNOWN."""
    await repository.push_image("latest")
    response = await repository.client.request(method, repository.at(f"manifests/{reference}"))
    assert response.status_code == 404
    if method != "HEAD":
        errors(response, 404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("reference", ["sha256:x", "sha256:", "md5:" + "0" * 32])
async def test_malformed_digest_of_a_manifest(repository: Repository, reference: str) -> None:
    """A malformed digest in a manifest's path is 400 DIGEST_INVALID."""
    errors(await repository.get(f"manifests/{reference}"), 400, "DIGEST_INVALID")


@pytest.mark.parametrize(
    "path",
    ["manifests/none", f"manifests/{DIGEST}", f"blobs/{DIGEST}", "tags/list", "blobs/uploads/x", "blobs/x", "x"],
)
async def test_head_has_no_body(repository: Repository, path: str) -> None:
    """A HEAD that fails has the status and the headers of the GET, and no body."""
    got, head = await repository.get(path), await repository.head(path)
    assert head.content == b""
    assert (head.status_code, head.headers) == (got.status_code, got.headers)
    assert head.headers["content-length"] == str(len(got.content))


async def test_every_answer_names_the_api(repository: Repository) -> None:
    """Errors too carry the header by which old clients know the API."""
    for path in ("/v2/", "/v2/a/tags/list", "/nowhere"):
        response = await repository.client.get(path)
        assert response.headers["docker-distribution-api-version"] == "registry/2.0"


class FailingStore(MemoryBlobStore):
    """A place for bytes that takes none."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    @asynccontextmanager
    async def write(self, key: str) -> AsyncIterator[Any]:
        raise self.error
        yield


async def failed(error: Exception) -> httpx.Response:
    """The answer to a push when storage fails with ``error``."""
    async with (
        Registry(FailingStore(error), SQLiteMetadata()) as registry,
        served(create_app(registry), checked=False) as client,
    ):
        return await Repository(client).post(f"?digest={digest_of(LAYER)}", content=LAYER)


async def test_too_many_requests() -> None:
    """429 is TOOMANYREQUESTS with Retry-After."""
    response = await failed(TooManyRequests(headers={"Retry-After": "5"}))
    errors(response, 429, "TOOMANYREQUESTS")
    assert response.headers["retry-after"] == "5"


async def test_full_storage() -> None:
    """Storage without room is 507 in the specification's form, with the reason."""
    response = await failed(StorageFull(detail={"reason": "No space left on device"}))
    assert detail(response, 507, "UNKNOWN") == {"reason": "No space left on device"}


async def test_stopping() -> None:
    """A registry that was closed answers 503 to what would change it."""
    async with open_registry() as registry:
        app = create_app(registry)
    async with served(app, checked=False) as client:
        errors(await Repository(client).post(), 503, "UNKNOWN")


async def test_unexpected_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody foresaw is 500 UNKNOWN that reveals nothing; the log has the traceback."""
    with caplog.at_level(logging.ERROR, "moorage.web"):
        response = await failed(ZeroDivisionError("secret"))
    errors(response, 500, "UNKNOWN")
    assert "secret" not in response.text
    assert "ZeroDivisionError: secret" in caplog.text


async def test_refused_body_is_drained(registry: Registry) -> None:
    """What is left of a short body is taken, so that its sender reads the answer and the connection lives on."""
    messages = [body(b"x" * 1000, more=True), body(b"x" * 1000)]
    exchange = Exchange(create_app(registry), "PUT", "/v2/a/tags/list", {"content-length": "2000"}, messages)
    await exchange.run()
    assert exchange.taken == 2
    assert exchange.response.status_code == 405
    assert "connection" not in exchange.response.headers


async def test_long_refused_body_closes_the_connection(registry: Registry) -> None:
    """A long body that is refused is not taken to its end: the connection is closed after the answer."""
    messages = (body(b"x" * 65536, more=True) for _ in range(1000))
    headers = {"transfer-encoding": "chunked"}
    exchange = await Exchange(create_app(registry), "PUT", "/v2/a/tags/list", headers, messages).run()
    assert exchange.taken <= 18
    assert exchange.response.headers["connection"] == "close"


async def test_client_that_left_gets_no_answer(registry: Registry) -> None:
    """Nothing is sent to a client that went away."""
    exchange = Exchange(
        create_app(registry), "POST", f"/v2/a/blobs/uploads/?digest={digest_of(LAYER)}", {}, [DISCONNECT]
    )
    assert (await exchange.run()).sent == []


async def test_websocket_is_refused(registry: Registry) -> None:
    """A registry speaks HTTP and nothing else."""
    with pytest.raises(RuntimeError, match="websocket"):
        await create_app(registry)({"type": "websocket"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["n=1&n=x", "last=%ff%fe", "n=1&last=%00", "&&&", "=", "n", "%", "a" * 10_000])
async def test_odd_queries(repository: Repository, query: str) -> None:
    """A query that is odd is answered or refused; it breaks nothing."""
    await repository.push_image("latest")
    response = await repository.client.get(f"/v2/{repository.name}/tags/list?{query}")
    assert response.status_code in (200, 400)
