"""An OCI registry to run or to embed; see docs/embedding.md.

``Registry`` has every verb of the specification, ``create_app`` serves one over ASGI.
"""

from moorage import errors
from moorage._version import __version__
from moorage.build import create_app, open_registry
from moorage.config import Settings, SettingsError
from moorage.registry import Registry
from moorage.registry.policy import Policy
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
