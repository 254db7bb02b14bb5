"""Settings from a file, the environment and the command line, the last one strongest; a wrong one is an error."""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec

from moorage.auth.certificates import METHOD as CERTIFICATE
from moorage.issuer_settings import check_issuers
from moorage.registry.policy import QuotaRule
from moorage.settings import BUCKETS, NAMES, SECRETS, TYPES, Settings, SettingsError, allowed, in_bucket, shown
from moorage.spec.headers import WARNINGS_LONGEST

_LISTS: Final = frozenset(name for name, kind in TYPES.items() if get_origin(kind) in (list, tuple))
PREFIX: Final = "MOORAGE_"
_LARGEST: Final = 2**62
_PATTERN: Final = re.compile(r"[a-z0-9._/*-]+")
_LIMITS: Final = ("keep_newest", "keep_pushed_days", "keep_pulled_days", "untagged_days")  # of a rule for retention
_CONTROL: Final = re.compile(r"[\0-\x1f\x7f]")
# What a setting makes no sense without.
_NEEDS: Final = {
    "tls_key": "tls_certificate",
    "tls_key_password": "tls_certificate",
    "tls_client_ca": "tls_certificate",
    "tls_client_revocations": "tls_client_ca",
}
STORAGES: Final = (
    "filesystem, memory, file:///path, memory:, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix"
)
# What Kubernetes puts into every pod for a service that is called "moorage".
_KUBERNETES: Final = re.compile(r"MOORAGE_(SERVICE_.*|PORT_\d+_.*)")


def load(
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    source: str = "",
) -> Settings:
    """The settings of ``file`` (TOML), overridden by ``environment``, overridden by ``arguments`` that are not None.

    ``source`` is what will be read beside the storage; in a bucket, the settings of buckets are for it too. Raises
    ``SettingsError``.
    """
    environment = environment or {}
    values = _from_file(file or environment.get(f"{PREFIX}CONFIG"))
    values |= _from_environment(environment)
    for name, value in (arguments or {}).items():
        if value is not None:
            values[name] = _convert(name, value, f"--{name.replace('_', '-')}")
    settings = Settings(**values)
    _check(settings)
    _check_buckets(settings, {"storage": settings.storage, "adopt": settings.adopt or "", "source": source})
    return settings


def _from_file(file: str | os.PathLike[str] | None) -> dict[str, Any]:
    if not file:
        return {}
    try:
        document = tomllib.loads(Path(file).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error
    values: dict[str, Any] = {}
    for name, value in document.items():
        _take(values, name, value, f"{file}: {name}")
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name == "config" or _KUBERNETES.fullmatch(variable):
            continue
        if name == "port" and text.startswith("tcp://"):
            continue
        value: Any = text
        if name in _LISTS:
            value = _list(text, variable)
        _take(values, name, value, variable, strict=False)
    return values


def _take(values: dict[str, Any], name: str, value: Any, source: str, *, strict: bool = True) -> None:
    """Add a setting to those of one source; that of a secret may name a file that holds it."""
    setting = name.removesuffix("_file")
    if setting in SECRETS:
        if setting in values:
            raise SettingsError(f"{source}: {setting} stands here twice; allowed: {setting} or {setting}_file")
        if setting != name:
            value = _content(setting, value, source)
        name = setting
    values[name] = _convert(name, value, source, strict=strict)


def _content(setting: str, path: Any, source: str) -> str:
    """The secret in a file, without the line's end."""
    try:
        return Path(path).expanduser().read_text("utf-8").rstrip("\r\n")
    except (OSError, TypeError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise SettingsError(f"{source} = {path!r}: {why}; allowed: a file that holds {setting}") from error


def _list(text: str, variable: str) -> Any:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise SettingsError(f"{variable}={text!r}: {error}; allowed: a JSON array") from error


def _convert(name: str, value: Any, source: str, *, strict: bool = True) -> Any:
    if name not in TYPES:
        raise SettingsError(f"{source}: unknown setting {name!r}; allowed: {', '.join(NAMES)}")
    try:
        for kind in filter(is_dataclass, get_args(TYPES[name])):
            _check_fields(value, {each.name for each in fields(kind)})
        return msgspec.convert(value, TYPES[name], strict=strict)
    except (msgspec.ValidationError, _UnknownField) as error:
        raise SettingsError(f"{source} = {shown(name, value)}: {error}; allowed: {allowed(name)}") from error


class _UnknownField(Exception):
    """A table in a list has a key that means nothing."""


def _check_fields(tables: Any, known: set[str]) -> None:
    """What msgspec refuses of a struct, it ignores of a dataclass."""
    for each in tables if isinstance(tables, list) else ():
        for key in each if isinstance(each, dict) else ():
            if key not in known:
                raise _UnknownField(f"unknown {key!r}")


def _check(settings: Settings) -> None:
    """What one setting's type cannot say."""
    for name, needed in _NEEDS.items():
        if getattr(settings, name) is not None and getattr(settings, needed) is None:
            raise SettingsError(f"{name} is set without {needed}; allowed: both or neither")
    if (CERTIFICATE in settings.authentication) > (settings.tls_client_ca is not None):
        raise SettingsError(
            f"authentication = {CERTIFICATE!r}: tls_client_ca is not set; allowed: both, or another authentication"
        )
    for each in settings.trusted_proxies:
        try:
            ipaddress.ip_network(each, strict=False)
        except ValueError as error:
            raise SettingsError(
                f"trusted_proxies = {each!r}: {error}; allowed: addresses and networks, like 10.0.0.0/8"
            ) from error
    for rule in settings.warnings:
        if not rule.text.isprintable() or not rule.text.isascii() or len(rule.text) > WARNINGS_LONGEST // 4:
            raise SettingsError(
                f"warnings = {rule.text[:80]!r}: allowed: up to {WARNINGS_LONGEST // 4} printable ASCII characters"
            )
    for number, access in enumerate(settings.rules):
        try:
            access.rule("settings")
        except ValueError as error:
            raise SettingsError(f"rules[{number}]: {error}") from error
    if ("htpasswd" in settings.authentication) is (settings.htpasswd is None):
        raise SettingsError(
            f"htpasswd = {settings.htpasswd!r}, authentication = {settings.authentication}: "
            'allowed: htpasswd names a file, and authentication has "htpasswd"; or neither'
        )
    try:
        check_issuers(settings.issuers, settings.authentication)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    _check_quotas(settings.quotas)
    for each_rule in settings.retention:
        if not each_rule.removes_tags and each_rule.untagged_days is None:
            raise SettingsError(
                f"retention: the rule for {each_rule.repository!r} says nothing; allowed: at least one of "
                "keep_newest, keep_pushed_days, keep_pulled_days, keep, untagged_days"
            )
        limits = (getattr(each_rule, name) for name in _LIMITS)
        if not all(limit is None or limit >= 0 for limit in limits):
            raise SettingsError(
                f"retention: the rule for {each_rule.repository!r}: allowed in {', '.join(_LIMITS)}: numbers from 0"
            )
    scheme = settings.storage.partition(":")[0]
    if scheme not in ("filesystem", "memory", "file") and not settings.bucket:
        raise SettingsError(f"storage = {settings.storage!r}: allowed: {STORAGES}")
    if not re.match(r"sqlite$|postgres(ql)?://", settings.metadata):
        raise SettingsError(
            f"metadata = {shown('metadata', settings.metadata)}: allowed: sqlite, postgresql://user@host/database"
        )
    if settings.metadata_replica and settings.metadata == "sqlite":
        raise SettingsError(
            f"metadata_replica = {shown('metadata_replica', settings.metadata_replica)}: "
            "allowed with metadata = postgresql://…"
        )
    if scheme == "memory" and settings.metadata != "sqlite":
        raise SettingsError("storage = 'memory': allowed with metadata = 'sqlite': facts would outlive the bytes")
    if scheme == "memory" and settings.workers > 1:
        raise SettingsError(f"workers = {settings.workers}: allowed with storage = 'memory': 1")
    for name in NAMES:
        value = getattr(settings, name)
        if isinstance(value, str) and name not in SECRETS and (not value or _CONTROL.search(value)):
            raise SettingsError(
                f"{name} = {shown(name, value)}: allowed: text, not empty, without control characters"
            )


def _check_quotas(quotas: Sequence[QuotaRule]) -> None:
    for number, each in enumerate(quotas):
        if not _PATTERN.fullmatch(each.repository):
            raise SettingsError(f"quotas: repository = {each.repository!r}: allowed: names with * and **")
        if not all(0 <= limit <= _LARGEST for limit in each.limits):
            raise SettingsError(
                f"quotas: {each.limits} for {each.repository!r}: allowed: whole numbers from 0 to {_LARGEST}"
            )
        if not each.limits:
            raise SettingsError(
                f"quotas: the one for {each.repository!r} limits nothing; allowed: at least one of bytes, tags, "
                "repositories"
            )
        if any(each.repository == other.repository for other in quotas[:number]):
            raise SettingsError(f"quotas: {each.repository!r} stands here twice; allowed: one quota for a pattern")


def _check_buckets(settings: Settings, places: Mapping[str, str]) -> None:
    schemes = {place.partition("://")[0] for place in places.values() if in_bucket(place)}
    for name, concerned in _CONCERNED.items():
        value = getattr(settings, name)
        if value != _DEFAULTS[name] and not schemes.intersection(concerned):
            allowed_with = ", ".join(f"{each}://…" for each in concerned)
            raise SettingsError(f"{name} = {value!r}: allowed with storage = {allowed_with}")
    for name, place in places.items():
        scheme, _, rest = place.partition("://")
        if in_bucket(place) and "@" in rest:
            raise SettingsError(f"{name}: allowed: an address without credentials, which object_credentials is for")
        if in_bucket(place) and not re.fullmatch(r"[^/?#@:\s]+(/[^?#\s]*)?", rest):
            raise SettingsError(f"{name} = {place!r}: allowed: {scheme}://, a name, /prefix or nothing")
    if (settings.object_endpoint or "").startswith("http://") and not settings.object_allow_http:
        raise SettingsError(
            f"object_endpoint = {settings.object_endpoint!r}: "
            "allowed: https://…; http://… with object_allow_http = true"
        )
    # A signature holds for one host, and the library signs for storage.googleapis.com whatever the endpoint is.
    gs = settings.storage.startswith("gs://")
    if gs and settings.redirect == "always" and settings.object_endpoint and not settings.cdn_url:
        raise SettingsError(
            "redirect = 'always': allowed with gs:// and object_endpoint: never, auto, or always with cdn_url"
        )
    if settings.object_encryption_key and settings.object_encryption in (None, "AES256"):
        raise SettingsError("object_encryption_key: allowed with object_encryption = aws:kms, aws:kms:dsse")


_DEFAULTS: Final = msgspec.structs.asdict(Settings())
# Where a setting means nothing it would be taken for one that is in force.
_CONCERNED: Final = {
    **{name: BUCKETS for name in NAMES if name.startswith("object_") or name in ("redirect", "cdn_url")},
    **dict.fromkeys(("object_region", "object_virtual_host", "object_encryption", "object_encryption_key"), ("s3",)),
    "object_account": ("az",),
}
