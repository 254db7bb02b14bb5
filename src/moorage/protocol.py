"""HTTP/1.1 on a connection: uvicorn's protocol, with its own errors in the specification's form."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from moorage.spec.errors import RequestMalformed
from moorage.web.asgi import API_VERSION, error_response


class RegistryProtocol(HttpToolsProtocol):
    """What is not HTTP reaches no application, so it is answered here."""

    def send_400_response(self, msg: str) -> None:
        response = error_response(RequestMalformed(detail={"reason": msg}))
        response.headers.append(API_VERSION)
        response.add("Connection", "close")
        headers = b"".join(b"%b: %b\r\n" % header for header in response.headers)
        self.transport.write(STATUS_LINE[response.status] + headers + b"\r\n" + response.body)
        self.transport.close()
