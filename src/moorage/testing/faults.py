"""What goes wrong between a client and a registry: chosen by a test, one answer at a time."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from moorage.web.asgi import ASGIApp, Message, Receive, Scope, Send

    Act = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]

TRANSPORT: Final = "moorage.testing.transport"
KEPT: Final = 64 * 1024
_START, _BODY = "http.response.start", "http.response.body"
_CODES: Final = {401: "UNAUTHORIZED", 403: "DENIED", 405: "UNSUPPORTED", 429: "TOOMANYREQUESTS"}
_FLIPPED: Final = 0xFF


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one answer. Made by its class methods, put into effect by ``Faults.add``."""

    name: str
    act: "Act" = field(repr=False)

    @classmethod
    def status(
        cls,
        status: int,
        *,
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        message: str = "a fault that a test asked for",
    ) -> "Fault":
        """Answer ``status`` with an error in the specification's form; the registry never sees the request.

        The request's body is taken and thrown away. ``retry_after`` goes as ``Retry-After``: seconds, or a date in
        words; ``headers`` go along. ``code`` is the error's (by default the one that suits ``status``).
        """
        error = {"code": code or _CODES.get(status, "UNKNOWN"), "message": message}
        body = json.dumps({"errors": [error]}).encode()
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        if retry_after is not None:
            given["Retry-After"] = f"{retry_after:g}" if isinstance(retry_after, float) else str(retry_after)
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:  # noqa: ARG001
            answer = pairs
            if any(name == b"expect" for name, _ in scope["headers"]):
                answer = [*pairs, (b"connection", b"close")]  # the body stays with the client
            else:
                await _take(receive)
            await send({"type": _START, "status": status, "headers": answer})
            await send({"type": _BODY, "body": b"" if scope["method"] == "HEAD" else body})

        return cls(f"status {status}", act)

    @classmethod
    def late(cls, seconds: float) -> "Fault":
        """Do what was asked, but answer only after ``seconds``."""

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
            async def later(message: "Message") -> None:
                if message["type"] == _START:
                    await asyncio.sleep(seconds)
                await send(message)

            await app(scope, receive, later)

        return cls(f"{seconds:g} s late", act)

    @classmethod
    def slow(cls, delay: float, piece: int = 1024) -> "Fault":
        """Send the answer's body ``piece`` bytes at a time, each after ``delay`` seconds."""

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
            async def slowly(message: "Message") -> None:
                body = message.get("body", b"")
                for start in range(0, len(body), piece):
                    await asyncio.sleep(delay)
                    more = start + piece < len(body) or message.get("more_body", False)
                    await send({"type": _BODY, "body": bytes(body[start : start + piece]), "more_body": more})
                if not body:
                    await send(message)

            await app(scope, receive, slowly)

        return cls(f"slow: {piece} bytes each {delay:g} s", act)

    @classmethod
    def truncate(cls, after: int) -> "Fault":
        """Cut the connection after ``after`` bytes of the answer's body; a body that is no longer comes whole."""

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
            left, cut = after, False

            async def until(message: "Message") -> None:
                nonlocal left, cut
                body = message.get("body", b"")
                if cut:
                    return
                if len(body) <= left:
                    left -= len(body)
                    await send(message)
                    return
                cut = True
                await send({"type": _BODY, "body": bytes(body[:left]), "more_body": True})
                _transport(scope).close()  # what was written still goes out

            await app(scope, receive, until)
            if cut:
                await _gone(receive)

        return cls(f"truncated after {after} bytes", act)

    @classmethod
    def corrupt(cls, offset: int = 0) -> "Fault":
        """Flip every bit of the byte at ``offset`` of the answer's body; the headers stay as they were."""

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
            passed = 0

            async def flipped(message: "Message") -> None:
                nonlocal passed
                body = message.get("body", b"")
                if passed <= offset < passed + len(body):
                    changed = bytearray(body)
                    changed[offset - passed] ^= _FLIPPED
                    message = {**message, "body": bytes(changed)}
                passed += len(body)
                await send(message)

            await app(scope, receive, flipped)

        return cls(f"corrupt byte at {offset}", act)

    @classmethod
    def drop(cls, *, carried_out: bool = False) -> "Fault":
        """Cut the connection without an answer; with ``carried_out`` only after the registry did what was asked."""

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:  # noqa: ARG001
            async def nowhere(message: "Message") -> None:
                pass

            if carried_out:
                await app(scope, receive, nowhere)
            _transport(scope).abort()
            await _gone(receive)

        return cls("dropped, carried out" if carried_out else "dropped", act)

    @classmethod
    def interrupt(cls, after: int) -> "Fault":
        """Cut the connection once ``after`` bytes of the request's body arrived and the registry has kept them.

        A body that is shorter is carried out and answered.
        """

        async def act(app: "ASGIApp", scope: "Scope", receive: "Receive", send: "Send") -> None:
            left, cut = after, False

            async def until() -> "Message":
                nonlocal left, cut
                if cut:
                    return {"type": "http.disconnect"}
                message = await receive()
                body = message.get("body", b"")
                if not body or len(body) < left:
                    left -= len(body)
                    return message
                cut = True
                return {"type": "http.request", "body": body[:left], "more_body": True}

            async def unless_cut(message: "Message") -> None:
                if not cut:
                    await send(message)

            await app(scope, until, unless_cut)
            if cut:
                _transport(scope).abort()
                await _gone(receive)

        return cls(f"interrupted after {after} bytes", act)


@dataclass(slots=True)
class SeenRequest:
    """A request as it arrived, and what became of it.

    ``query`` is undecoded; header names are in lower case, repeated ones joined by ", "; ``body`` holds the first
    64 KiB of what arrived, ``received`` counts all of it in bytes; ``status`` is what was answered, None if nothing
    was; ``fault`` is the name of the fault that struck.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    received: int = 0
    status: int | None = None
    fault: str | None = None


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str
    path: str
    left: int | None


class Faults:
    """What shall go wrong, and what was asked. Any thread may use it while requests run.

    With ``referrers_api`` set to False the registry is one that does not know the referrers API: 404 for its
    endpoint, no ``OCI-Subject``, and a fallback tag (``sha256-…``) answers exactly what was last pushed to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._requests: list[SeenRequest] = []
        self.referrers_api = True

    def add(self, fault: Fault, *, method: str = "*", path: str = "*", times: int | None = 1) -> None:
        """Let ``fault`` strike the next ``times`` requests (None: all of them) of ``method`` whose path matches.

        ``*`` in ``method`` and ``path`` stands for any characters, slashes too. One fault strikes a request: of those
        that match, the one that was added first. Raises ``ValueError`` if ``times`` is less than 1.
        """
        if times is not None and times < 1:
            raise ValueError(f"times = {times}: a fault strikes at least once")
        with self._lock:
            self._rules.append(_Rule(fault, method, path, times))

    @property
    def pending(self) -> tuple[Fault, ...]:
        """The faults that have strikes left, but for those without a count."""
        with self._lock:
            return tuple(rule.fault for rule in self._rules if rule.left)

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The requests that arrived, in order."""
        with self._lock:
            return tuple(self._requests)

    def clear(self) -> None:
        """Let everything go well from now on, and forget the requests so far."""
        with self._lock:
            self._rules.clear()
            self._requests.clear()
            self.referrers_api = True

    def met(self, request: SeenRequest) -> Fault | None:
        """Remember ``request``; the fault that strikes it, whose strike is used up then."""
        with self._lock:
            self._requests.append(request)
            for rule in self._rules:
                matches = fnmatchcase(request.method, rule.method) and fnmatchcase(request.path, rule.path)
                if rule.left != 0 and matches:
                    if rule.left is not None:
                        rule.left -= 1
                    request.fault = rule.fault.name
                    return rule.fault
        return None


def _transport(scope: "Scope") -> Any:
    try:
        return scope["extensions"][TRANSPORT]
    except KeyError:
        raise RuntimeError("only a server of moorage.testing.serve can cut connections") from None


async def _take(receive: "Receive") -> None:
    """The rest of the request, so that its sender reads the answer."""
    while (await receive()).get("more_body", False):
        pass


async def _gone(receive: "Receive") -> None:
    """Return when the connection is down, so that the server expects no answer any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
