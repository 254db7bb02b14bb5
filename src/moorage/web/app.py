"""The ASGI application: match, let in, endpoint, respond; the one exit that turns errors into responses."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Final

from moorage.metadata.base import Query, SeveralMetadata
from moorage.metadata.foresight import Foresight
from moorage.registry import Registry
from moorage.spec.actions import Action
from moorage.spec.errors import ClientDisconnected, Denied, RegistryError, ServiceUnavailable
from moorage.spec.moments import as_of
from moorage.spec.routes import Endpoint, match, methods
from moorage.web import history, releases, v2
from moorage.web.access import OPEN, Gate
from moorage.web.asgi import API_VERSION, JSON, ASGIRequest, Receive, Request, Response, Scope, Send, error_response
from moorage.web.options import WebOptions
from moorage.web.rates import Meter

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
_ENDPOINTS: Final = v2.ENDPOINTS | history.ENDPOINTS | releases.ENDPOINTS
_log = logging.getLogger("moorage.web")


class RegistryApp:
    """The registry as an ASGI application.

    ``registry`` is an open one, whose owner closes it, or makes one: that is opened at the lifespan's startup, or by
    the first request where the application is mounted below another that passes no lifespan on, and closed at
    shutdown or by ``aclose``. While ``draining`` it says that it is not ready for more. ``gate`` makes what lets
    requests in, of the open registry; without it, everyone may do everything.
    """

    def __init__(
        self,
        registry: Registry | Callable[[], Registry],
        options: WebOptions | None = None,
        gate: Callable[[Registry], Gate] | None = None,
    ) -> None:
        self._options = options or WebOptions()
        rates = self._options.rates
        self._meter = Meter(rates) if rates.any else None
        self._make_gate = gate
        self._gate: Gate | None = None
        self._foresight: Foresight | None = None
        self._make = None if isinstance(registry, Registry) else registry
        self._given = registry if isinstance(registry, Registry) else None
        self._registry: Registry | None = None
        self._opening = asyncio.Lock()
        self.draining = False
        self._stack = contextlib.AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.respond(ASGIRequest(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise RuntimeError(f"a registry speaks HTTP, not {scope['type']}")

    async def open(self) -> Registry:
        """The registry, open."""
        if self._registry is None:
            async with self._opening:
                if self._registry is None:
                    self._registry = await self._open()
        return self._registry

    async def _open(self) -> Registry:
        async with contextlib.AsyncExitStack() as stack:
            registry = self._given
            if registry is None:
                assert self._make is not None  # noqa: S101  one of the two was given
                registry = await stack.enter_async_context(self._make())
                await registry.quotas.apply()  # also where the settings have none any more
            if self._make_gate is not None:
                self._gate = await stack.enter_async_context(self._make_gate(registry))
                self._nothing = registry.emptied()
                if isinstance(registry.metadata, SeveralMetadata):
                    self._foresight = Foresight(registry.metadata)
            self._stack = stack.pop_all()
        return registry

    async def aclose(self) -> None:
        """Close what this application opened."""
        self._registry = None
        await self._stack.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.open()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"the registry cannot be opened: {error}"})
            if not isinstance(error, RegistryError | OSError | RuntimeError):  # these say what is wrong by themselves
                raise
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def respond(self, request: Request) -> None:
        """Answer ``request``, whichever way it came."""
        try:
            await request.respond(await self._answer(request))
        except ClientDisconnected:
            return
        except asyncio.CancelledError:  # the time for draining is over; what the client still sends is not waited for
            if not request.started:
                response = _error_response(request, ServiceUnavailable())
                response.close = True
                await request.respond(response)
            raise
        except RegistryError as error:
            if request.started:
                raise  # the client must see a cut connection, not a body that looks whole
            await self._fail(request, error)
        except Exception:
            if request.started:
                raise
            _log.exception("%s %r failed", request.method, request.path)
            await self._fail(request, RegistryError("internal error; the server's log says more"))

    async def _service(self, request: Request, registry: Registry) -> Response | None:
        """What is not of the specification: whether the process answers and can serve, the description of its API."""
        if request.method not in ("GET", "HEAD"):
            return None
        if request.path == READY:
            if self.draining:
                raise ServiceUnavailable
            await registry.ready()
        if request.path in (HEALTH, READY):
            return Response(200, [(b"content-type", b"text/plain"), (b"content-length", b"3")], b"ok\n")
        if request.path == "/openapi.json":
            body = resources.files(__package__).joinpath("openapi.json").read_bytes()
            return Response(200, [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(body))], body)
        return None

    async def _answer(self, request: Request) -> Response:
        request.check()
        registry = self._registry or await self.open()
        if request.method not in ("GET", "HEAD"):
            _check_origin(request, self._options)
        meter = self._meter
        if meter is not None and meter.counts_addresses and request.path not in (HEALTH, READY):
            await _pause(meter.request_from(self._options.client(request)))
        try:
            endpoint, repository, reference = match(request.method, request.path)
        except RegistryError:
            if self._gate is not None and (page := self._gate.pages.get(request.path)):
                return await page(request)
            if response := await self._service(request, registry):
                return response
            raise
        if self._foresight is None:
            return await self._let_in(request, registry, endpoint, repository, reference)
        sender = hashlib.sha256(request.headers.get(b"authorization", b"")).digest()
        async with self._foresight.of(sender, _first(registry, endpoint, repository, reference)) as foreseen:
            learn = partial(self._foresight.learn, sender, foreseen)
            return await self._let_in(request, registry, endpoint, repository, reference, learn)

    async def _let_in(
        self,
        request: Request,
        registry: Registry,
        endpoint: Endpoint,
        repository: str,
        reference: str,
        admitted: Callable[[], None] = lambda: None,
    ) -> Response:
        permit, real, past = OPEN, repository, as_of(repository)
        meter = self._meter
        if past:
            real = past[1]
        if self._gate is not None:
            permit = await self._gate.admit(request, endpoint, real, reference)
            admitted()
            if meter is not None and meter.counts_identities:
                await _pause(meter.request_of(permit.identity.name))
            if permit.hidden:
                registry = self._nothing
        if past and not permit.hidden:
            if endpoint.access is not Action.PULL:
                raise Denied("what is past cannot be changed", detail={"name": repository})
            registry = registry.at(past[0])
        call = v2.Call(request, registry, self._options, repository, reference, permit)
        answer = _ENDPOINTS[endpoint.name]
        if meter is None or not request.has_body:
            response = await answer(call)
        else:
            async with meter.upload_of(permit.identity.name, self._options.client(request)):
                response = await answer(call)
        response.headers.append(API_VERSION)
        if self._options.warnings and real and not permit.hidden:
            for warning in self._options.warnings_for(real):
                response.add("Warning", warning)
        return response

    async def _fail(self, request: Request, error: RegistryError) -> None:
        if error.status >= 500:
            _log.error("%s %r: %s", request.method, request.path, error)
        response = _error_response(request, error)
        try:
            response.close = not await request.drain()
            await request.respond(response)
        except ClientDisconnected:
            return


def _first(registry: Registry, endpoint: Endpoint, repository: str, reference: str) -> list[Query]:
    """What a pull will ask first; nothing where it is malformed, which its endpoint says."""
    try:
        if endpoint.name == "get_manifest":
            return [registry.manifests.question(repository, reference, content=endpoint.method == "GET")]
        if endpoint.name == "get_blob":
            return [registry.blobs.question(repository, reference)]
    except RegistryError:
        pass
    return []


def _check_origin(request: Request, options: WebOptions) -> None:
    """Refuse a change that a page of another site lets a browser ask for, with what the browser knows of its user.

    Only browsers send these headers. ``Origin`` counts where the newer one is missing, as over HTTP.
    """
    site, origin = request.header(b"sec-fetch-site"), request.header(b"origin")
    if site is None and origin is not None:
        site = "same-origin" if _host(origin) == _host(options.address(request)) else "cross-site"
    if site not in (None, "same-origin", "none"):
        raise Denied("a page of another site may not change anything here", detail={"origin": (origin or "")[:256]})


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].lower()


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


def _error_response(request: Request, error: RegistryError) -> Response:
    response = error_response(error)
    response.headers.append(API_VERSION)
    if error.status == 405 and "Allow" not in error.headers:
        response.add("Allow", ", ".join(each for each in methods(request.path) if each != request.method))
    return response
