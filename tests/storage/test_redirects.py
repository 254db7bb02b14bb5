"""Clients are sent to the bucket, or not."""

import re

import httpx
import pytest

from moorage import create_app
from tests.storage.conftest import Behind, Opener
from tests.support import served

pytestmark = pytest.mark.stores

CONTENT = bytes(range(256)) * 1000


async def blob(place: Behind) -> str:
    return f"blobs/{await place.repository.push_blob(CONTENT)}"


async def follow(answer: httpx.Response, **headers: str) -> httpx.Response:
    assert answer.status_code == 307
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(answer.headers["location"], headers=headers)


async def test_an_address_has_the_bytes(behind: Opener) -> None:
    """The 307 says the digest and has no body; the address needs no credentials, and gives ranges too."""
    place = await behind(redirect="always", redirect_expiry=300.0)
    path = await blob(place)
    answer = await place.repository.get(path)
    assert answer.headers["docker-content-digest"] == path.removeprefix("blobs/")
    assert answer.headers["content-length"] == "0"
    assert answer.content == b""
    assert (await follow(answer)).content == CONTENT
    part = await place.repository.get(path, headers={"Range": "bytes=100-199"})
    got = await follow(part, Range="bytes=100-199")
    assert got.status_code == 206
    assert got.content == CONTENT[100:200]


async def test_an_address_expires(behind: Opener) -> None:
    """It is good for the time that was set and at most a minute more; nobody else can prolong or change it."""
    place = await behind(redirect="always", redirect_expiry=300.0)
    address = (await place.repository.get(await blob(place))).headers["location"]
    found = re.search(r"X-Amz-Expires=(\d+)", address)
    assert found
    assert 300 <= int(found[1]) <= 360
    async with httpx.AsyncClient(trust_env=False) as client:
        for changed in (
            address.replace(found[0], "X-Amz-Expires=86400"),
            address.replace("/moorage/", "/moorage/other/"),
            address.partition("?")[0],
        ):
            assert (await client.get(changed)).status_code == 403
        assert (await client.delete(address)).status_code == 403


async def test_an_address_is_given_again(behind: Opener) -> None:
    """A blob that many ask for is signed once a minute, not once a pull."""
    place = await behind(redirect="always")
    path = await blob(place)
    first, again = [(await place.repository.get(path)).headers["location"] for _ in range(2)]
    assert first == again


async def test_what_the_registry_answers_itself(behind: Opener) -> None:
    """HEAD, conditions that the bucket would not understand, several ranges, an empty blob, what is not there."""
    place = await behind(redirect="always")
    path = await blob(place)
    digest = path.removeprefix("blobs/")
    assert (await place.repository.head(path)).headers["content-length"] == str(len(CONTENT))
    for headers, status, content in (
        ({"If-None-Match": f'"{digest}"'}, 304, b""),
        ({"If-Match": f'"{digest}"'}, 200, CONTENT),
        ({"If-Range": f'"{digest}"', "Range": "bytes=0-9"}, 206, CONTENT[:10]),
    ):
        answer = await place.repository.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (status, content)
    assert (await place.repository.get(path, headers={"If-Match": '"other"'})).status_code == 412
    for unusual in ("bytes=0-1,5-6", "BYTES=0-1"):
        assert (await place.repository.get(path, headers={"Range": unusual})).status_code == 206
    assert (await place.repository.get(path, headers={"Range": "bytes=9999999-"})).status_code == 416
    empty = await place.repository.push_blob(b"")
    answer = await place.repository.get(f"blobs/{empty}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await place.repository.get(f"blobs/sha256:{'0' * 64}")).status_code == 404


async def test_nobody_is_led_from_https_to_http(behind: Opener) -> None:
    """Clients refuse that; the bytes come through then."""
    place = await behind(redirect="always")
    path = await blob(place)
    async with served(create_app(place.registry), followed=False, host="https://registry.test") as client:
        answer = await client.get(place.repository.at(path))
        assert (answer.status_code, answer.content) == (200, CONTENT)
    async with served(create_app(place.registry, public_url="https://registry.test"), followed=False) as client:
        assert (await client.get(place.repository.at(path))).status_code == 200


@pytest.mark.parametrize("redirect", ["auto", "never"])
async def test_bytes_come_through(behind: Opener, redirect: str) -> None:
    """``never`` streams, and so does ``auto`` with an endpoint of one's own, which clients may not reach."""
    place = await behind(redirect=redirect)
    answer = await place.repository.get(await blob(place))
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize("redirect", ["auto", "always"])
async def test_a_delivery_network(behind: Opener, redirect: str) -> None:
    """With ``cdn_url`` the address is there, below it the key, and nothing is signed."""
    place = await behind(redirect=redirect, cdn_url="https://cdn.example/registry/")
    answer = await place.repository.get(await blob(place))
    (key,) = await place.keys()
    assert answer.headers["location"] == f"https://cdn.example/registry/{key}"
