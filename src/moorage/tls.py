"""TLS: certificate and key from files, taken anew when they change."""

import logging
import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moorage.settings import Settings, SettingsError

_log = logging.getLogger("moorage.tls")
# Forward secrecy and authenticated encryption only. What TLS 1.3 offers is so by itself.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_FILES: Final = ("tls_certificate", "tls_key", "tls_client_ca", "tls_client_revocations")
_PLAIN: Final = (  # what anybody who speaks plain HTTP here understands
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 32\r\nConnection: close\r\n\r\n"
    b"this port speaks HTTPS, not HTTP"
)
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")
_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP

_Seen = tuple[tuple[int, int, int] | None, ...]


class _Handshake(ssl.SSLObject):
    """A connection whose client is told why its handshake failed: the loop would close without sending that."""

    _failure: ssl.SSLError | None = None
    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            if error.reason == "HTTP_REQUEST":
                self.outgoing.write(_PLAIN)
            if isinstance(error, ssl.SSLCertVerificationError):
                _log.info("a client's certificate was refused: %s", error.verify_message)
            if not self.outgoing.pending:
                raise
            # What waits to be sent is sent before more is awaited; whatever comes then, or its absence, is the end.
            raise ssl.SSLWantReadError from error


class _Context(ssl.SSLContext):
    sslobject_class = _Handshake


class ReloadedContext(ssl.SSLContext):
    """What a server is given once: each handshake is that of the newest context made of the files."""

    current: _Context
    _settings: Settings
    _seen: _Seen

    @classmethod
    def of(cls, settings: Settings) -> "ReloadedContext":
        """A context of the files that the settings name; raises ``SettingsError``."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context._settings = settings
        context._seen = _look(settings)
        context.current = make_context(settings)
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """As that of the newest context."""
        made = self.current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _Handshake)  # noqa: S101  the class of that context
        made.outgoing = outgoing
        return made

    def reload(self, *, asked: bool = False) -> None:
        """Take the files anew if they have changed or if ``asked``; what is wrong with them is logged."""
        seen = _look(self._settings)
        if seen == self._seen and not asked:
            return
        self._seen = seen
        try:
            self.current = make_context(self._settings)
        except SettingsError as error:
            _log.error("the files of TLS have changed, and those before stay in use: %s", error)
        else:
            _log.info("the files of TLS were read anew")


def make_context(settings: Settings) -> _Context:
    """A server's context of the files that the settings name; raises ``SettingsError``."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, settings)
    if settings.tls_client_ca is not None:
        _load_authorities(context, settings)
    return context


def _load_pair(context: ssl.SSLContext, settings: Settings) -> None:
    certificate = _File.read("tls_certificate", settings.tls_certificate, b"CERTIFICATE")
    key = _File.read("tls_key", settings.tls_key, b"PRIVATE KEY") if settings.tls_key else certificate
    if b"PRIVATE KEY-----" not in key.content:
        raise certificate.wrong("it holds no key", "a file with the key too, or tls_key")
    if key.mode & _OTHERS:
        _log.warning("%s: others may read or change the key; chmod 600 keeps them off", key)
    try:
        context.load_cert_chain(certificate.path, key.path, lambda: _password(settings, key))
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            raise key.wrong(f"it is not the key of the first certificate of {certificate}", "its key") from error
        if settings.tls_key_password is not None:
            raise key.wrong("it cannot be read with this tls_key_password", "a PEM file and its password") from error
        raise certificate.wrong(f"it or the key cannot be read: {error.reason or error}", "PEM files") from error
    except OSError as error:  # it was there a moment ago
        raise certificate.wrong(f"it or the key: {error.strerror}", "PEM files") from error


def _load_authorities(context: ssl.SSLContext, settings: Settings) -> None:
    authorities = _File.read("tls_client_ca", settings.tls_client_ca, b"CERTIFICATE")
    context.verify_mode = ssl.CERT_REQUIRED if settings.tls_client_verify == "required" else ssl.CERT_OPTIONAL
    files = [authorities]
    if settings.tls_client_revocations is not None:
        files.append(_File.read("tls_client_revocations", settings.tls_client_revocations, b"X509 CRL"))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    for each in files:
        try:
            context.load_verify_locations(each.path)
        except OSError as error:
            why = getattr(error, "reason", None) or error.strerror or error
            raise each.wrong(f"it cannot be read: {why}", "a PEM file") from error


def _password(settings: Settings, key: "_File") -> str:
    if settings.tls_key_password is None:
        raise key.wrong("it is encrypted", "a key that is not, or tls_key_password")
    return settings.tls_key_password


@dataclass(frozen=True, slots=True)
class _File:
    """A file that a setting names."""

    setting: str
    path: str
    mode: int
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, setting: str, path: str | None, kind: bytes) -> "_File":
        assert path is not None  # noqa: S101  the settings were checked
        allowed = f"a PEM file with a {kind.decode().lower()}"
        try:
            with Path(path).open("rb") as file:
                found = cls(setting, path, os.fstat(file.fileno()).st_mode, file.read())
        except OSError as error:
            raise SettingsError(f"{setting} = {path!r}: {error.strerror}; allowed: {allowed}") from error
        if kind + b"-----" not in found.content:
            raise found.wrong(f"it holds no {kind.decode().lower()}", allowed)
        return found

    def wrong(self, what: str, allowed: str) -> SettingsError:
        return SettingsError(f"{self}: {what}; allowed: {allowed}")

    def __str__(self) -> str:
        return f"{self.setting} = {self.path!r}"


def _look(settings: Settings) -> _Seen:
    """What changes when a file does: links are followed, since Kubernetes changes those."""
    paths = (getattr(settings, name) for name in _FILES)
    return tuple(_identity(path) for path in paths if path is not None)


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
