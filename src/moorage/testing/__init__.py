"""A real registry for the tests of OCI clients, and the contracts that storage backends keep; docs/embedding.md.

``serve`` runs a registry on a free port with faults to inject, ``memory_registry`` makes one without HTTP, the pytest
fixture ``moorage_registry`` is a ``serve`` of its own for each test, and ``moorage.testing.contract`` holds backends
to what the registry expects of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from moorage.testing.faults import Fault, Faults, SeenRequest
    from moorage.testing.server import Server, memory_registry, serve

__all__ = ["Fault", "Faults", "SeenRequest", "Server", "memory_registry", "serve"]

_HOMES: Final = {
    "Fault": "faults",
    "Faults": "faults",
    "SeenRequest": "faults",
    "Server": "server",
    "memory_registry": "server",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    # pytest imports this package at each start, in every project that has Moorage installed: it must cost nothing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
