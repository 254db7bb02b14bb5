"""A registry that a test runs: with HTTP, in a thread of its own; or without, as a library."""

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from moorage.testing.faults import Faults, SeenRequest

if TYPE_CHECKING:
    from moorage import Policy, Registry
    from moorage.testing.running import RegistryThread

Result = TypeVar("Result")


class Server:
    """A running registry: its address, what shall go wrong in it, what it was asked."""

    def __init__(self, thread: "RegistryThread") -> None:
        self._thread = thread

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``, as clients want it in a reference."""
        return self._thread.address

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.host.rpartition(":")[2])

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, without a slash at the end."""
        return f"http://{self.host}"

    @property
    def faults(self) -> Faults:
        """What shall go wrong."""
        return self._thread.faults

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The requests that arrived, in order, since the start or ``faults.clear()``."""
        return self.faults.requests

    def run(self, work: "Callable[[Registry], Coroutine[Any, Any, Result]]") -> Result:
        """What ``work(registry)`` returns, run where the registry runs; raises what it raises.

        For tests without a loop: to push what a client shall find, and to look at what it left.
        """
        return self._thread.work(work)


@contextmanager
def serve(
    make: "Callable[[], Registry] | None" = None, *, host: str = "127.0.0.1", port: int = 0
) -> "Iterator[Server]":
    """A registry that answers HTTP at ``host`` and ``port`` (0: a free one) for the length of the block.

    ``make`` gives the registry, not opened (default: ``memory_registry``): it is opened before the block starts and
    closed after it. Requests that still run at the end of the block are cut. Raises ``OSError`` where the address
    cannot be had, and whatever opening the registry raises.
    """
    from moorage.testing.running import RegistryThread  # noqa: PLC0415  a server's imports take their time

    thread = RegistryThread(make or memory_registry, host, port)
    thread.start()
    try:
        thread.wait_until_ready()
        yield Server(thread)
    finally:
        thread.stop()


def memory_registry(policy: "Policy | None" = None, *, clock: Callable[[], float] = time.time) -> "Registry":
    """A registry in memory, empty, to be opened with ``async with``; ``clock`` gives seconds since 1970.

    A clock of the test's own lets upload sessions expire at once.
    """
    from moorage import Registry  # noqa: PLC0415
    from moorage.metadata.sqlite import SQLiteMetadata  # noqa: PLC0415
    from moorage.storage.memory import MemoryBlobStore  # noqa: PLC0415

    return Registry(MemoryBlobStore(), SQLiteMetadata(), policy, clock=clock)
