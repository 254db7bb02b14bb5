"""The composition root: settings to parts. Alone in naming concrete backends."""

import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from moorage.access import gate_of
from moorage.auth.base import Authenticator, Authorizer
from moorage.config import STORAGES, load
from moorage.metadata.base import MovableMetadata
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.registry import Registry
from moorage.registry.policy import Policy
from moorage.settings import NAMES, Settings, SettingsError, in_bucket, without_password
from moorage.storage.adopting import AdoptingBlobStore
from moorage.storage.base import BlobStore
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.storage.memory import MemoryBlobStore
from moorage.storage.trees import Tree, open_tree
from moorage.web.app import RegistryApp
from moorage.web.options import WebOptions

if TYPE_CHECKING:
    from moorage.storage.objects import ObjectBlobStore

FACTS = "moorage.db"
BYTES = "blobs"
ALLOWED_FILES = {
    "object_ca_file": "a file of certificates in PEM",
    "object_credentials": "auto, anonymous, a file of credentials",
}


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
    return Registry(store_of(settings), metadata_of(settings), settings.policy(), **options)


def store_of(settings: Settings, *, read_only: bool = False) -> BlobStore:
    """The place for bytes that ``settings`` describe, not opened. Raises ``SettingsError``."""
    own: BlobStore
    folder = facts_folder(settings)
    if settings.bucket:
        own = _objects(settings, settings.storage, "storage")
    else:
        own = MemoryBlobStore() if folder is None else FilesystemBlobStore(folder / BYTES, read_only=read_only)
    if settings.adopt is None:
        return own
    _check_apart(settings, settings.adopt)
    return AdoptingBlobStore(own, tree_of(settings, settings.adopt, "adopt"), f"adopt = {settings.adopt!r}")


def _check_apart(settings: Settings, tree: str) -> None:
    """Raise ``SettingsError`` where something would be written into the tree that is adopted."""
    folder = facts_folder(settings)
    if in_bucket(tree):
        inside = f"{settings.storage.rstrip('/')}/".startswith(f"{tree.rstrip('/')}/")
    else:
        inside = folder is not None and folder.resolve().is_relative_to(Path(tree).resolve())
    if inside:
        place = settings.storage if in_bucket(tree) else str(folder)
        raise SettingsError(f"adopt = {tree!r}: it is not written to, and holds {place}; allowed: a place beside it")


def tree_of(settings: Settings, source: str, called: str = "source") -> Tree:
    """The files at ``source``, not opened: a folder, a tar, or a bucket that the settings for buckets reach.

    Raises ``SettingsError``, which calls the source what it is ``called``.
    """
    if in_bucket(source):
        store = _objects(settings, source, called)
        from moorage.storage.bucket_tree import BucketTree  # noqa: PLC0415  only a bucket needs the library

        return BucketTree(store, source.rstrip("/").rpartition("/")[2])
    try:
        return open_tree(Path(source))
    except (tarfile.TarError, FileNotFoundError) as error:
        raise SettingsError(
            f"{called} = {source!r}: {error}; allowed: a folder, a tar, s3://…, gs://…, az://…"
        ) from error


def metadata_of(settings: Settings, *, read_only: bool = False) -> MovableMetadata:
    """The place for facts that ``settings`` describe, not opened; ``read_only``, what is there already.

    Raises ``SettingsError``.
    """
    if settings.metadata != "sqlite":
        return _postgres(settings, read_only=read_only)
    folder = facts_folder(settings)
    if folder is None:
        return SQLiteMetadata()
    if read_only and not (folder / FACTS).is_file():
        raise SettingsError(f"root = {str(folder)!r}: there is no registry; allowed: a folder that holds {FACTS}")
    return SQLiteMetadata(folder / FACTS, read_only=read_only)


def facts_folder(settings: Settings) -> Path | None:
    """The folder that holds the facts unless they are in a database, and the bytes unless they are in a bucket.

    None where it would hold neither. Raises ``SettingsError``.
    """
    kind, _, rest = settings.storage.partition(":")
    if settings.in_memory or (settings.bucket and settings.metadata != "sqlite"):
        return None
    if settings.bucket or (kind == "filesystem" and not rest):
        return settings.data_folder()
    url = urlsplit(settings.storage)
    if kind == "file" and url.netloc in ("", "localhost") and url.path.startswith("/"):
        return Path(unquote(url.path))
    raise SettingsError(f"storage = {settings.storage!r}: allowed: {STORAGES}")


def place_of(settings: Settings) -> str:
    """Where everything is kept, in words."""
    if settings.in_memory:
        return "memory, gone when it stops"
    folder, database = str(facts_folder(settings)), without_password(settings.metadata)
    bytes_in = settings.storage if settings.bucket else folder
    facts_in = folder if settings.metadata == "sqlite" else database
    return bytes_in if bytes_in == facts_in else f"{bytes_in}, facts in {facts_in}"


def _postgres(settings: Settings, *, read_only: bool) -> MovableMetadata:
    called = f"metadata = {without_password(settings.metadata)!r}"
    try:
        from moorage.metadata.postgres import PostgresMetadata, PostgresOptions  # noqa: PLC0415  only where it is used
    except ImportError as error:
        raise SettingsError(
            f"{called}: {error.name or 'psycopg'} is missing; pip install 'moorage[postgres]' brings it"
        ) from error
    try:
        options = PostgresOptions(
            url=settings.metadata,
            password=settings.metadata_password,
            connections=settings.metadata_connections,
            patience=settings.metadata_timeout,
            prepare=settings.metadata_prepare,
            called=called,
            replica=settings.metadata_replica,
        )
    except ValueError as error:
        raise SettingsError(f"{called}: {error}; allowed: postgresql://user@host/database") from error
    return PostgresMetadata(options, read_only=read_only)


def _objects(settings: Settings, url: str, called: str) -> "ObjectBlobStore":
    if find_spec("obstore") is None:
        raise SettingsError(f"{called} = {url!r}: obstore is missing; pip install 'moorage[objects]' brings it")
    for name in ("object_ca_file", "object_credentials"):
        file = getattr(settings, name)
        if file not in (None, "auto", "anonymous") and not os.access(file, os.R_OK):
            raise SettingsError(f"{name} = {file!r}: no such file, or not to be read; allowed: {ALLOWED_FILES[name]}")
    from moorage.storage.buckets import BucketOptions  # noqa: PLC0415  only a bucket needs the library
    from moorage.storage.objects import ObjectBlobStore, ObjectOptions  # noqa: PLC0415

    def given(options: Any) -> dict[str, Any]:
        fields = options.__dataclass_fields__.keys() - {"url", "called"}
        return {each: getattr(settings, f"object_{each}" if f"object_{each}" in NAMES else each) for each in fields}

    bucket = BucketOptions(url=url, called=called, **given(BucketOptions))
    return ObjectBlobStore(bucket, ObjectOptions(**given(ObjectOptions)))


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
