"""Every setting, with its type and a real default, and what may be shown of it."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta

from moorage.auth.certificates import NameFrom
from moorage.auth.rules import Rule
from moorage.auth.words import make_rule
from moorage.issuer_settings import IssuerSetting
from moorage.registry.policy import ImmutableTags, Policy, QuotaRule, RetentionRule
from moorage.web.limits import Limits
from moorage.web.options import Warned, WebOptions
from moorage.web.rates import Rates

SYSTEM_ROOT: Final = Path("/var/lib/oci-registry")
BUCKETS: Final = ("s3", "gs", "az")
Bytes = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=10 * 365 * 86400)]
Rate = Annotated[float, Meta(ge=0.01, le=1_000_000)]
# Never shown; ``<name>_file`` names a file that holds it.
Secret = Annotated[str, Meta(min_length=1, extra={"secret": True})]


def in_bucket(place: str) -> bool:
    """Whether ``place`` is the URL of a bucket."""
    scheme, separator, _ = place.partition("://")
    return bool(separator) and scheme in BUCKETS


class SettingsError(Exception):
    """A setting that cannot be: names the key, where it stands, the value and what is allowed."""


class WarningRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message for users of the repositories that match a pattern."""

    repository: str
    text: str


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may do what, or may not, in the repositories that match a pattern: ``allow`` or ``deny`` is given."""

    who: list[str]
    repositories: list[str]
    allow: list[str] = []
    deny: list[str] = []

    def rule(self, source: str) -> Rule:
        """What it means; raises ``ValueError``."""
        if bool(self.allow) is bool(self.deny):
            raise ValueError("allowed: either allow or deny")
        actions = self.allow or self.deny
        return make_rule(self.who, self.repositories, actions, allow=bool(self.allow), source=source)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a server; docs/configuration.md says of each what it does."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8968
    storage: str = "filesystem"
    root: str | None = None
    adopt: str | None = None
    metadata: str = "sqlite"
    metadata_password: Secret | None = None
    metadata_connections: Annotated[int, Meta(ge=1, le=1000)] = 10
    metadata_timeout: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    metadata_prepare: bool = True
    metadata_replica: Annotated[str, Meta(pattern=r"^postgres(ql)?://")] | None = None
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    drain_timeout: Seconds = 30.0
    keep_alive: Seconds = 75.0
    head_limit: Annotated[int, Meta(ge=1024, le=1024 * 1024)] = 64 * 1024
    head_timeout: Annotated[float, Meta(ge=0.1, le=86400)] = 30.0
    stall_timeout: Annotated[float, Meta(ge=0.1, le=86400)] = 60.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_key_password: Secret | None = None
    tls_client_ca: str | None = None
    tls_client_verify: Literal["optional", "required"] = "optional"
    tls_client_revocations: str | None = None
    tls_client_name: NameFrom = "cn"
    insecure_http: bool = False

    authentication: list[str] = []
    htpasswd: str | None = None
    authorization: str = "rules"
    rules: list[AccessRule] = []
    token_service: Annotated[str, Meta(pattern=r"^[!#-\[\]-~]+$")] | None = None
    token_algorithm: Literal["EdDSA", "ES256"] = "EdDSA"  # noqa: S105  no secret
    token_lifetime: Annotated[float, Meta(ge=60, le=86400)] = 300.0
    refresh_token_lifetime: Annotated[float, Meta(ge=60, le=10 * 365 * 86400)] = 30 * 86400.0
    issuers: list[IssuerSetting] = []
    open_access: bool = False

    location: Literal["relative", "absolute"] = "relative"
    public_url: Annotated[str, Meta(pattern=r"^https?://[!$-.0->@-~]+(/[!$->@-~]*)?$")] | None = None
    trusted_proxies: list[str] = []
    warnings: list[WarningRule] = []

    deletion: bool = True
    immutable_tags: tuple[ImmutableTags, ...] = ()
    sparse: Literal["none", "indexes", "all"] = "none"
    unknown_manifests: bool = False
    manifest_limit: Annotated[int, Meta(ge=1024, le=256 * 1024 * 1024)] = 4 * 1024 * 1024
    blob_limit: Bytes | None = None
    tags_per_push: Count = 32
    tags_page: Count = 10_000
    repositories_page: Count = 1_000
    referrers_page: Count = 1_000
    requests_per_address: Rate | None = None
    requests_per_identity: Rate | None = None
    request_burst: Annotated[float, Meta(ge=1, le=3600)] = 10.0
    uploads_per_identity: Count | None = 128
    login_delay: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    connections: Count | None = None
    connections_per_address: Count | None = None
    upload_expiry: Annotated[float, Meta(ge=1, le=10 * 365 * 86400)] = 86400.0
    chunk_minimum: Annotated[int, Meta(ge=1)] | None = None
    housekeeping_interval: Annotated[float, Meta(ge=0.05, le=86400)] = 60.0

    collection: bool = True
    collect_grace: Seconds = 86400.0
    cascade: bool = True
    sweep_interval: Annotated[float, Meta(ge=60, le=10 * 365 * 86400)] = 86400.0
    unnamed_grace: Annotated[float, Meta(ge=3600, le=10 * 365 * 86400)] = 7 * 86400.0
    delete_rate: Annotated[float, Meta(ge=0.1, le=1_000_000)] | None = None
    retention: tuple[RetentionRule, ...] = ()
    quotas: tuple[QuotaRule, ...] = ()
    retention_interval: Annotated[float, Meta(ge=60, le=10 * 365 * 86400)] = 3600.0
    scrub_rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 4.0
    scrub_days: Annotated[float, Meta(ge=0, le=3650)] = 30.0
    history_days: Annotated[float, Meta(ge=0, le=3650)] = 7.0
    events_days: Annotated[float, Meta(ge=1, le=36500)] = 365.0

    redirect: Literal["auto", "always", "never"] = "auto"
    redirect_expiry: Annotated[float, Meta(ge=1, le=6 * 86400)] = 1200.0
    cdn_url: Annotated[str, Meta(pattern=r"^https?://[^?#]+$")] | None = None
    object_endpoint: Annotated[str, Meta(pattern=r"^https?://[^?#@]+$")] | None = None
    object_region: str | None = None
    object_account: str | None = None
    object_virtual_host: bool = False
    object_allow_http: bool = False
    object_ca_file: str | None = None
    object_credentials: str = "auto"
    object_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = None
    object_encryption_key: str | None = None
    object_part_size: Annotated[int, Meta(ge=5 * 1024 * 1024, le=1024 * 1024 * 1024)] = 8 * 1024 * 1024
    object_concurrency: Annotated[int, Meta(ge=1, le=64)] = 2
    object_connect_timeout: Annotated[float, Meta(ge=0.1, le=600)] = 5.0
    object_read_timeout: Annotated[float, Meta(ge=1, le=86400)] = 60.0
    object_timeout: Annotated[float, Meta(ge=1, le=30 * 86400)] = 86400.0
    object_retries: Annotated[int, Meta(ge=0, le=100)] = 10
    object_retry_timeout: Annotated[float, Meta(ge=0, le=280)] = 30.0

    def __repr__(self) -> str:
        given = ((name, value) for name in NAMES if (value := getattr(self, name)) is not None)
        return f"Settings({', '.join(f'{name}={shown(name, value)}' for name, value in given)})"

    def policy(self) -> Policy:
        """What the registry accepts and allows."""
        return Policy(**{name: getattr(self, name) for name in Policy.__dataclass_fields__})

    @property
    def in_memory(self) -> bool:
        """Whether nothing outlives the process."""
        return self.storage.partition(":")[0] == "memory"

    @property
    def bucket(self) -> bool:
        """Whether bytes are kept in a bucket."""
        return in_bucket(self.storage)

    def web_options(self) -> WebOptions:
        """How it is seen from outside."""
        return WebOptions(
            location=self.location,
            public_url=self.public_url,
            trusted_proxies=tuple(ipaddress.ip_network(each, strict=False) for each in self.trusted_proxies),
            rates=Rates(**{name: getattr(self, name) for name in Rates.__dataclass_fields__}),
            warnings=tuple(Warned(repository=each.repository, text=each.text) for each in self.warnings),
        )

    def limits(self) -> Limits:
        """How long a client is waited for, and how much it may say at once."""
        return Limits(**{name: getattr(self, name) for name in Limits.__dataclass_fields__})

    def data_folder(self) -> Path:
        """Where everything is kept: ``root``, or the system's place where that is writable, or the user's."""
        if self.root is not None:
            return Path(self.root).expanduser()
        if os.access(SYSTEM_ROOT if SYSTEM_ROOT.exists() else SYSTEM_ROOT.parent, os.W_OK):
            return SYSTEM_ROOT
        from platformdirs import user_data_path  # noqa: PLC0415  not needed where root is set

        return user_data_path("moorage", appauthor=False)


TYPES: Final[dict[str, Any]] = get_type_hints(Settings, include_extras=True)
NAMES: Final = tuple(Settings.__struct_fields__)
SECRETS: Final = frozenset(name for name, kind in TYPES.items() if Secret in (kind, *get_args(kind)))


def shown(name: str, value: Any) -> str:
    """The value as an error or a log may show it: no secret, no password."""
    if name in ("metadata", "metadata_replica") and isinstance(value, str):
        value = without_password(value)
    return "(not shown)" if name in SECRETS else repr(value)


def without_password(url: str) -> str:
    """A URL as it may be shown: what stands for a password in it is left out."""
    url = re.sub(r"(//[^/?#@:]*):[^/?#]*@", r"\1@", url)
    return re.sub(r"([?&]password=)[^&#]*", r"\1…", url)


def allowed(name: str) -> str:
    """The values that a setting takes, in words."""
    schema = msgspec.json.schema(TYPES[name])
    schemas = schema.get("anyOf", [schema])
    return " or ".join(filter(None, (_in_words(each, schema.get("$defs", {})) for each in schemas)))


def _in_words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if reference := schema.get("$ref"):
        return _in_words(definitions[reference.rpartition("/")[2]], definitions)
    kind = schema.get("type")
    if kind == "array":
        return f"a list of {_in_words(schema.get('items', {}), definitions)}"
    if kind == "object":
        return "{" + ", ".join(schema.get("properties", {})) + "}"
    words = {"integer": "a whole number", "number": "a number", "boolean": "true, false", "string": "text"}
    text = words.get(str(kind), "")
    if "minimum" in schema:
        text += f" from {schema['minimum']}"
    if "maximum" in schema:
        text += f" to {schema['maximum']}"
    if "pattern" in schema:
        text += f" like {schema['pattern']}"
    return text
