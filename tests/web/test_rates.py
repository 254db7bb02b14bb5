"""Requests a second and uploads at once: who is told to wait, how long, and who is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from moorage import Registry, create_app, open_registry
from moorage.auth.addresses import client_of
from moorage.auth.rules import Rule, Rules
from moorage.spec.actions import Action
from moorage.spec.errors import TooManyRequests
from moorage.web.rates import Meter, Rates
from tests.support import LAYER, digest_of, errors, pieces, served
from tests.web.test_access import Names, basic


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(meter: Meter, address: str = "192.0.2.1") -> int:
    """How many requests come through at once."""
    for count in range(10_000):
        try:
            assert meter.request_from(address) == 0
        except TooManyRequests:
            return count
    raise AssertionError("no limit")


def test_burst_and_rate(clock: Clock) -> None:
    """A client may send what it saved up at once, then as many a second as the rate says, however long it goes on."""
    meter = Meter(Rates(requests_per_address=5, request_burst=4), clock, request_patience=0)
    assert taken(meter) == 20
    for _ in range(50):
        clock.now += 1
        assert taken(meter) == 5
    clock.now += 3600
    assert taken(meter) == 20


def test_retry_after_is_right(clock: Clock) -> None:
    """Whoever waits as long as he is told gets through, and a slow rate is waited for."""
    meter = Meter(Rates(requests_per_address=0.1, request_burst=1), clock, request_patience=0)
    meter.request_from("192.0.2.1")
    with pytest.raises(TooManyRequests) as caught:
        meter.request_from("192.0.2.1")
    assert caught.value.headers["Retry-After"] == "10"
    clock.now += 9
    with pytest.raises(TooManyRequests):
        meter.request_from("192.0.2.1")
    clock.now += 1
    meter.request_from("192.0.2.1")


def test_each_client_has_its_own(clock: Clock) -> None:
    """Each client has its own: an IPv4 address, mapped or not, or an IPv6 network."""
    meter = Meter(Rates(requests_per_address=1, request_burst=3), clock, request_patience=0)
    assert taken(meter, "192.0.2.1") == 3
    assert taken(meter, "192.0.2.2") == 3
    assert taken(meter, "::ffff:192.0.2.2") == 0
    assert taken(meter, "2001:db8:0:1::1") == 3
    assert taken(meter, "2001:db8:0:1:ffff::2") == 0
    assert taken(meter, "2001:db8:0:2::1") == 3
    for _ in range(100):
        meter.request_from(None)


def test_waiting(clock: Clock) -> None:
    """Before it is refused, a request waits for its turn, as long as that is not too long away."""
    meter = Meter(Rates(requests_per_address=2, request_burst=1), clock, request_patience=3)
    waits = [meter.request_from("192.0.2.1") for _ in range(8)]
    assert waits == pytest.approx([0, 0, 0.5, 1, 1.5, 2, 2.5, 3], abs=1e-5)
    with pytest.raises(TooManyRequests) as caught:
        meter.request_from("192.0.2.1")
    assert caught.value.headers["Retry-After"] == "4"
    clock.now += 1
    assert meter.request_from("192.0.2.1") == pytest.approx(2.5, abs=1e-5)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", None),
        ("/run/socket", None),
        (None, None),
    ],
)
def test_client(address: str | None, client: str | None) -> None:
    assert client_of(address) == client


def test_memory_is_bounded(clock: Clock) -> None:
    """However many clients come, only so many are remembered."""
    meter = Meter(Rates(requests_per_address=1, request_burst=2), clock, request_patience=0)
    rate = meter._addresses
    assert rate is not None
    for number in range(120_000):
        meter.request_from(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 1000 == 0:
            clock.now += 2  # those before are quiet again
    assert len(rate._full) <= 50_000
    assert taken(meter) == 2
    for number in range(60_000):
        meter.request_from(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        clock.now += 1e-6
    assert len(rate._full) <= 50_000


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry() as opened:
        yield opened


async def client_for(stack: AsyncExitStack, registry: Registry, rates: Rates) -> httpx.AsyncClient:
    """A door at which everybody with a name may do everything."""
    rules = Rules([Rule(("*",), ("**",), frozenset(Action))])
    app = create_app(registry, authenticators=[Names()], authorizer=rules, rates=rates)
    return await stack.enter_async_context(served(app, client=("192.0.2.1", 1)))


async def test_address_is_told(registry: Registry) -> None:
    """An address over its rate gets 429 in the specification's form, and when to come again; health checks do not."""
    async with AsyncExitStack() as stack:
        client = await client_for(stack, registry, Rates(requests_per_address=0.001, request_burst=1))
        assert (await client.get("/v2/", headers=basic("alice"))).status_code == 200
        refused = await client.get("/v2/", headers=basic("alice"))
        (error,) = errors(refused, 429, "TOOMANYREQUESTS")
        assert error["message"] == "too many requests from this address"
        assert int(refused.headers["retry-after"]) > 900
        assert (await client.get("/nowhere")).status_code == 429
        assert (await client.get("/healthz")).status_code == 200


async def test_requests_wait(registry: Registry) -> None:
    """A client that goes on asking is slowed down to its rate, and is not refused."""
    async with AsyncExitStack() as stack:
        client = await client_for(stack, registry, Rates(requests_per_address=20, request_burst=1))
        started = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(client.get("/v2/", headers=basic("alice")) for _ in range(30)))
        assert {each.status_code for each in answers} == {200}
        assert asyncio.get_running_loop().time() - started >= 0.45


async def test_identity_is_told(registry: Registry) -> None:
    """An identity over its rate is told so, from wherever it comes; others and those who have none go on."""
    async with AsyncExitStack() as stack:
        client = await client_for(stack, registry, Rates(requests_per_identity=0.001, request_burst=1))
        assert (await client.get("/v2/", headers=basic("alice"))).status_code == 200
        refused = await client.get("/v2/", headers=basic("alice"))
        (error,) = errors(refused, 429, "TOOMANYREQUESTS")
        assert error["message"] == "too many requests of alice"
        assert (await client.get("/v2/", headers=basic("bob"))).status_code == 200
        for _ in range(3):
            assert (await client.get("/v2/")).status_code == 401


class Slow:
    """A body that waits in its middle until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        yield LAYER[:5]
        self.begun.set()
        await self.go_on.wait()
        yield LAYER[5:]


URL = f"/v2/a/blobs/uploads/?digest={digest_of(LAYER)}"


async def test_uploads_wait_for_their_turn(registry: Registry) -> None:
    """An upload more than allowed waits until one of its identity ends; those of others, and reads, do not."""
    async with AsyncExitStack() as stack:
        client = await client_for(stack, registry, Rates(uploads_per_identity=1))
        slow, late = Slow(), Slow()
        first = asyncio.create_task(client.post(URL, content=slow.stream(), headers=basic("alice")))
        await slow.begun.wait()
        second = asyncio.create_task(client.post(URL, content=late.stream(), headers=basic("alice")))
        assert (await client.post(URL, content=LAYER, headers=basic("bob"))).status_code == 201
        assert (await client.get("/v2/a/tags/list", headers=basic("alice"))).status_code == 200
        assert (await client.post("/v2/a/blobs/uploads/", headers=basic("alice"))).status_code == 202
        assert not late.begun.is_set()
        slow.go_on.set()
        assert (await first).status_code == 201
        await late.begun.wait()
        late.go_on.set()
        assert (await second).status_code == 201


async def test_uploads_that_wait_too_long(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload whose turn does not come is told to come again; one that fails or goes away frees its place."""
    monkeypatch.setattr(Meter.__init__, "__kwdefaults__", {"request_patience": 0, "upload_patience": 0.05})
    async with AsyncExitStack() as stack:
        client = await client_for(stack, registry, Rates(uploads_per_identity=1))
        slow = Slow()
        first = asyncio.create_task(client.post(URL, content=slow.stream(), headers=basic("alice")))
        await slow.begun.wait()
        refused = await client.post(URL, content=LAYER, headers=basic("alice"))
        (error,) = errors(refused, 429, "TOOMANYREQUESTS")
        assert error["detail"] == {"allowed": 1}
        assert int(refused.headers["retry-after"]) > 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        for _ in range(3):
            wrong = await client.post(URL, content=pieces(b"other"), headers=basic("alice"))
            assert wrong.status_code == 400
        assert (await client.post(URL, content=LAYER, headers=basic("alice"))).status_code == 201


async def test_anonymous_uploads_are_of_their_address(registry: Registry) -> None:
    """Where everybody may push without a name, it is the address that has so many at once."""
    async with AsyncExitStack() as stack:
        app = create_app(registry, rates=Rates(uploads_per_identity=1))
        here = await stack.enter_async_context(served(app, client=("192.0.2.1", 1)))
        there = await stack.enter_async_context(served(app, client=("192.0.2.2", 1)))
        slow = Slow()
        first = asyncio.create_task(here.post(URL, content=slow.stream()))
        await slow.begun.wait()
        second = asyncio.create_task(here.post(URL, content=LAYER))
        assert (await there.post(URL, content=LAYER)).status_code == 201
        assert not second.done()
        slow.go_on.set()
        assert {(await first).status_code, (await second).status_code} == {201}
