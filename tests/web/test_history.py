"""The history of tags through the door: as-of names, and the endpoints."""

from collections.abc import AsyncIterator

import httpx
import pytest

from moorage import Policy, Registry
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.moments import text
from moorage.storage.memory import MemoryBlobStore
from tests.fuzz.answer import Answer
from tests.fuzz.description import check_described
from tests.support import CONFIG, LAYER, Json, Repository, detail, digest_of, door_to, image

NOON = 1785585600.0  # 2026-08-01T12:00:00Z


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def app(clock: Clock) -> AsyncIterator[Repository]:
    """The repository ``app``: v1 was pushed at noon and moved at five past, its first image deleted at ten."""
    registry = Registry(MemoryBlobStore(), SQLiteMetadata(), Policy(), clock=clock, housekeeping=False)
    async with registry, door_to(registry) as client:
        app = Repository(client, "app")
        first = await app.push_image("v1")
        clock.now += 300
        await app.push_blob(b"second")
        await app.push(image(CONFIG, [b"second"]), "v1")
        clock.now += 300
        assert (await app.delete(f"manifests/{first['digest']}")).status_code == 202
        yield app


def past(app: Repository, moment: str = "2026-08-01t1202z") -> Repository:
    return Repository(app.client, f"at-{moment}/{app.name}")


async def described(response: httpx.Response) -> Json:
    """The answer's document, which must be as the API's description says."""
    request = response.request
    headers = tuple((name.lower(), value) for name, value in response.headers.items())
    check_described(
        request.method, request.url.raw_path.decode(), Answer(response.status_code, headers, response.content)
    )
    found: Json = response.json()
    return found


async def test_pull_as_of(app: Repository) -> None:
    """Manifest, blobs, tags and referrers of then answer under the name with the moment, and only there."""
    first = image()
    response = await past(app).get("manifests/v1")
    assert response.json() == first
    digest = response.headers["docker-content-digest"]
    assert (await past(app).get(f"manifests/{digest}")).json() == first
    assert (await past(app).head(f"blobs/{digest_of(LAYER)}")).status_code == 200
    assert (await past(app).get(f"blobs/{digest_of(LAYER)}", headers={"range": "bytes=4-8"})).content == LAYER[4:9]
    response = await past(app).get("tags/list")
    assert response.json() == {"name": "at-2026-08-01t1202z/app", "tags": ["v1"]}
    assert (await past(app).get(f"referrers/{digest}")).json()["manifests"] == []
    assert (await app.get(f"manifests/{digest}")).status_code == 404
    assert (await past(app, "2026-08-01t120501z").get("manifests/v1")).json() == image(CONFIG, [b"second"])


async def test_nothing_is_pushed_there(app: Repository) -> None:
    """Every change is 403, before any byte is taken."""
    name = past(app)
    for response in (
        await name.post(),
        await name.post(f"?digest={digest_of(LAYER)}", content=LAYER),
        await name.post(f"?mount={digest_of(LAYER)}&from=app"),
        await name.put(image(), "v2"),
        await name.delete("manifests/v1"),
        await name.delete(f"blobs/{digest_of(LAYER)}"),
        await app.client.patch(name.at("blobs/uploads/x"), content=b"x"),
        await app.client.post(name.at("_moorage/restore/v1")),
    ):
        assert detail(response, 403, "DENIED") == {"name": name.name}


async def test_moments_out_of_reach(app: Repository) -> None:
    """The future and what is too long ago are 404 and say how far history reaches; a moment that is none is 400."""
    for moment in ("2027-01-01", "2026-07-01t0000z"):
        found = detail(await past(app, moment).get("manifests/v1"), 404, "NAME_UNKNOWN")
        assert found["from"] == "2026-07-25T12:10:00.000Z"
        assert found["to"] == "2026-08-01T12:10:00.000Z"
    detail(await past(app, "2026-02-30").get("manifests/v1"), 400, "NAME_INVALID")


async def test_history_endpoint(app: Repository, clock: Clock) -> None:
    """The latest change comes first, in pages that Link joins."""
    await app.delete("manifests/v1")
    found = await described(await app.get("_moorage/history/v1"))
    assert [each["at"] for each in found["history"]] == [text(clock.now), text(NOON + 300), text(NOON)]
    assert [each["action"] for each in found["history"]] == ["tag.delete", "tag.push", "tag.push"]
    assert found["history"][0]["after"] is None
    page = await app.get("_moorage/history/v1?n=2")
    (target,) = [page.links["next"]["url"]]
    rest = await described(await app.client.get(target))
    assert (await described(page))["history"] + rest["history"] == found["history"]
    detail(await app.get("_moorage/history/never"), 404, "MANIFEST_UNKNOWN")
    detail(await app.get("_moorage/history/%C2%84?n=0"), 404, "MANIFEST_UNKNOWN")
    detail(await app.get("_moorage/history/v1?last=x"), 400, "UNSUPPORTED")


async def test_updates_endpoint(app: Repository) -> None:
    """The reserved extension's form: what the tag named, the oldest first, between two moments."""
    found = await described(await app.get("_chainguard/history/v1"))
    assert [each["updateTimestamp"] for each in found["history"]] == [text(NOON), text(NOON + 300)]
    between = await app.get("_chainguard/history/v1?start=2026-08-01T12:04:00Z&end=2026-08-01T13:00:00.000Z")
    assert (await described(between))["history"] == found["history"][1:]
    assert detail(await app.get("_chainguard/history/v1?start=soon"), 400, "UNSUPPORTED")["parameter"] == "start"


@pytest.mark.parametrize("to", ["", "?to=2026-08-01T12:03:00Z", "?to=digest"])
async def test_restore_endpoint(app: Repository, to: str) -> None:
    """A tag is set back by its last change, by a moment or by a digest, and what was deleted is there again."""
    digest = (await past(app).head("manifests/v1")).headers["docker-content-digest"]
    response = await app.client.post(app.at(f"_moorage/restore/v1{to.replace('digest', digest)}"))
    assert response.status_code == 201
    assert response.headers["docker-content-digest"] == digest
    assert (await app.client.get(response.headers["location"])).json() == image()
    assert (await app.get("manifests/v1")).json() == image()
    assert (await app.get(f"blobs/{digest_of(LAYER)}")).content == LAYER


@pytest.mark.parametrize(
    ("to", "status", "code"),
    [
        ("2026-08-01T11:00:00Z", 404, "MANIFEST_UNKNOWN"),
        (digest_of(b"absent"), 404, "MANIFEST_UNKNOWN"),
        ("sha256:0", 400, "DIGEST_INVALID"),
        ("tomorrow", 400, "UNSUPPORTED"),
        ("2026-99-99", 400, "UNSUPPORTED"),
    ],
)
async def test_restore_of_what_cannot_be(app: Repository, to: str, status: int, code: str) -> None:
    """It is said what was wrong, and nothing changes."""
    detail(await app.client.post(app.at(f"_moorage/restore/v1?to={to}")), status, code)
    assert (await app.get("manifests/v1")).json() == image(CONFIG, [b"second"])


@pytest.mark.parametrize("last", ["1_9" + "9" * 20, "1_-1", "1_x"])
async def test_a_page_that_no_page_led_to(repository: Repository, last: str) -> None:
    """The parameter ``last`` is what a page said, not any number."""
    refused = await repository.get(f"_moorage/history/v1?last={last}")
    assert refused.status_code == 400
