"""An OCI registry to run or to embed; see docs/embedding.md.

``Registry`` has every verb of the specification, ``open_registry`` makes one, ``create_app`` serves one over ASGI.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from moorage._version import __version__

if TYPE_CHECKING:
    from moorage import errors
    from moorage.build import create_app, open_registry
    from moorage.registry import Registry
    from moorage.registry.policy import Policy
    from moorage.settings import Settings, SettingsError
    from moorage.spec.descriptor import Descriptor
    from moorage.spec.digest import Digest
    from moorage.spec.errors import RegistryError
    from moorage.spec.preconditions import Precondition

__all__ = [
    "Descriptor",
    "Digest",
    "Policy",
    "Precondition",
    "Registry",
    "RegistryError",
    "Settings",
    "SettingsError",
    "__version__",
    "create_app",
    "errors",
    "open_registry",
]

_HOMES: Final = {
    "Descriptor": "moorage.spec.descriptor",
    "Digest": "moorage.spec.digest",
    "Policy": "moorage.registry.policy",
    "Precondition": "moorage.spec.preconditions",
    "Registry": "moorage.registry",
    "RegistryError": "moorage.spec.errors",
    "Settings": "moorage.settings",
    "SettingsError": "moorage.settings",
    "create_app": "moorage.build",
    "open_registry": "moorage.build",
}


def __getattr__(name: str) -> Any:
    # Loaded when first used: the pytest plugin is imported by every test run of whoever has Moorage installed.
    if name == "errors":
        return import_module("moorage.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
