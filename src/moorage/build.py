"""The composition root: settings to parts. Alone in naming concrete backends."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from moorage.access import gate_of
from moorage.auth.base import Authenticator, Authorizer
from moorage.config import Settings, SettingsError, load
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry import Registry
from moorage.registry.policy import Policy
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.storage.memory import MemoryBlobStore
from moorage.web.app import RegistryApp
from moorage.web.options import WebOptions

FACTS = "moorage.db"
BYTES = "blobs"


def open_registry(
    root: str | os.PathLike[str] | None = None, policy: Policy | None = None, **options: Any
) -> Registry:
    """A registry in the folder ``root``, or in memory without one; use it as an async context manager.

    ``options`` are those of ``Registry``.
    """
    if root is None:
        return Registry(MemoryBlobStore(), SQLiteMetadata(), policy, **options)
    folder = Path(root)
    return Registry(FilesystemBlobStore(folder / BYTES), SQLiteMetadata(folder / FACTS), policy, **options)


def registry_of(settings: Settings, **options: Any) -> Registry:
    """The registry that ``settings`` describe; ``options`` are those of ``Registry``."""
    return open_registry(storage_folder(settings), settings.policy(), **options)


def storage_folder(settings: Settings) -> Path | None:
    """Where the filesystem keeps facts and bytes; None for memory. Raises ``SettingsError``."""
    kind, _, rest = settings.storage.partition(":")
    if kind == "memory":
        return None
    if kind == "filesystem" and not rest:
        return settings.data_folder()
    url = urlsplit(settings.storage)
    if kind == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return Path(unquote(url.path))
    raise SettingsError(f"storage = {settings.storage!r}: allowed: filesystem, memory, file:///path, memory:")


def create_app(
    registry: Registry | None = None,
    *,
    settings: Settings | None = None,
    authenticators: Sequence[Authenticator] = (),
    authorizer: Authorizer | None = None,
    **options: Any,
) -> RegistryApp:
    """An ASGI application that serves ``registry``, or the one that ``settings`` describe.

    A given registry is open and stays its owner's. Without one, the application opens its own and closes it at the
    lifespan's shutdown or by ``aclose``; ``options`` then are settings by name (``root="…"``, ``sparse="all"``…), in
    memory if there are none. ``authenticators`` are asked before those of the settings, ``authorizer`` instead of
    theirs; with neither of them and none in the settings, everyone may do everything. Raises ``SettingsError``.
    """
    given = settings
    if settings is None:
        settings = load(arguments=options) if options and registry is None else Settings(storage="memory")
    web = settings.web_options() if given or registry is None else replace(WebOptions(), **options)
    gate = gate_of(settings, web, authenticators, authorizer)
    return RegistryApp(registry or partial(registry_of, settings), web, gate)
