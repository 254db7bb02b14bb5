"""The thread that a test's registry runs in, with an event loop of its own."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from moorage import Registry, create_app
from moorage.testing.faults import TRANSPORT, Faults
from moorage.testing.middleware import FaultyApp
from moorage.web.asgi import Receive, Scope, Send

Result = TypeVar("Result")


class _Protocol(HttpToolsProtocol):
    """Lets a fault cut the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def cut(self) -> None:
        """End every connection and request now; uvicorn's own way waits for what a fault may hold for minutes."""
        for listening in self.servers:
            listening.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        requests = list(self.server_state.tasks)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


class RegistryThread(threading.Thread):
    """Listens from its making on, answers from ``wait_until_ready`` on, until ``stop``."""

    def __init__(self, make: Callable[[], Registry], host: str, port: int) -> None:
        super().__init__(name="moorage-testing", daemon=True)
        self.faults = Faults()
        self._make = make
        self._listener = socket.create_server((host, port))
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._ready: Future[tuple[asyncio.AbstractEventLoop, Registry]] = Future()
        self._stopping = asyncio.Event()
        self._error: BaseException | None = None

    def wait_until_ready(self) -> None:
        """Return when requests are answered; raises what went wrong in the thread."""
        self._ready.result()

    def work(self, work: Callable[[Registry], Coroutine[Any, Any, Result]]) -> Result:
        """What ``work`` makes of the registry, in the registry's loop."""
        loop, registry = self._ready.result()
        return asyncio.run_coroutine_threadsafe(work(registry), loop).result()

    def stop(self) -> None:
        """Return when the registry is closed and the thread has ended; raises what went wrong since it was ready."""
        if self._ready.exception() is None:
            loop, _ = self._ready.result()
            with contextlib.suppress(RuntimeError):  # it ended by itself
                loop.call_soon_threadsafe(self._stopping.set)
        self.join()
        self._listener.close()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001  the caller of serve gets it
            if self._ready.done():
                self._error = error
            else:
                self._ready.set_exception(error)

    async def _run(self) -> None:
        async with self._make() as registry:
            app = FaultyApp(create_app(registry), self.faults)
            config = uvicorn.Config(
                self._until_stopped(app),
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                proxy_headers=False,
                server_header=False,
            )
            running = asyncio.get_running_loop(), registry
            server = _Uvicorn(config, lambda: self._ready.set_result(running))
            serving = asyncio.create_task(server.serve(sockets=[self._listener]))
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                stopping.cancel()
                await serving
                return
            serving.cancel()
            await server.cut()

    def _until_stopped(self, app: FaultyApp) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
        async def until_stopped(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                # The connection is cut already: uvicorn would log what nobody needs to know.
                if not self._stopping.is_set():
                    raise

        return until_stopped
