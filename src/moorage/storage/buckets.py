"""The way into a bucket: where it is, who we are, how patient we are. Secrets are read here and go nowhere else."""

import configparser
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]

_REREAD: Final = timedelta(minutes=5)  # a file of credentials may be replaced while we run
_FIRST_WAIT: Final = timedelta(milliseconds=100)
_LONGEST_WAIT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketOptions:
    """A bucket and how it is reached; times are seconds.

    ``url`` is ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``. ``credentials`` is
    ``auto`` (the environment, else the identity of the instance or pod), ``anonymous``, or a file: an AWS credentials
    file, a Google service account or an Azure connection string. ``called`` is the setting that errors name.
    """

    url: str
    called: str = "storage"
    endpoint: str | None = None
    region: str | None = None
    account: str | None = None
    virtual_host: bool = False
    allow_http: bool = False
    ca_file: str | None = None
    credentials: str = "auto"
    encryption: Encryption | None = None
    encryption_key: str | None = None
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    timeout: float = 86400.0
    retries: int = 10
    retry_timeout: float = 30.0


def connect(options: BucketOptions) -> Any:
    """The library's store; raises ``OSError`` or ``ValueError`` for files that cannot be read or understood."""
    url = urlsplit(options.url)
    client: dict[str, Any] = {
        "allow_http": options.allow_http,
        "connect_timeout": timedelta(seconds=options.connect_timeout),
        "default_content_type": "application/octet-stream",
        "read_timeout": timedelta(seconds=options.read_timeout),
        "timeout": timedelta(seconds=options.timeout),
    }
    if options.ca_file:
        client["root_certificate"] = Path(options.ca_file).read_bytes()
    common: dict[str, Any] = {
        "prefix": unquote(url.path).strip("/") or None,
        "client_options": client,
        "retry_config": {
            "max_retries": options.retries,
            "retry_timeout": timedelta(seconds=options.retry_timeout),
            "backoff": {"init_backoff": _FIRST_WAIT, "max_backoff": _LONGEST_WAIT, "base": 2},
        },
    }
    make = {"s3": _s3, "gs": _google, "az": _azure}[url.scheme]
    return make(url.netloc, options, common)


def _s3(bucket: str, options: BucketOptions, common: dict[str, Any]) -> Any:
    config = _given(
        endpoint=options.endpoint,
        region=options.region,
        server_side_encryption=options.encryption,
        sse_kms_key_id=options.encryption_key,
        virtual_hosted_style_request=options.virtual_host or None,
        skip_signature=_anonymous(options),
    )
    if file := _file(options):
        read = _aws_credentials(file)
        read()  # what is wrong with it is said at the start
        common["credential_provider"] = read
    return S3Store(bucket, config=config, **common)


def _google(bucket: str, options: BucketOptions, common: dict[str, Any]) -> Any:
    config = _given(base_url=options.endpoint, skip_signature=_anonymous(options))
    if file := _file(options):
        kind = json.loads(file.read_text("utf-8")).get("type", "service_account")
        config["service_account" if kind == "service_account" else "application_credentials"] = str(file)
    return GCSStore(bucket, config=config, **common)


def _azure(container: str, options: BucketOptions, common: dict[str, Any]) -> Any:
    config = _given(
        account_name=options.account,
        endpoint=options.endpoint,
        skip_signature=_anonymous(options),
    )
    if file := _file(options):
        config |= _connection_string(file)
    return AzureStore(container, config=config, **common)


def _given(**values: Any) -> Any:
    return {name: value for name, value in values.items() if value is not None}


def _anonymous(options: BucketOptions) -> bool | None:
    return True if options.credentials == "anonymous" else None


def _file(options: BucketOptions) -> Path | None:
    return None if options.credentials in ("auto", "anonymous") else Path(options.credentials)


def _aws_credentials(file: Path) -> Any:
    """What reads a credentials file of the AWS tools, of the profile ``AWS_PROFILE`` or ``default``."""

    def read() -> dict[str, Any]:
        parser = configparser.RawConfigParser(default_section="")
        profile = os.environ.get("AWS_PROFILE", "default")
        try:
            parser.read_string(file.read_text("utf-8"))
            section = parser[profile]
            found = section["aws_access_key_id"], section["aws_secret_access_key"]
        except (configparser.Error, KeyError):  # their texts quote the file
            raise ValueError(f"{file}: no aws_access_key_id and aws_secret_access_key in [{profile}]") from None
        return {
            "access_key_id": found[0],
            "secret_access_key": found[1],
            "token": section.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + _REREAD,
        }

    return read


def _connection_string(file: Path) -> dict[str, str]:
    """The settings in an Azure connection string."""
    names = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "SharedAccessSignature": "sas_key",
        "BlobEndpoint": "endpoint",
    }
    pairs = (part.partition("=") for part in file.read_text("utf-8").strip().split(";"))
    found = {names[name]: value for name, _, value in pairs if name in names}
    if not found.keys() & {"account_key", "sas_key"}:
        raise ValueError(f"{file}: no AccountKey and no SharedAccessSignature")
    return found
