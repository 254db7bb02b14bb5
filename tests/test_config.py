"""Settings: where they come from, which is strongest, and what is said of a wrong one."""

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from moorage import Policy, Settings, SettingsError
from moorage.config import load
from moorage.registry.policy import ImmutableTags, QuotaRule, RetentionRule
from moorage.settings import NAMES, SYSTEM_ROOT, AccessRule, allowed, without_password
from moorage.web.options import Warned


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "moorage.toml"


def test_defaults() -> None:
    """Without anything, every setting has its real default."""
    settings = load()
    assert settings == Settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8968, 1)
    assert (settings.storage, settings.root) == ("filesystem", None)
    assert settings.policy() == Policy()


def test_file_environment_arguments(file: Path) -> None:
    """The environment is stronger than the file, arguments are stronger than both; each is taken by itself."""
    file.write_text('host = "file"\nport = 1\nworkers = 2\nsparse = "all"\n')
    settings = load(file, {"MOORAGE_HOST": "environment", "MOORAGE_PORT": "3"}, {"host": "argument", "port": None})
    assert (settings.host, settings.port, settings.workers, settings.sparse) == ("argument", 3, 2, "all")
    assert load(file, {"MOORAGE_HOST": "environment"}).host == "environment"
    assert load(file).host == "file"


def test_file_named_by_the_environment(file: Path, tmp_path: Path) -> None:
    """MOORAGE_CONFIG names the file, unless an argument names another."""
    file.write_text("port = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("port = 2\n")
    assert load(environment={"MOORAGE_CONFIG": str(file)}).port == 1
    assert load(other, {"MOORAGE_CONFIG": str(file)}).port == 2


# A value of each setting that is not its default, as TOML and as a variable have it.
EXAMPLES: dict[str, tuple[str, str, Any]] = {
    "host": ('"0.0.0.0"', "0.0.0.0", "0.0.0.0"),
    "port": ("0", "0", 0),
    "storage": ('"memory"', "memory", "memory"),
    "root": ('"/data"', "/data", "/data"),
    "metadata": ('"postgresql://u@h/d"', "postgresql://u@h/d", "postgresql://u@h/d"),
    "metadata_password": ('"sesame"', "sesame", "sesame"),
    "metadata_connections": ("5", "5", 5),
    "metadata_timeout": ("2.5", "2.5", 2.5),
    "metadata_prepare": ("false", "0", False),
    "metadata_replica": ('"postgresql://u@r/d"', "postgresql://u@r/d", "postgresql://u@r/d"),
    "workers": ("4", "4", 4),
    "drain_timeout": ("1.5", "1.5", 1.5),
    "keep_alive": ("5", "5", 5.0),
    "head_limit": ("2048", "2048", 2048),
    "head_timeout": ("2.5", "2.5", 2.5),
    "stall_timeout": ("3", "3", 3.0),
    "log_level": ('"debug"', "debug", "debug"),
    "tls_certificate": ('"/etc/tls.crt"', "/etc/tls.crt", "/etc/tls.crt"),
    "tls_key": ('"/etc/tls.key"', "/etc/tls.key", "/etc/tls.key"),
    "tls_key_password": ('"sesame"', "sesame", "sesame"),
    "tls_client_ca": ('"/etc/ca.pem"', "/etc/ca.pem", "/etc/ca.pem"),
    "tls_client_verify": ('"required"', "required", "required"),
    "tls_client_revocations": ('"/etc/crl.pem"', "/etc/crl.pem", "/etc/crl.pem"),
    "tls_client_name": ('"uri"', "uri", "uri"),
    "insecure_http": ("true", "true", True),
    "authentication": ('["htpasswd", "keys"]', "htpasswd, keys", ["htpasswd", "keys"]),
    "htpasswd": ('"/etc/htpasswd"', "/etc/htpasswd", "/etc/htpasswd"),
    "authorization": ('"homes"', "homes", "homes"),
    "open_access": ("true", "1", True),
    "token_service": ('"reg.test"', "reg.test", "reg.test"),
    "token_algorithm": ('"ES256"', "ES256", "ES256"),
    "token_lifetime": ("60", "60", 60.0),
    "refresh_token_lifetime": ("3600", "3600", 3600.0),
    "location": ('"absolute"', "absolute", "absolute"),
    "public_url": ('"https://a.example/b"', "https://a.example/b", "https://a.example/b"),
    "trusted_proxies": ('["10.0.0.0/8", "::1"]', "10.0.0.0/8, ::1", ["10.0.0.0/8", "::1"]),
    "immutable_tags": (
        '[{repository = "release/**", tag = "v*"}]',
        '[{"repository": "release/**", "tag": "v*"}]',
        (ImmutableTags("release/**", "v*"),),
    ),
    "rules": (
        '[{who = ["@dev"], repositories = ["a/**"], allow = ["pull"]}]',
        '[{"who": ["@dev"], "repositories": ["a/**"], "allow": ["pull"]}]',
        [AccessRule(who=["@dev"], repositories=["a/**"], allow=["pull"])],
    ),
    "deletion": ("false", "false", False),
    "sparse": ('"indexes"', "indexes", "indexes"),
    "unknown_manifests": ("true", "1", True),
    "manifest_limit": ("8388608", "8388608", 8388608),
    "blob_limit": ("1000", "1000", 1000),
    "tags_per_push": ("10", "10", 10),
    "tags_page": ("11", "11", 11),
    "repositories_page": ("12", "12", 12),
    "referrers_page": ("13", "13", 13),
    "requests_per_address": ("100", "100", 100.0),
    "requests_per_identity": ("2.5", "2.5", 2.5),
    "request_burst": ("60", "60", 60.0),
    "uploads_per_identity": ("5", "5", 5),
    "login_delay": ("10", "10", 10.0),
    "connections": ("1000", "1000", 1000),
    "connections_per_address": ("50", "50", 50),
    "upload_expiry": ("60", "60", 60.0),
    "chunk_minimum": ("5242880", "5242880", 5242880),
    "housekeeping_interval": ("0.5", "0.5", 0.5),
    "collection": ("false", "false", False),
    "collect_grace": ("60", "60", 60.0),
    "cascade": ("false", "0", False),
    "sweep_interval": ("3600", "3600", 3600.0),
    "unnamed_grace": ("7200", "7200", 7200.0),
    "delete_rate": ("20.5", "20.5", 20.5),
    "adopt": ('"/var/lib/registry"', "/var/lib/registry", "/var/lib/registry"),
    "redirect": ('"never"', "never", "never"),
    "redirect_expiry": ("60", "60", 60.0),
    "cdn_url": ('"https://cdn.example/a"', "https://cdn.example/a", "https://cdn.example/a"),
    "object_endpoint": ('"https://s3.example"', "https://s3.example", "https://s3.example"),
    "object_region": ('"eu-central-1"', "eu-central-1", "eu-central-1"),
    "object_account": ('"account"', "account", "account"),
    "object_virtual_host": ("true", "1", True),
    "object_allow_http": ("true", "1", True),
    "object_ca_file": ('"/etc/ca.pem"', "/etc/ca.pem", "/etc/ca.pem"),
    "object_credentials": ('"/run/secrets/s3"', "/run/secrets/s3", "/run/secrets/s3"),
    "object_encryption": ('"aws:kms"', "aws:kms", "aws:kms"),
    "object_encryption_key": ('"arn:aws:kms:x"', "arn:aws:kms:x", "arn:aws:kms:x"),
    "object_part_size": ("16777216", "16777216", 16777216),
    "object_concurrency": ("4", "4", 4),
    "object_connect_timeout": ("2", "2", 2.0),
    "object_read_timeout": ("30", "30", 30.0),
    "object_timeout": ("3600", "3600", 3600.0),
    "object_retries": ("0", "0", 0),
    "object_retry_timeout": ("10", "10", 10.0),
    "history_days": ("30", "30", 30.0),
    "retention": (
        '[{ repository = "ci/**", keep_newest = 3, keep = ["v*"] }]',
        '[{"repository": "ci/**", "keep_newest": 3, "keep": ["v*"]}]',
        (RetentionRule(repository="ci/**", keep_newest=3, keep=("v*",)),),
    ),
    "retention_interval": ("120", "120", 120.0),
    "quotas": (
        '[{ repository = "ci/**", bytes = 10 }]',
        '[{"repository": "ci/**", "bytes": 10}]',
        (QuotaRule(repository="ci/**", bytes=10),),
    ),
    "scrub_rate": ("0", "0", 0.0),
    "scrub_days": ("7", "7", 7.0),
    "events_days": ("400", "400", 400.0),
}


# What a setting makes no sense without.
NEEDED: dict[str, dict[str, str]] = {
    "authentication": {"htpasswd": "/etc/htpasswd"},
    "htpasswd": {"authentication": "htpasswd"},
    "metadata_replica": {"metadata": "postgresql://u@h/d"},
    "tls_key": {"tls_certificate": "/etc/tls.crt"},
    "tls_key_password": {"tls_certificate": "/etc/tls.crt"},
    "tls_client_ca": {"tls_certificate": "/etc/tls.crt"},
    "tls_client_revocations": {"tls_certificate": "/etc/tls.crt", "tls_client_ca": "/etc/ca.pem"},
    **{name: {"storage": "s3://bucket"} for name in ("redirect", "cdn_url")},
    **{name: {"storage": "s3://bucket"} for name in NAMES if name.startswith("object_")},
    "object_account": {"storage": "az://container"},
    "object_encryption_key": {"storage": "s3://bucket", "object_encryption": "aws:kms"},
}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"issuers", "warnings"}))
def test_every_setting_from_file_and_environment(file: Path, name: str) -> None:
    """Each setting can be given in the file and in the environment."""
    toml, text, value = EXAMPLES[name]
    assert getattr(Settings(), name) != value
    variables = {f"MOORAGE_{each.upper()}": given for each, given in NEEDED.get(name, {}).items()}
    file.write_text(f"{name} = {toml}\n")
    assert getattr(load(file, variables), name) == value
    assert getattr(load(environment=variables | {f"MOORAGE_{name.upper()}": text}), name) == value


def test_warnings(file: Path) -> None:
    """Warnings are tables in the file, and JSON in the environment."""
    file.write_text(
        '[[warnings]]\nrepository = "a/*"\ntext = "moves"\n\n[[warnings]]\nrepository = "*"\ntext = "x"\n'
    )
    variable = '[{"repository": "a/*", "text": "moves"}, {"repository": "*", "text": "x"}]'
    for settings in (load(file), load(environment={"MOORAGE_WARNINGS": variable})):
        expected = (Warned(repository="a/*", text="moves"), Warned(repository="*", text="x"))
        assert settings.web_options().warnings == expected


@pytest.mark.parametrize("text", ["[]", "", " , "])
def test_empty_list_in_the_environment(text: str) -> None:
    """A list in the environment can be empty."""
    assert load(environment={"MOORAGE_TRUSTED_PROXIES": text}).trusted_proxies == []


def test_list_as_json_in_the_environment() -> None:
    """A list in the environment can be JSON."""
    settings = load(environment={"MOORAGE_TRUSTED_PROXIES": '["10.0.0.1", "fd00::/8"]'})
    networks = (ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_network("fd00::/8"))
    assert settings.web_options().trusted_proxies == networks


def test_policy_has_every_rule() -> None:
    """Each rule of a registry's policy is a setting of the same name, with the same default."""
    for field in dataclasses.fields(Policy):
        assert getattr(Settings(), field.name) == field.default
    settings = Settings(**{name: EXAMPLES[name][2] for name in (each.name for each in dataclasses.fields(Policy))})
    assert all(getattr(settings.policy(), each.name) == EXAMPLES[each.name][2] for each in dataclasses.fields(Policy))


WRONG: list[tuple[str, Any, str, str]] = [
    ("port", -1, "-1", "0 to 65535"),
    ("port", 65536, "65536", "0 to 65535"),
    ("port", "http", "'http'", "a whole number from 0 to 65535"),
    ("port", 1.5, "1.5", "a whole number"),
    ("workers", 0, "0", "from 1 to 256"),
    ("workers", 257, "257", "from 1 to 256"),
    ("drain_timeout", -1, "-1", "a number from 0"),
    ("log_level", "loud", "'loud'", "debug, error, info, warning"),
    ("tls_certificate", 5, "5", "text"),
    ("tls_key", "/etc/tls.key", "tls_key", "both or neither"),
    ("tls_client_ca", "/etc/ca.pem", "tls_client_ca", "both or neither"),
    ("tls_client_verify", "perhaps", "'perhaps'", "optional, required"),
    ("tls_client_name", "serial", "'serial'", "cn, dns, email, uri"),
    ("insecure_http", "perhaps", "'perhaps'", "true, false"),
    ("location", "here", "'here'", "absolute, relative"),
    ("public_url", "registry.example.com", "'registry.example.com'", "https?://"),
    ("public_url", "https://a.example?x", "'https://a.example?x'", "https?://"),
    ("public_url", "", "''", "https?://"),
    ("public_url", "https://a b.example", "'https://a b.example'", "https?://"),
    ("public_url", "https://例.example", "'https://例.example'", "https?://"),
    ("public_url", "https://a.example\n", "'https://a.example\\n'", "without control characters"),
    ("token_service", "a.example\n", "'a.example\\n'", "without control characters"),
    ("root", "", "''", "not empty"),
    ("tls_certificate", "", "''", "not empty"),
    ("trusted_proxies", ["10.0.0.0/99"], "'10.0.0.0/99'", "like 10.0.0.0/8"),
    ("trusted_proxies", ["proxy.example"], "'proxy.example'", "addresses and networks"),
    ("trusted_proxies", 5, "5", "a list of text"),
    ("warnings", [{"repository": "*"}], "'repository': '*'", "{repository, text}"),
    ("warnings", [{"repository": "*", "text": "a\nb"}], "a\\nb", "printable ASCII"),
    ("warnings", [{"repository": "*", "text": "für alle"}], "für alle", "printable ASCII"),
    ("warnings", [{"repository": "*", "text": "x" * 1025}], "xxx", "up to 1024"),
    ("warnings", [{"repository": "*", "text": "a", "colour": "red"}], "colour", "{repository, text}"),
    ("deletion", "perhaps", "'perhaps'", "true, false"),
    ("htpasswd", "/etc/htpasswd", "'/etc/htpasswd'", "or neither"),
    ("authentication", ["htpasswd"], "['htpasswd']", "or neither"),
    ("rules", [{"who": ["a"], "repositories": ["**"]}], "rules[0]", "either allow or deny"),
    ("rules", [{"who": ["a"], "repositories": ["**"], "allow": ["fly"]}], "'fly'", "pull, push, create"),
    ("rules", [{"who": ["a"], "repositories": ["A/*"], "allow": ["pull"]}], "'A/*'", "names with * and **"),
    ("rules", [{"who": ["a b"], "repositories": ["**"], "allow": ["pull"]}], "'a b'", "@group"),
    ("rules", [{"who": ["anonymous"], "repositories": ["**"], "allow": ["push"]}], "push", "pull, catalog"),
    ("rules", [{"who": ["a"], "repositories": ["**"], "permit": ["pull"]}], "permit", "{who, repositories"),
    ("immutable_tags", [{"repository": "**"}], "'repository': '**'", "{repository, tag}"),
    ("immutable_tags", [{"repository": "**", "tag": "*", "tags": "*"}], "'tags'", "{repository, tag}"),
    ("retention", [{"repository": "**", "keep_newst": 3}], "'keep_newst'", "keep_newest"),
    ("retention", [{"repository": "**", "keep_newest": -1}], "keep_newest", "numbers from 0"),
    ("retention", [{"repository": "**", "keep_pushed_days": float("nan")}], "keep_pushed_days", "numbers from 0"),
    ("sparse", True, "True", "all, indexes, none"),
    ("sparse", "some", "'some'", "all, indexes, none"),
    ("manifest_limit", 10, "10", "from 1024"),
    ("blob_limit", -1, "-1", "from 0"),
    ("tags_per_push", 0, "0", "from 1"),
    ("requests_per_address", 0, "0", "from 0.01"),
    ("request_burst", 0, "0", "from 1"),
    ("uploads_per_identity", 0, "0", "from 1"),
    ("login_delay", -1, "-1", "from 0 to 3600"),
    ("connections", 0, "0", "from 1"),
    ("upload_expiry", 0, "0", "from 1"),
    ("chunk_minimum", 0, "0", "from 1"),
    ("housekeeping_interval", 0, "0", "from 0.05"),
    ("quotas", [{"repository": "**"}], "'**'", "at least one of bytes, tags, repositories"),
    ("quotas", [{"repository": "**", "bytes": -1}], "-1", "from 0"),
    ("quotas", [{"repository": "**", "tags": 2**63}], str(2**63), "whole number"),
    ("quotas", [{"repository": "**", "bytes": "10 GB"}], "10 GB", "{repository, bytes, tags, repositories}"),
    ("quotas", [{"repository": "**", "blobs": 1}], "blobs", "{repository, bytes, tags, repositories}"),
    ("quotas", [{"repository": "Team/**", "bytes": 1}], "'Team/**'", "names with * and **"),
    ("quotas", [{"repository": "*", "bytes": 1}, {"repository": "*", "tags": 1}], "'*'", "one quota for a pattern"),
    ("host", 5, "5", "text"),
    ("storage", "s3", "'s3'", "filesystem, memory, file:///path"),
    ("storage", "", "''", "filesystem, memory, file:///path"),
    ("storage", "ftp://bucket", "'ftp://bucket'", "s3://bucket/prefix"),
    ("storage", "s3://", "'s3://'", "a name, /prefix or nothing"),
    ("storage", "gs://bucket?x=1", "'gs://bucket?x=1'", "a name, /prefix or nothing"),
    ("redirect", "always", "'always'", "with storage = s3://…, gs://…, az://…"),
    ("cdn_url", "cdn.example", "'cdn.example'", "https?://"),
    ("metadata_replica", "postgresql://u:x@r/d", "'postgresql://u@r/d'", "with metadata = postgresql://…"),
    ("object_region", "eu", "'eu'", "with storage = s3://…"),
    ("object_part_size", 1024, "1024", "from 5242880"),
    ("object_retry_timeout", 600, "600", "0 to 280"),
]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"object_endpoint": "http://s3.example"}, "http://… with object_allow_http = true"),
        ({"object_encryption_key": "arn:x"}, "allowed with object_encryption = aws:kms"),
        ({"storage": "s3://key:secret@bucket"}, "storage: allowed: an address without credentials"),
        ({"object_account": "x"}, "allowed with storage = az://…"),
        (
            {"redirect": "always", "storage": "gs://bucket", "object_endpoint": "https://gcs.example"},
            "allowed with gs:// and object_endpoint: never, auto, or always with cdn_url",
        ),
    ],
)
def test_settings_of_a_bucket_that_do_not_fit(given: dict[str, Any], words: str) -> None:
    """Settings of a bucket that mean nothing together stop the start, naming the one that is too much."""
    with pytest.raises(SettingsError, match=re.escape(words)) as raised:
        load(arguments={"storage": "s3://bucket", **given})
    assert str(raised.value).startswith(next(iter(given)))


@pytest.mark.parametrize(("name", "value", "shown", "words"), WRONG)
def test_wrong_argument(name: str, value: Any, shown: str, words: str) -> None:
    """A wrong value stops with a message that names the key, the value and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        load(arguments={name: value})
    message = str(caught.value)
    assert name in message.replace("-", "_")
    assert shown in message
    assert "allowed" in message
    assert words in message


@pytest.mark.parametrize(
    ("name", "text"), [("port", "http"), ("deletion", "perhaps"), ("workers", "1.5"), ("sparse", "x")]
)
def test_wrong_variable(name: str, text: str) -> None:
    """A wrong variable is named as it stands in the environment."""
    variable = f"MOORAGE_{name.upper()}"
    with pytest.raises(SettingsError, match=variable) as caught:
        load(environment={variable: text})
    assert repr(text) in str(caught.value)
    assert "allowed: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('port = "8080"', ["port", "'8080'", "a whole number"]),
        ("colour = 1", ["colour", "unknown setting", "host, port"]),
        ("[server]\nport = 1", ["server", "unknown setting"]),
        ("port = \nhost = 1", ["line 1"]),
        ("port = 1\nport = 2", ["port"]),
    ],
)
def test_wrong_file(file: Path, text: str, parts: list[str]) -> None:
    """What is wrong in the file is told with its name and the key."""
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


def test_absent_or_unreadable_file(tmp_path: Path) -> None:
    """A file that cannot be read is told by its name."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SettingsError, match=re.escape(str(path))):
            load(path)
    (tmp_path / "latin.toml").write_bytes(b'host = "\xe4"')
    with pytest.raises(SettingsError, match=r"latin\.toml"):
        load(tmp_path / "latin.toml")


def test_unknown_setting() -> None:
    """An unknown key is refused wherever it stands, with those that there are."""
    told = "unknown setting 'colour'; allowed: host, port, storage"
    with pytest.raises(SettingsError, match=told):
        load(environment={"MOORAGE_COLOUR": "blue"})
    with pytest.raises(SettingsError, match=told):
        load(arguments={"colour": "blue"})


def test_malformed_list_in_the_environment() -> None:
    """A list that begins like JSON must be JSON."""
    with pytest.raises(SettingsError, match=r"MOORAGE_WARNINGS=.* allowed: a JSON array"):
        load(environment={"MOORAGE_WARNINGS": '[{"repository": }]'})


def test_kubernetes_service_variables_are_ignored() -> None:
    """What Kubernetes sets in each pod for a service called "moorage" is no setting."""
    injected = {
        "MOORAGE_SERVICE_HOST": "10.0.171.239",
        "MOORAGE_SERVICE_PORT": "8968",
        "MOORAGE_SERVICE_PORT_HTTP": "8968",
        "MOORAGE_PORT": "tcp://10.0.171.239:8968",
        "MOORAGE_PORT_8968_TCP": "tcp://10.0.171.239:8968",
        "MOORAGE_PORT_8968_TCP_PROTO": "tcp",
        "MOORAGE_PORT_8968_TCP_PORT": "8968",
        "MOORAGE_PORT_8968_TCP_ADDR": "10.0.171.239",
    }
    assert load(environment=injected) == Settings()
    assert load(environment=injected | {"MOORAGE_HOST": "0.0.0.0"}).host == "0.0.0.0"


def test_other_variables_are_ignored() -> None:
    """Variables of others are none of ours."""
    assert load(environment={"HOST": "x", "PORT": "y", "XMOORAGE_PORT": "z", "PATH": "/bin"}) == Settings()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secret_in_a_file(file: Path, tmp_path: Path, end: str) -> None:
    """A secret may stand in a file of its own, which the settings' file or the environment names."""
    (tmp_path / "secret").write_bytes(f"open sesame{end}".encode())
    needed = {"MOORAGE_TLS_CERTIFICATE": "x"}
    file.write_text(f'tls_key_password_file = "{tmp_path}/secret"\n')
    assert load(file, needed).tls_key_password == "open sesame"
    named = needed | {"MOORAGE_TLS_KEY_PASSWORD_FILE": f"{tmp_path}/secret"}
    assert load(environment=named).tls_key_password == "open sesame"
    assert load(file, needed | {"MOORAGE_TLS_KEY_PASSWORD": "other"}).tls_key_password == "other"


def test_wrong_secret(file: Path, tmp_path: Path) -> None:
    """What is wrong with a secret is told without it."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").touch()
    for text, words in (
        ("tls_key_password = 123454321", "Expected `str | null`"),
        (f'tls_key_password_file = "{tmp_path}/absent"', "absent': No such file"),
        (f'tls_key_password_file = "{tmp_path}/binary"', "binary': it is not text"),
        (f'tls_key_password_file = "{tmp_path}/empty"', "length >= 1"),
        ("tls_key_password_file = 5", "it is not text"),
        ('tls_key_password = "12345"\ntls_key_password_file = "x"', "stands here twice"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"tls_key_password.*allowed: ") as caught:
            load(file)
        assert words in str(caught.value)
        assert "12345" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """Settings that are printed show what is set, but for secrets."""
    shown = repr(Settings(tls_certificate="/etc/tls.crt", tls_key_password="open sesame", port=1))
    assert "tls_certificate='/etc/tls.crt'" in shown
    assert "port=1" in shown
    assert "tls_key_password=(not shown)" in shown
    assert "sesame" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:sesame@host/db", "postgresql://user@host/db"),
        ("postgres://user:p@ses:ame@host", "postgres://user@host"),
        ("postgresql:///db?host=h&password=sesame&user=u", "postgresql:///db?host=h&password=…&user=u"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("postgresql://a:1,b:2/db", "postgresql://a:1,b:2/db"),
    ],
)
def test_a_url_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert f"metadata={shown!r}" in repr(Settings(metadata=url))


def test_wrong_metadata() -> None:
    """What cannot hold facts is told without a password in it."""
    for url in ("mysql://user:sesame@host/db", "sqlite3", "postgresql:user:sesame@host"):
        with pytest.raises(SettingsError, match=r"^metadata = .*allowed: sqlite, postgresql://") as caught:
            load(environment={"MOORAGE_METADATA": url})
        assert "user:sesame@host/db" not in str(caught.value)
    with pytest.raises(SettingsError, match="storage = 'memory'"):
        load(arguments={"storage": "memory", "metadata": "postgresql://user@host/db"})


def test_memory_has_one_worker() -> None:
    """Memory is of one process: several workers are refused with it."""
    assert load(arguments={"storage": "memory"}).storage == "memory"
    with pytest.raises(SettingsError, match="workers = 2"):
        load(arguments={"storage": "memory", "workers": 2})


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder is root; without it the system's place where that is writable, else the user's."""
    assert Settings(root="/somewhere").data_folder() == Path("/somewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(root="~/data").data_folder() == tmp_path / "data"
    monkeypatch.setattr("moorage.settings.SYSTEM_ROOT", tmp_path / "var" / "oci-registry")
    (tmp_path / "var").mkdir()
    assert Settings().data_folder() == tmp_path / "var" / "oci-registry"
    monkeypatch.setattr("moorage.settings.SYSTEM_ROOT", tmp_path / "absent" / "oci-registry")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert Settings().data_folder() == tmp_path / "share" / "moorage"
    assert Path("/var/lib/oci-registry") == SYSTEM_ROOT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("port", "a whole number from 0 to 65535"),
        ("deletion", "true, false"),
        ("sparse", "all, indexes, none"),
        ("trusted_proxies", "a list of text"),
        ("warnings", "a list of {repository, text}"),
        ("root", "text"),
        ("housekeeping_interval", "a number from 0.05 to 86400"),
    ],
)
def test_allowed_in_words(name: str, words: str) -> None:
    """What a setting takes can be said in words."""
    assert words in allowed(name)


def test_every_setting_says_what_is_allowed() -> None:
    """No setting is at a loss for words."""
    assert all(allowed(name) for name in NAMES)
