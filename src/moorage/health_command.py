"""``moorage health``: asks the server that the settings describe, on this machine, whether it answers."""

import http.client
import ssl
import sys
from typing import Final

from moorage.settings import Settings

_PATIENCE: Final = 4.0  # seconds
_LISTENS_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def health(settings: Settings) -> int:
    """0 if it answers, 1 if not, which then is said. Neither proxies nor the name in its certificate matter here."""
    host = _LISTENS_EVERYWHERE.get(settings.host, settings.host)
    if settings.tls_certificate is None:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_PATIENCE)
    else:
        unverified = ssl._create_unverified_context()  # noqa: S323, SLF001  it is ourselves
        connection = http.client.HTTPSConnection(host, settings.port, timeout=_PATIENCE, context=unverified)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        wrong = "" if answer.status == http.HTTPStatus.OK else f"{answer.status} {answer.reason}"
    except (OSError, http.client.HTTPException) as error:
        # It answers those who have a certificate.
        wrong = "" if getattr(error, "reason", None) == "TLSV13_ALERT_CERTIFICATE_REQUIRED" else str(error)
    finally:
        connection.close()
    if wrong:
        print(f"moorage: {host}:{settings.port}: {wrong}", file=sys.stderr)  # noqa: T201
    return 1 if wrong else 0
