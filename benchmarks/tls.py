"""Loads over TLS: one manifest, and 10 MB each way, over kept connections."""

import shutil
from collections.abc import Sequence

from benchmarks.loads import Work
from benchmarks.reads import BlobGetMedium, ManifestGetTag
from benchmarks.writes import BlobPutMedium


class OverTls(Work):
    tls = True

    @classmethod
    def needs(cls) -> str | None:
        return None if shutil.which("openssl") else "no openssl to make a certificate"


class TlsManifest(OverTls, ManifestGetTag):
    name, what = "tls-manifest-get-tag", "GET of a manifest by tag over TLS"


class TlsBlobGet(OverTls, BlobGetMedium):
    name, what = "tls-blob-get-10m", "GET of a blob of 10 MB over TLS"


class TlsBlobPut(OverTls, BlobPutMedium):
    name, what = "tls-blob-put-10m", "a blob of 10 MB by POST and PUT over TLS"
    kinds = frozenset({"registry"})


LOADS: Sequence[type[Work]] = (TlsManifest, TlsBlobGet, TlsBlobPut)
