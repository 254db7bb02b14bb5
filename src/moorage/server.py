"""Runs the application: sockets, workers, signals, draining."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import uvicorn

from moorage._version import __version__
from moorage.build import create_app, storage_folder
from moorage.config import Settings, SettingsError
from moorage.protocol import RegistryProtocol

_log = logging.getLogger("moorage.server")
_BACKLOG: Final = 2048
_PAUSE: Final = 1.0  # seconds between a worker's start and that of the one in its place


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT and the exit code; raises ``SettingsError`` if the address cannot be had."""
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_fault)
    _warn_if_open(settings)
    _check_folder(settings)
    sockets = _bind(settings)
    announce = _announcement(settings, sockets[0])
    if settings.workers == 1:
        return _Worker(settings, sockets[0], announce).work()
    return _Supervisor(settings, sockets, announce).run()


class _Worker(uvicorn.Server):
    """One process that answers requests; tells when it does, and ends when ``lifeline`` is closed."""

    def __init__(
        self, settings: Settings, listener: socket.socket, ready: Callable[[], None], lifeline: int | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(settings=settings),
                http=RegistryProtocol,
                lifespan="on",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=max(1, round(settings.keep_alive)),
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
                backlog=_BACKLOG,
            )
        )
        self._listener = listener
        self._ready = ready
        self._lifeline = lifeline

    def work(self) -> int:
        try:
            self.run(sockets=[self._listener])
        except SystemExit:  # uvicorn's word for a start that failed; why is in the log
            return 1
        return 0 if self.started else 1

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            if self._lifeline is not None:
                asyncio.get_running_loop().add_reader(self._lifeline, self._orphaned)
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after draining, and the exit code would not be 0.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def _orphaned(self) -> None:
        assert self._lifeline is not None  # noqa: S101  only then this is called
        asyncio.get_running_loop().remove_reader(self._lifeline)
        self.should_exit = True


class _Supervisor:
    """Keeps ``workers`` processes running, each with a socket of its own on the one port."""

    def __init__(self, settings: Settings, sockets: list[socket.socket], announce: Callable[[], None]) -> None:
        self._settings = settings
        self._sockets = sockets
        self._announce = announce
        self._workers: dict[int, tuple[int, float]] = {}
        self._lifeline = os.pipe()
        self._stopping = False

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
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
        for other, each in enumerate(self._sockets):
            if other != index:
                each.close()

        def ready() -> None:
            if tell is not None:
                os.write(tell, b".")
                os.close(tell)

        code = 1
        try:
            code = _Worker(self._settings, self._sockets[index], ready, self._lifeline[0]).work()
        except BaseException:  # noqa: BLE001  a forked process must not return into its parent's code
            _log.exception("a worker failed")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        pid, status = os.wait()
        index, started = self._workers.pop(pid)
        if self._stopping:
            return
        code = os.waitstatus_to_exitcode(status)
        _log.error("worker %d ended with %d; starting another", pid, code)
        time.sleep(max(0.0, started + _PAUSE - time.monotonic()))
        self._start(index)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a signal handler's form
        self._stopping = True
        for each in self._sockets:
            each.close()
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _is_fault(record: logging.LogRecord) -> bool:
    """Cutting a transfer off at the end of draining is no fault, and needs no traceback."""
    return not (record.exc_info and record.exc_info[0] is asyncio.CancelledError)


def _bind(settings: Settings) -> list[socket.socket]:
    """A socket a worker, all on one port."""
    sockets: list[socket.socket] = []
    port = settings.port
    try:
        family, kind, protocol, _, _ = socket.getaddrinfo(
            settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        for _ in range(settings.workers):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.workers > 1:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((settings.host, port))
            port = listener.getsockname()[1]
    except OSError as error:
        raise SettingsError(f"host = {settings.host!r}, port = {port}: {error.strerror or error}") from error
    return sockets


def _check_folder(settings: Settings) -> None:
    folder = storage_folder(settings)
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
    where = storage_folder(settings) or "memory, gone when it stops"

    def announce() -> None:
        print(f"Moorage {__version__} serves http://{address} from {where}")  # noqa: T201
        print(f"Try it: docker tag busybox {address}/busybox && docker push {address}/busybox", flush=True)  # noqa: T201

    return announce


def _warn_if_open(settings: Settings) -> None:
    try:
        loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = settings.host == "localhost"
    if not loopback:
        _log.warning("anyone who reaches %s can push, pull and delete: keep it behind a proxy", settings.host)
