"""The addresses that the registry gives out: relative, absolute, behind a proxy, below a path."""

from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from moorage import Registry, Settings, SettingsError, create_app
from tests.support import EMPTY, LAYER, Exchange, Repository, digest_of, door_to, image, next_url, served

PROXY = ip_network("127.0.0.0/8")
FORWARDED = {
    "x-forwarded-proto": "https",
    "x-forwarded-host": "registry.example.com",
    "x-forwarded-prefix": "/oci",
}


async def locations(client: httpx.AsyncClient, **request: Any) -> dict[str, str]:
    """Every kind of address that a registry gives out."""
    base = str(client.base_url).rstrip("/").removeprefix("http://registry.test")
    assert base == ""
    digest = digest_of(LAYER)
    headers = request.pop("headers", {})
    started = await client.post("/v2/a/blobs/uploads/", headers=headers)
    upload = f"/v2/a/blobs/uploads/{started.headers['location'].rpartition('/')[2]}"
    appended = await client.patch(upload, content=LAYER, headers=headers)
    status = await client.get(upload, headers=headers)
    refused = await client.patch(upload, content=b"x", headers={**headers, "content-range": "0-0"})
    finished = await client.put(f"{upload}?digest={digest}", headers=headers)
    mounted = await client.post(f"/v2/b/blobs/uploads/?mount={digest}&from=a", headers=headers)
    plain = Repository(client, "a")
    await plain.push_blob(b'{"os": "linux"}')
    pushed = await plain.put(image(), "one", headers=headers)
    await plain.put(image(), "two")
    page = await client.get("/v2/a/tags/list?n=1", headers=headers)
    link = next_url(page)
    assert link
    answers = {
        "started": started,
        "appended": appended,
        "status": status,
        "refused": refused,
        "finished": finished,
        "mounted": mounted,
        "pushed": pushed,
    }
    assert refused.status_code == 416
    found = {name: response.headers["location"] for name, response in answers.items()}
    return {**found, "link": link}


def bases(found: dict[str, str]) -> set[str]:
    """What stands before ``/v2/`` in each."""
    return {location.partition("/v2/")[0] for location in found.values()}


async def test_relative(registry: Registry) -> None:
    """By default a Location is a path of this host."""
    async with door_to(registry) as client:
        assert bases(await locations(client)) == {""}


async def test_absolute(registry: Registry) -> None:
    """When configured, a Location names the scheme and host that the request came to."""
    async with door_to(registry, location="absolute") as client:
        assert bases(await locations(client)) == {"http://registry.test"}


async def test_absolute_without_host(registry: Registry) -> None:
    """A request without Host (HTTP/1.0) gets a Location all the same."""
    exchange = await Exchange(create_app(registry, location="absolute"), "POST", "/v2/a/blobs/uploads/").run()
    assert exchange.response.headers["location"].startswith("http://localhost/v2/a/blobs/uploads/")


@pytest.mark.parametrize(
    ("location", "base"), [("relative", "/oci"), ("absolute", "https://registry.example.com/oci")]
)
async def test_x_forwarded(registry: Registry, location: str, base: str) -> None:
    """A trusted proxy's X-Forwarded-* says the scheme, the host and the path that clients use."""
    async with door_to(registry, location=location, trusted_proxies=(PROXY,)) as client:
        assert bases(await locations(client, headers=FORWARDED)) == {base}


async def test_x_forwarded_prefix_with_a_slash_at_its_end(registry: Registry) -> None:
    """A prefix may end with a slash; the Location has one, not two."""
    async with door_to(registry, trusted_proxies=(PROXY,)) as client:
        assert bases(await locations(client, headers={"x-forwarded-prefix": "/oci/"})) == {"/oci"}


@pytest.mark.parametrize(
    ("forwarded", "base"),
    [
        ("proto=https;host=registry.example.com", "https://registry.example.com"),
        ('for="[2001:db8::1]:80";Proto=https;HOST="registry.example.com:5000"', "https://registry.example.com:5000"),
        ("proto=http;host=inner, proto=https;host=outer.example.com", "https://outer.example.com"),
        ("for=192.0.2.1", "http://registry.test"),
        ("nonsense", "http://registry.test"),
    ],
)
async def test_forwarded(registry: Registry, forwarded: str, base: str) -> None:
    """A trusted proxy's Forwarded (RFC 7239) says the scheme and host; of several elements its own, the last."""
    async with door_to(registry, location="absolute", trusted_proxies=(PROXY,)) as client:
        assert bases(await locations(client, headers={"forwarded": forwarded})) == {base}


@pytest.mark.parametrize("trusted", [(), (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))])
async def test_untrusted_proxy_is_ignored(registry: Registry, trusted: tuple[Any, ...]) -> None:
    """What anybody else says of the scheme, host or path is ignored."""
    said = {**FORWARDED, "forwarded": "proto=https;host=evil.example.com"}
    async with door_to(registry, location="absolute", trusted_proxies=trusted) as client:
        assert bases(await locations(client, headers=said)) == {"http://registry.test"}


@pytest.mark.parametrize(
    ("client", "believed"),
    [(("10.1.2.3", 5), True), (("192.0.2.1", 5), False), (None, False), (("2001:db8::9", 5), True)],
)
async def test_trust_by_address(registry: Registry, client: tuple[str, int] | None, believed: bool) -> None:
    """A network of trusted proxies covers its addresses and no others; a client without address is not trusted."""
    trusted = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    app = create_app(registry, trusted_proxies=trusted)
    scope = {"client": client}
    exchange = await Exchange(app, "POST", "/v2/a/blobs/uploads/", {"x-forwarded-prefix": "/oci"}, scope=scope).run()
    assert exchange.response.headers["location"].startswith("/oci/v2/") is believed


async def test_trust_of_a_unix_socket(registry: Registry) -> None:
    """The other end of a Unix socket has no address: it is on this machine, trusted as loopback is."""
    for trusted, base in ((PROXY, "/oci/v2/"), (ip_network("10.0.0.0/8"), "/v2/")):
        app = create_app(registry, trusted_proxies=(trusted,))
        request = Exchange(
            app, "POST", "/v2/a/blobs/uploads/", {"x-forwarded-prefix": "/oci"}, scope={"client": ("", 0)}
        )
        assert (await request.run()).response.headers["location"].startswith(base)


@pytest.mark.parametrize(
    ("public_url", "location", "base"),
    [
        ("https://registry.example.com", "absolute", "https://registry.example.com"),
        ("https://registry.example.com/", "relative", ""),
        ("https://example.com/oci", "absolute", "https://example.com/oci"),
        ("https://example.com/oci/", "relative", "/oci"),
    ],
)
async def test_public_url(registry: Registry, public_url: str, location: str, base: str) -> None:
    """A configured public address is what clients are told, whatever headers say."""
    options = {"public_url": public_url, "location": location, "trusted_proxies": (PROXY,)}
    async with door_to(registry, **options) as client:
        assert bases(await locations(client, headers=FORWARDED)) == {base}


@pytest.mark.parametrize(
    ("location", "base"), [("relative", "/deep/below"), ("absolute", "http://registry.test/deep/below")]
)
async def test_mounted_below_a_path(registry: Registry, location: str, base: str) -> None:
    """Mounted below a path of another application, the registry answers there and says so."""
    host = Starlette(routes=[Mount("/deep/below", create_app(registry, location=location))])
    async with served(host) as client:
        started = await client.post("/deep/below/v2/a/blobs/uploads/")
        assert started.headers["location"].startswith(f"{base}/v2/a/blobs/uploads/")
        digest = digest_of(EMPTY)
        finished = await client.put(f"{started.headers['location']}?digest={digest}", content=EMPTY)
        assert finished.headers["location"] == f"{base}/v2/a/blobs/{digest}"
        assert (await client.get(finished.headers["location"])).content == EMPTY
        assert (await client.get("/v2/")).status_code == 404


async def test_root_path_of_the_server(registry: Registry) -> None:
    """A root_path that a server was started with stands before every Location."""
    async with served(create_app(registry), root_path="/behind") as client:
        response = await client.post("/v2/a/blobs/uploads/")
        assert response.headers["location"].startswith("/behind/v2/a/blobs/uploads/")


async def test_every_location_leads_somewhere(registry: Registry) -> None:
    """Followed as they are, the addresses that were given out work, in absolute form as well."""
    async with door_to(registry, location="absolute") as client:
        found = await locations(client)
        assert (await client.get(found["finished"])).content == LAYER
        assert (await client.get(found["mounted"])).content == LAYER
        assert (await client.get(found["pushed"])).status_code == 200
        assert (await client.get(found["link"])).json()["tags"] == ["two"]


def test_settings_make_the_options() -> None:
    """An application made from settings has the same options, and refuses what they refuse."""
    settings = Settings(storage="memory", trusted_proxies=["10.0.0.0/8"], location="absolute")
    assert settings.web_options().trusted_proxies == (ip_network("10.0.0.0/8"),)
    with pytest.raises(SettingsError, match="public-url"):
        create_app(public_url="registry.example.com")
