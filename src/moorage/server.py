"""Runs the application: sockets, workers, signals, draining."""

import asyncio
import contextlib
import ctypes
import errno
import functools
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from moorage._version import __version__
from moorage.build import create_app, facts_folder, metadata_of, place_of, store_of
from moorage.settings import Settings, SettingsError
from moorage.tls import ReloadedContext
from moorage.web.connections import Connections
from moorage.web.limits import Limits

_log = logging.getLogger("moorage.server")
_BACKLOG: Final = 2048
_PAUSE: Final = 1.0  # seconds between a worker's start and that of the one in its place
_HANDSHAKE: Final = 15.0  # seconds for the handshake of TLS
_GOODBYE: Final = 2.0  # seconds for its end
_FILES: Final = 1 << 20  # where the system sets no limit
_OTHER_FILES: Final = 128  # for the database, the log, libraries
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEPT: Final = 8 * 1024 * 1024  # bytes of freed memory that stay ours, for the pieces of bodies that come next
_LOOK: Final = 50  # tenths of a second between two looks at the files of TLS


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT and the exit code; raises ``SettingsError`` if the address cannot be had."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_fault)
    address = _resolve(settings)
    _check_exposure(settings, address)
    _check_access(settings, address)
    tls = ReloadedContext.of(settings) if settings.tls_certificate else None
    metadata_of(settings)  # what is wrong with it is said before anything starts
    _check_folder(settings)
    sockets = _bind(settings, address)
    _keep_memory()
    announce = _announcement(settings, sockets[0])
    if settings.workers == 1:
        return _Worker(settings, tls, sockets[0], announce).work()
    return _Supervisor(settings, tls, sockets, announce).run()


def _keep_memory() -> None:
    """Let the heap keep what is freed: the GNU C library gives it back and takes it again for each MiB of an upload.

    That costs a fault for each page of a body, a fifth of the processor time of an upload. Elsewhere nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)  # setting one alone would fix the other at its small default


class _Worker(uvicorn.Server):
    """One process that answers requests; tells when it does, and ends when ``lifeline`` is closed."""

    def __init__(
        self,
        settings: Settings,
        tls: ReloadedContext | None,
        listener: socket.socket,
        ready: Callable[[], None],
        lifeline: int | None = None,
    ) -> None:
        app = create_app(settings=settings)
        super().__init__(
            uvicorn.Config(
                app,
                http=asyncio.Protocol,  # never asked for: startup makes the connections
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
            )
        )
        self._connections = Connections(app.respond, _limits(settings), settings.web_options().trusted_proxies)
        self._app = app
        self._tls = tls
        self._listener = listener
        self._ready = ready
        self._lifeline = lifeline

    def work(self) -> int:
        try:
            self.run(sockets=[self._listener])
        except SystemExit:  # uvicorn's word for a start that failed; why is in the log
            return 1
        return 0 if self.started else 1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  it has one
        # uvicorn's own gives TLS no times: a client that never says goodbye would hold the end for half a minute.
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)
        loop = asyncio.get_running_loop()
        make = functools.partial(self._connections.make, self.server_state)
        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "ssl_handshake_timeout": _HANDSHAKE, "ssl_shutdown_timeout": _GOODBYE}
        self.servers = [await loop.create_server(make, sock=self._listener, backlog=_BACKLOG, **tls)]
        self.started = True
        if not self.should_exit:
            if self._lifeline is not None:
                loop.add_reader(self._lifeline, self._orphaned)
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after draining, and the exit code would not be 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        if self._tls is not None:
            loop.add_signal_handler(signal.SIGHUP, functools.partial(self._tls.reload, asked=True))
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.draining = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._tls is not None and counter % _LOOK == 0:
            self._tls.reload()
        return await super().on_tick(counter)

    def _orphaned(self) -> None:
        assert self._lifeline is not None  # noqa: S101  only then this is called
        asyncio.get_running_loop().remove_reader(self._lifeline)
        self._app.draining = True
        self.should_exit = True


class _Supervisor:
    """Keeps ``workers`` processes running, each with a socket of its own on the one port."""

    def __init__(
        self,
        settings: Settings,
        tls: ReloadedContext | None,
        sockets: list[socket.socket],
        announce: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._tls = tls
        self._sockets = sockets
        self._announce = announce
        self._workers: dict[int, tuple[int, float]] = {}
        self._lifeline = os.pipe()
        self._stopping = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if self._tls is not None:
            signal.signal(signal.SIGHUP, self._pass_on)
        told, tell = os.pipe()
        for index in range(len(self._sockets)):
            self._start(index, tell)
        os.close(tell)
        ready = 0
        while os.read(told, 1):  # each worker writes one byte when it is ready; the end means none will any more
            ready += 1
        os.close(told)
        failed = ready < len(self._sockets) and not self._stopping
        if failed:  # it said why
            self._stop(signal.SIGTERM, None)
        elif not self._stopping:
            self._announce()
        while self._workers:
            self._reap()
        return 1 if failed else 0

    def _start(self, index: int, tell: int | None = None) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = index, time.monotonic()
            if self._stopping:  # the signal came before this worker was known
                os.kill(pid, signal.SIGTERM)
            return
        os.close(self._lifeline[1])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if self._tls is not None:  # it reads the files when it starts to answer
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for other, each in enumerate(self._sockets):
            if other != index:
                each.close()

        def ready() -> None:
            if tell is not None:
                os.write(tell, b".")
                os.close(tell)

        code = 1
        try:
            code = _Worker(self._settings, self._tls, self._sockets[index], ready, self._lifeline[0]).work()
        except BaseException:  # noqa: BLE001  a forked process must not return into its parent's code
            _log.exception("a worker failed")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        pid, status = os.wait()
        index, started = self._workers.pop(pid, (None, 0.0))
        if index is None or self._stopping:  # the first process of a container is given the children of others, too
            return
        code = os.waitstatus_to_exitcode(status)
        _log.error("worker %d ended with %d; starting another", pid, code)
        time.sleep(max(0.0, started + _PAUSE - time.monotonic()))
        self._start(index)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal handler's form
        self._stopping = True
        for each in self._sockets:
            each.close()
        self._pass_on(signal.SIGTERM, None)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal handler's form
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _limits(settings: Settings) -> Limits:
    """Those of the settings; as many connections as there may be open files for them and for what they transfer."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems say a limit that they do not allow
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files = _FILES if most == resource.RLIM_INFINITY else most
    limits = settings.limits()
    connections = limits.connections or max(1, (files - _OTHER_FILES) // 3)
    return replace(
        limits,
        connections=connections,
        connections_per_address=limits.connections_per_address or max(1, connections // 2),
    )


def _is_fault(record: logging.LogRecord) -> bool:
    """Cutting a transfer off at the end of draining is no fault, and needs no traceback."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


_Address = tuple[socket.AddressFamily, Any]


def _resolve(settings: Settings) -> _Address:
    """The address that ``host`` and ``port`` mean; raises ``SettingsError``."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise _unusable(settings, settings.port, error) from error
    return family, address


def _bind(settings: Settings, resolved: _Address) -> list[socket.socket]:
    """A socket a worker, all on one port."""
    sockets: list[socket.socket] = []
    family, address = resolved
    try:
        for _ in range(settings.workers):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.workers > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            address = listener.getsockname()
    except OSError as error:
        raise _unusable(settings, address[1], error) from error
    return sockets


def _unusable(settings: Settings, port: int, error: OSError) -> SettingsError:
    return SettingsError(f"host = {settings.host!r}, port = {port}: {error.strerror or error}")


def _check_folder(settings: Settings) -> None:
    if settings.bucket or settings.adopt is not None:
        store_of(settings)  # what is wrong with the settings is said now, by one process
    folder = facts_folder(settings)
    if folder is None:
        return
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in made:
            parent = os.open(each.parent, os.O_RDONLY | os.O_DIRECTORY)
            os.fsync(parent)
            os.close(parent)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(f"root = {str(folder)!r}: {error.strerror}; allowed: a folder to write to") from error


def _announcement(settings: Settings, listener: socket.socket) -> Callable[[], None]:
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "localhost"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    scheme = "http" if settings.tls_certificate is None else "https"

    def announce() -> None:
        print(f"Moorage {__version__} serves {scheme}://{address} from {place_of(settings)}")  # noqa: T201
        print(f"Try it: docker tag busybox {address}/busybox && docker push {address}/busybox", flush=True)  # noqa: T201

    return announce


def _check_exposure(settings: Settings, resolved: _Address) -> None:
    """Plain HTTP beyond this machine has to be asked for; raises ``SettingsError``."""
    if _is_loopback(resolved):
        return
    if settings.tls_certificate is None and not settings.trusted_proxies:
        if not settings.insecure_http:
            raise SettingsError(
                f"host = {settings.host!r}: others on the network could read and change what goes over plain HTTP; "
                "allowed: a loopback address, tls_certificate, trusted_proxies (a proxy with TLS in front), "
                "or insecure_http = true"
            )
        _log.warning("plain HTTP on %s: others on the network can read and change what is sent", settings.host)


def _check_access(settings: Settings, resolved: _Address) -> None:
    """Beyond loopback a registry is open to everyone only where that is meant; raises ``SettingsError``."""
    if settings.authentication or _is_loopback(resolved):
        return
    if not settings.open_access:
        raise SettingsError(
            f"host = {settings.host!r}: anyone who reaches it could push, pull and delete; allowed without "
            "authentication: a loopback address, or open_access = true where that is meant"
        )
    _log.warning("anyone who reaches %s can push, pull and delete", settings.host)


def _is_loopback(resolved: _Address) -> bool:
    return ipaddress.ip_address(resolved[1][0].partition("%")[0]).is_loopback
