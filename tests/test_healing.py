"""Damaged bytes through the door, on a disk and in a bucket, served or redirected: never as what they are not."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from moorage import Registry
from moorage.build import registry_of
from moorage.config import load
from moorage.registry.check import check
from tests.server import Server, as_environment, running
from tests.support import Repository, digest_of

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda content: bytes([content[0] ^ 1]) + content[1:-1] + bytes([content[-1] ^ 1]),
    "truncated": lambda content: content[: len(content) // 2],
    "zero length": lambda _: b"",
    "missing": lambda _: None,
}
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"range": "bytes=0-99"},
    {"range": "bytes=-100"},
    {"range": "bytes=0-9,-10"},
)
CUT = 0  # for a status: the answer had no end


class Place:
    """A repository of a server, with a small and a large blob, and the registry that knows where its bytes are."""

    def __init__(self, registry: Registry, client: httpx.AsyncClient, *, redirects: bool) -> None:
        self.registry = registry
        self.app = Repository(client, secrets.token_hex(8))
        self.redirects = redirects
        self.small = secrets.token_bytes(4096)
        self.large = secrets.token_bytes(3 * 1024 * 1024)

    async def damage(self, content: bytes, how: str) -> None:
        """What is under the key of a blob is something else from now on."""
        store = self.registry._parts.store
        blob = await self.registry.blobs.get(self.app.name, digest_of(content))
        await store.delete([blob.key])
        if (instead := DAMAGES[how](content)) is not None:
            async with store.write(blob.key) as writer:
                await writer.write([instead])

    async def pull(self, content: bytes, headers: dict[str, str]) -> int:
        """The status at the end of all redirects; what is no error must be right."""
        try:
            answer = await self.app.get(f"blobs/{digest_of(content)}", headers=headers, follow_redirects=True)
        except httpx.RemoteProtocolError:
            return CUT
        if answer.status_code == 200:
            assert answer.content == content
        elif "," in headers.get("range", "") and answer.status_code == 206:
            for part in (content[:10], content[-10:]):
                assert b"\r\n\r\n" + part + b"\r\n" in answer.content
        elif answer.status_code == 206:
            first, _, last = answer.headers["content-range"].removeprefix("bytes ").partition("/")[0].partition("-")
            assert answer.content == content[int(first) : int(last) + 1]
        return answer.status_code

    async def heals(self, content: bytes) -> None:
        """It is there for nobody, in whatever way it is asked for; a push makes it right for everybody."""
        for headers in HEADERS:
            assert await self.pull(content, headers) == 404
        assert (await self.app.head(f"blobs/{digest_of(content)}")).status_code == 404
        await self.app.push_blob(content)
        assert [await self.pull(content, headers) for headers in HEADERS] == [200, 206, 206, 206]


@pytest.fixture(
    scope="module",
    params=["disk", *(pytest.param(each, marks=pytest.mark.stores) for each in ("bucket", "redirect"))],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose bytes are there, and which redirects to them or does not."""
    settings = {"scrub_rate": 0}
    if request.param != "disk":
        redirect = "always" if request.param == "redirect" else "never"
        settings |= request.getfixturevalue("seaweedfs").place(redirect=redirect)
    with running(tmp_path_factory.mktemp("healing"), **as_environment(settings)) as made:
        yield made


@pytest.fixture
async def place(server: Server) -> AsyncIterator[Place]:
    """In the end nothing is wrong."""
    settings = load(arguments={"root": str(server.root)}, environment=server.environment)
    async with (
        registry_of(settings, housekeeping=False) as registry,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        made = Place(registry, client, redirects=settings.redirect == "always")
        for content in (made.small, made.large):
            await made.app.push_blob(content)
        yield made
        parts = registry._parts
        assert [str(each) async for each in check(parts.store, parts.metadata, full=True)] == []


@pytest.mark.parametrize("how", DAMAGES)
async def test_what_a_scrub_finds(place: Place, how: str) -> None:
    """Whatever happened to the bytes, after a scrub nobody gets them, nor is sent where they are."""
    for content in (place.small, place.large):
        await place.damage(content, how)
    if how == "missing" and place.redirects:
        assert [await place.pull(place.large, headers) for headers in HEADERS[:3]] == [404] * 3
    assert (await place.registry.scrub()).quarantined == 2
    for content in (place.small, place.large):
        await place.heals(content)


@pytest.mark.parametrize("headers", HEADERS, ids=str)
@pytest.mark.parametrize("how", DAMAGES)
async def test_a_small_blob_is_verified_when_it_is_read(place: Place, how: str, headers: dict[str, str]) -> None:
    """Whichever part of it the first pull wants, that is an error, and all others find it gone."""
    if place.redirects:
        pytest.skip("the bucket answers, which knows no digests")
    await place.damage(place.small, how)
    assert await place.pull(place.small, headers) in (CUT, 500)
    await place.heals(place.small)


@pytest.mark.parametrize("headers", HEADERS, ids=str)
@pytest.mark.parametrize("how", [each for each in DAMAGES if each != "flipped"])
async def test_what_a_pull_can_see_of_a_large_blob(place: Place, how: str, headers: dict[str, str]) -> None:
    """What is missing is never made up: a part that is there is right, the whole is an error, and then it is gone."""
    if place.redirects:
        pytest.skip("the bucket answers, which knows no lengths")
    await place.damage(place.large, how)
    assert await place.pull(place.large, headers) in ((CUT, 206, 500) if how == "truncated" else (CUT, 500))
    assert await place.pull(place.large, {}) in (CUT, 404, 500)
    await place.heals(place.large)
