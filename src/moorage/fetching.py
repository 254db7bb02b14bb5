"""Fetches small documents: the keys of issuers, from their URLs or from files."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

_MOST: Final = 1024 * 1024
_TIMEOUT: Final = 5.0  # seconds


class Fetcher:
    """Documents of up to 1 MiB, over HTTP or from a file; raises ``OSError``, ``ValueError``.

    ``authority`` is a file (PEM) of certificates that are trusted instead of the system's; ``token_file`` holds a
    bearer token that is sent, and read anew each time: Kubernetes renews those.
    """

    def __init__(self, authority: str | None = None, token_file: str | None = None) -> None:
        self._authority = authority
        self._token_file = token_file

    async def __call__(self, location: str) -> bytes:
        return await asyncio.to_thread(self._fetch, location)

    def _fetch(self, location: str) -> bytes:
        if "://" not in location:
            return Path(location).read_bytes()[:_MOST]
        if not location.startswith(("https://", "http://")):
            raise ValueError(f"{location}: allowed: https://, http:// or a file")
        request = Request(location, headers={"Accept": "application/json"})  # noqa: S310  looked at above
        if self._token_file:
            # Not sent on to where a redirect leads.
            request.add_unredirected_header("Authorization", f"Bearer {Path(self._token_file).read_text().strip()}")
        context = ssl.create_default_context(cafile=self._authority)
        opener = build_opener(HTTPSHandler(context=context), _Redirects())
        try:
            with opener.open(request, timeout=_TIMEOUT) as answer:
                document: bytes = answer.read(_MOST + 1)
        except URLError as error:
            raise OSError(f"{location}: {getattr(error, 'reason', error)}") from error
        if len(document) > _MOST:
            raise ValueError(f"{location}: longer than {_MOST} bytes")
        return document


class _Redirects(HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to HTTP."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise URLError(f"redirects to {newurl}, which is not HTTPS")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
