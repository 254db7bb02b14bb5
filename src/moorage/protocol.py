"""HTTP/1.1 on a connection: uvicorn's protocol, with its own errors in the specification's form."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from moorage.auth.certificates import certificate_of
from moorage.spec.errors import RequestMalformed
from moorage.web.access import CERTIFICATE
from moorage.web.asgi import API_VERSION, error_response


class RegistryProtocol(HttpToolsProtocol):
    """What is not HTTP reaches no application, so it is answered here. A client's certificate goes into the scope."""

    _extensions: dict[str, Any] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if certificate := certificate_of(transport.get_extra_info("peercert")):
            self._extensions = {CERTIFICATE: certificate}

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._extensions is not None:
            self.scope["extensions"] = self._extensions

    def send_400_response(self, msg: str) -> None:
        response = error_response(RequestMalformed(detail={"reason": msg}))
        response.headers.append(API_VERSION)
        response.add("Connection", "close")
        headers = b"".join(b"%b: %b\r\n" % header for header in response.headers)
        self.transport.write(STATUS_LINE[response.status] + headers + b"\r\n" + response.body)
        self.transport.close()
