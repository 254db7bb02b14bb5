"""Between the server and the registry: writes down what is asked, and lets faults strike."""

import re
from typing import Final

from moorage.testing.faults import KEPT, Fault, Faults, SeenRequest
from moorage.web.asgi import ASGIApp, Message, Receive, Scope, Send

_REFERRERS: Final = re.compile(r"/v2/.+/referrers/[^/]+")
_FALLBACK_TAG: Final = re.compile(r"(?P<manifests>/v2/.+/manifests/)[a-z0-9]+-[a-f0-9]{64,}")
_UNKNOWN: Final = Fault.status(404, code="UNSUPPORTED", message="this registry does not know the referrers API")


class FaultyApp:
    """An ASGI application that is ``app`` but for what ``faults`` says."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults
        self._fallbacks: dict[str, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _seen(scope)
        fault = self._faults.met(seen)

        async def arriving() -> Message:
            message = await receive()
            body = message.get("body", b"")
            seen.received += len(body)
            seen.body += body[: KEPT - len(seen.body)]
            return message

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
            await send(message)

        app = self._app if self._faults.referrers_api else self._without_referrers
        if fault is None:
            await app(scope, arriving, answering)
        else:
            await fault.act(app, scope, arriving, answering)

    async def _without_referrers(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if _REFERRERS.fullmatch(path):
            await _UNKNOWN.act(self._app, scope, receive, send)
            return
        fallback = _FALLBACK_TAG.fullmatch(path)
        # Moorage lets such a tag name an index merged with what it knows; who does not know referrers cannot.
        if fallback and method in ("GET", "HEAD") and path in self._fallbacks:
            scope = {**scope, "path": fallback["manifests"] + self._fallbacks[path]}

        async def unaware(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"oci-subject"]
                message = {**message, "headers": headers}
                if fallback and method == "PUT" and message["status"] == 201:
                    self._fallbacks[path] = dict(headers)[b"docker-content-digest"].decode()
                elif fallback and method == "DELETE" and message["status"] == 202:
                    self._fallbacks.pop(path, None)
            await send(message)

        await self._app(scope, receive, unaware)


def _seen(scope: Scope) -> SeenRequest:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return SeenRequest(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers)
