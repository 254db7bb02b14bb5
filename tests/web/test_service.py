"""end-1, extensions, warnings, health and the description of the API; and how an application lives."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from moorage import Registry, Settings, SettingsError, create_app
from moorage.metadata.base import Row
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.storage.memory import MemoryBlobStore
from moorage.web.options import Warned
from tests.support import LAYER, Repository, digest_of, door_to, errors, served


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_base(repository: Repository, method: str, path: str) -> None:
    """end-1 is 200 and says which API this is."""
    response = await repository.client.request(method, path)
    assert response.status_code == 200
    assert response.headers["docker-distribution-api-version"] == "registry/2.0"
    assert response.headers["content-type"] == "application/json"
    assert response.text == ("{}" if method == "GET" else "")


async def test_extensions(repository: Repository) -> None:
    """_oci/ext/discover lists the extensions with name, url, description and endpoints; in a repository its own."""
    response = await repository.client.get("/v2/_oci/ext/discover")
    assert response.headers["content-type"] == "application/json"
    found = response.json()["extensions"]
    assert {each["name"]: each["endpoints"] for each in found} == {
        "_oci": ["_oci/ext/discover"],
        "_catalog": ["_catalog"],
        "_moorage": ["_moorage/releases"],
    }
    for each in found:
        assert set(each) == {"name", "url", "description", "endpoints"}
        own = each["name"] == "_moorage"
        assert each["url"].startswith("" if own else "https://github.com/opencontainers/distribution-spec/")
        assert each["url"].endswith("/openapi.json") is own
    await repository.push_image("latest")
    own = (await repository.get("_oci/ext/discover")).json()["extensions"]
    assert [each["name"] for each in own] == ["_oci", "_moorage", "_chainguard"]


WARNINGS = (
    Warned(repository="library/*", text="these move to another place"),
    Warned(repository="*", text="this registry ends soon"),
    Warned(repository="other", text="for others"),
)


async def test_warnings(registry: Registry) -> None:
    """Every answer about a repository that matches a pattern carries its Warning, in the specification's form."""
    async with door_to(registry, warnings=WARNINGS) as client:
        repository = Repository(client, "library/thing")
        await repository.push_image("latest")
        expected = ['299 - "these move to another place"', '299 - "this registry ends soon"']
        for response in (
            await repository.get("manifests/latest"),
            await repository.head("manifests/latest"),
            await repository.get("tags/list"),
            await repository.get(f"blobs/{digest_of(LAYER)}"),
            await repository.post(),
        ):
            assert response.headers.get_list("warning", split_commas=False) == expected
        elsewhere = await Repository(client, "elsewhere").post()
        assert elsewhere.headers.get_list("warning") == expected[1:]
        assert "warning" not in (await client.get("/v2/")).headers
        assert "warning" not in (await client.get("/v2/_catalog")).headers


async def test_no_warnings_by_default(repository: Repository) -> None:
    """Without configuration nobody is warned."""
    assert "warning" not in (await repository.post()).headers


async def test_warnings_are_limited(registry: Registry) -> None:
    """All warnings of an answer together stay within 4,096 bytes."""
    many = tuple(Warned(repository="*", text=f"{n} " + 'x"' * 300) for n in range(20))
    async with door_to(registry, warnings=many) as client:
        values = (await Repository(client).post()).headers.get_list("warning", split_commas=False)
        assert 1 <= len(values) < 20
        assert sum(map(len, values)) <= 4096
        assert all(each.startswith('299 - "') and each.endswith('"') for each in values)


async def test_health(repository: Repository) -> None:
    """/healthz says that the process answers."""
    response = await repository.client.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok\n")
    assert (await repository.client.head("/healthz")).content == b""
    assert (await repository.client.post("/healthz")).status_code == 404


async def test_ready() -> None:
    """/readyz says whether the facts and the bytes answer, and that the process is not stopping."""
    store, facts = MemoryBlobStore(), SQLiteMetadata()
    async with Registry(store, facts) as registry:
        app = create_app(registry)
        async with served(app, checked=False) as client:
            for _ in range(2):
                assert ((await client.get("/readyz")).status_code, (await client.get("/readyz")).text) == (
                    200,
                    "ok\n",
                )
            assert (await client.head("/readyz")).content == b""
            assert (await client.post("/readyz")).status_code == 404

            async def fails(*_: object) -> int:
                raise OSError("the disk is gone: /secret/place")

            async def hangs(*_: object) -> Sequence[Row]:
                await asyncio.sleep(60)
                return ()

            for part, name, breaks, words in (
                (store, "size", fails, "the registry's bytes do not answer"),
                (facts, "fetch", hangs, "the registry's facts do not answer"),
            ):
                registry._ready_until = 0.0
                with pytest.MonkeyPatch.context() as broken:
                    broken.setattr(part, name, breaks)
                    broken.setattr("moorage.registry.registry._PATIENCE", 0.05)
                    (error,) = errors(await client.get("/readyz"), 503, "UNKNOWN")
                assert error == {"code": "UNKNOWN", "message": words}
                assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/readyz")).status_code == 200
            app.draining = True
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200


async def test_description(repository: Repository) -> None:
    """/openapi.json describes the API, and is the file that the documentation ships."""
    response = await repository.client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["openapi"].startswith("3.")
    shipped = Path(__file__).parents[2] / "docs" / "openapi.json"
    assert response.json() == json.loads(shipped.read_text())


async def test_own_registry_in_memory() -> None:
    """An application without a registry opens one in memory at its first request, and closes it."""
    app = create_app()
    async with served(app) as client:
        found = await asyncio.gather(*(Repository(client, f"a{n}").push_blob(LAYER) for n in range(5)))
        assert len(set(found)) == 1
        assert (await client.get("/v2/_catalog")).json()["repositories"] == [f"a{n}" for n in range(5)]
    await app.aclose()
    async with served(app) as client:
        assert (await client.get("/v2/_catalog")).json()["repositories"] == []
    await app.aclose()


async def test_own_registry_on_disk(tmp_path: Path) -> None:
    """An application with settings by name keeps what it got over its end."""
    for expected in ([], ["a"]):
        app = create_app(root=str(tmp_path), upload_expiry=60)
        async with served(app) as client:
            assert (await client.get("/v2/_catalog")).json()["repositories"] == expected
            await Repository(client, "a").push_blob(LAYER)
        await app.aclose()


async def test_given_registry_stays_its_owners(registry: Registry) -> None:
    """An application does not close a registry that it was given."""
    app = create_app(registry)
    await app.aclose()
    async with served(app) as client:
        assert (await Repository(client).post()).status_code == 202


async def lifespan(app: Any, *messages: str, sent: list[Any] | None = None) -> list[Any]:
    """What an application says to lifespan messages."""
    waiting, sent = iter(messages), [] if sent is None else sent

    async def receive() -> dict[str, str]:
        return {"type": f"lifespan.{next(waiting)}"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    return sent


async def test_lifespan(tmp_path: Path) -> None:
    """The registry opens at startup, before the first request, and closes at shutdown."""
    app = create_app(root=str(tmp_path / "new"))
    said = await lifespan(app, "startup", "shutdown")
    assert [each["type"] for each in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (tmp_path / "new" / "moorage.db").exists()


async def test_failed_startup(tmp_path: Path) -> None:
    """A registry that cannot open fails the startup with the reason."""
    (tmp_path / "file").write_text("in the way")
    (said,) = await lifespan(create_app(root=str(tmp_path / "file")), "startup")
    assert said["type"] == "lifespan.startup.failed"
    assert str(tmp_path / "file") in said["message"]


async def test_broken_facts(tmp_path: Path) -> None:
    """Facts that are no database fail the startup with the reason, and the traceback goes to the host's log."""
    (tmp_path / "moorage.db").write_bytes(b"no database" * 1000)
    said: list[Any] = []
    with pytest.raises(sqlite3.DatabaseError):
        await lifespan(create_app(root=str(tmp_path)), "startup", sent=said)
    assert "file is not a database" in said[0]["message"]


async def test_storage_by_url(tmp_path: Path) -> None:
    """A file URL names the folder; one of another host is refused."""
    app = create_app(storage=f"file://{tmp_path}/a%20b")
    async with served(app) as client:
        await Repository(client).push_blob(LAYER)
    await app.aclose()
    assert (tmp_path / "a b" / "moorage.db").is_file()
    for storage in ("file://elsewhere/x", "file:x", "filesystem:x"):
        with pytest.raises(SettingsError, match="storage"):
            await create_app(storage=storage).open()


async def test_mounted_without_lifespan(tmp_path: Path) -> None:
    """Mounted below an application that passes no lifespan on, the registry opens with the first request."""
    inner = create_app(root=str(tmp_path))
    async with served(Starlette(routes=[Mount("/registry", inner)])) as client:
        assert (await client.get("/registry/v2/")).status_code == 200
        response = await client.post("/registry/v2/a/blobs/uploads/")
        assert response.headers["location"].startswith("/registry/v2/a/")
    await inner.aclose()


def test_wrong_settings() -> None:
    """An application is not made of settings that cannot be."""
    with pytest.raises(SettingsError, match="sparse"):
        create_app(sparse="some")
    with pytest.raises(SettingsError, match="unknown setting"):
        create_app(colour="blue")


async def test_settings_of_a_given_registry(registry: Registry) -> None:
    """Settings beside a registry say how it is seen; its own policy stays."""
    settings = Settings(location="absolute", deletion=False)
    async with served(create_app(registry, settings=settings)) as client:
        repository = Repository(client)
        assert (await repository.start()).startswith("http://registry.test/v2/")
        digest = await repository.push_blob(LAYER)
        assert (await repository.delete(f"blobs/{digest}")).status_code == 202
