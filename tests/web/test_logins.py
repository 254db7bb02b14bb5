"""Logins through the door: what is said to whoever errs, and to whoever guesses."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moorage import create_app
from moorage.settings import Settings
from tests.login import NAME, PASSWORD, basic, logged_in
from tests.support import errors, served

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Any]:
    logged_in(tmp_path / "htpasswd")
    settings = Settings(
        storage="memory",
        authentication=["tokens", "htpasswd", "users"],
        htpasswd=str(tmp_path / "htpasswd"),
        trusted_proxies=["10.0.0.0/8"],
    )
    made = create_app(settings=settings)
    yield made
    await made.aclose()


async def login(app: Any, name: str, password: str, address: str = HERE, **headers: str) -> httpx.Response:
    async with served(app, client=(address, 1)) as client:
        return await client.get("/v2/", headers=basic(name, password) | headers)


async def test_a_missing_user_is_told_nothing_else(app: Any) -> None:
    """The answer to a name that nobody has is the one to a wrong password, at every endpoint, however often."""
    async with served(app, client=(HERE, 1)) as client:
        for method, path in (
            ("GET", "/v2/"),
            ("GET", "/v2/a/tags/list"),
            ("PUT", "/v2/a/manifests/x"),
            ("GET", "/v2/token"),
        ):
            for _ in range(2):
                found = [
                    await client.request(method, path, headers=basic(each, "wrong")) for each in (NAME, "nobody")
                ]
                assert {each.status_code for each in found} == {401}
                assert found[0].content == found[1].content
                assert found[0].headers == found[1].headers
        form = {"grant_type": "password", "service": "x", "client_id": "x", "password": "wrong"}
        found = [await client.post("/v2/token", data=form | {"username": each}) for each in (NAME, "nobody")]
        assert {each.status_code for each in found} == {401}
        assert found[0].content == found[1].content


@pytest.mark.parametrize("name", [NAME, "nobody"])
async def test_guessing(app: Any, name: str) -> None:
    """After five wrong passwords there is 429 with Retry-After, for a name that somebody has and for any other."""
    for number in range(5):
        assert (await login(app, name, f"guess {number}")).status_code == 401
    refused = await login(app, name, PASSWORD)
    (error,) = errors(refused, 429, "TOOMANYREQUESTS")
    assert error["message"] == "too many failed logins; try again in 1 s"
    assert refused.headers["retry-after"] == "1"
    assert (await login(app, NAME, PASSWORD, THERE)).status_code == 200


async def test_guessing_at_the_token_endpoint(app: Any) -> None:
    """It is the same at the token endpoint, whichever way it is asked, and counted together."""
    async with served(app, client=(HERE, 1)) as client:
        for number in range(3):
            answer = await client.get("/v2/token", headers=basic(NAME, f"guess {number}"))
            assert answer.status_code == 401
        form = {"grant_type": "password", "service": "x", "client_id": "x", "username": NAME}
        for number in range(3, 5):
            answer = await client.post("/v2/token", data=form | {"password": f"guess {number}"})
            assert answer.status_code == 401
        for answer in (
            await client.get("/v2/token", headers=basic(NAME, PASSWORD)),
            await client.post("/v2/token", data=form | {"password": PASSWORD}),
            await client.get("/v2/", headers=basic(NAME, PASSWORD)),
        ):
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"


async def test_guessing_through_a_proxy(app: Any) -> None:
    """Behind a trusted proxy it is the client's address that waits; from others what they write does not count."""
    for number in range(5):
        await login(app, NAME, f"guess {number}", "10.0.0.1", **{"x-forwarded-for": HERE})
    for address, told, status in (("10.0.0.1", HERE, 429), (HERE, THERE, 429), ("10.0.0.1", THERE, 200)):
        answer = await login(app, NAME, PASSWORD, address, **{"x-forwarded-for": told})
        assert answer.status_code == status


async def test_right_password_goes_on(app: Any) -> None:
    """Whoever logged in within the last minute is not asked again, whatever others at his address try."""
    assert (await login(app, NAME, PASSWORD)).status_code == 200
    for number in range(6):
        await login(app, NAME, f"guess {number}")
    assert (await login(app, NAME, PASSWORD)).status_code == 200
