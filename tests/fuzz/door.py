"""The application's own door: ASGI messages, as a server would pass them, and no server in between."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from moorage import Policy, create_app, open_registry
from tests.fuzz.answer import Answer

Headers = Iterable[tuple[str, str]]
PATIENCE = 30.0


class Door:
    """A registry (in memory, or in the folder ``root``) behind its ASGI application, asked one request at a time."""

    def __init__(self, root: Path | None = None, policy: Policy | None = None) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._root, self._policy = root, policy

    def __enter__(self) -> Self:
        self._runner.__enter__()
        registry = self._run(self._stack.enter_async_context(open_registry(self._root, self._policy)))
        self._app = create_app(registry)
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._stack.aclose())
        self._runner.close()

    def _run(self, work: Any) -> Any:
        return self._runner.run(work)

    def request(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | Sequence[bytes] = b"",
        *,
        cut: bool = False,
    ) -> Answer | None:
        """The answer. ``body`` goes in pieces if it is several, then without a length.

        With ``cut`` the client goes away before the body's end; the answer is None if there was none.
        """
        pieces = [body] if isinstance(body, bytes) else list(body)
        scope = _scope(method, target, list(headers), body)
        return self._run(_ask(self._app, scope, pieces, cut=cut))  # type: ignore[no-any-return]

    def ask(self, method: str, target: str, headers: Headers = (), body: bytes | Sequence[bytes] = b"") -> Answer:
        """The answer to a request that is not cut."""
        answer = self.request(method, target, headers, body)
        assert answer is not None, (method, target)
        return answer


def _scope(method: str, target: str, headers: list[tuple[str, str]], body: bytes | Sequence[bytes]) -> dict[str, Any]:
    raw, _, query = target.partition("?")
    given = {name.lower() for name, _ in headers}
    if isinstance(body, bytes):
        if body and not given & {"content-length", "transfer-encoding"}:
            headers = [*headers, ("content-length", str(len(body)))]
    elif "transfer-encoding" not in given:
        headers = [*headers, ("transfer-encoding", "chunked")]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("utf-8", "surrogatepass"),
        "query_string": query.encode("utf-8", "surrogatepass"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }


async def _ask(app: Any, scope: dict[str, Any], pieces: list[bytes], *, cut: bool) -> Answer | None:
    messages: list[dict[str, Any]] = []
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        if waiting:
            piece = waiting.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(waiting) or cut}
        if cut:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, send)
    if cut and not messages:
        return None
    return _answer(messages)


def _answer(messages: list[dict[str, Any]]) -> Answer:
    """One start, then bodies of which only the last one is the last; anything else a server would not take."""
    start, *bodies = messages
    assert start["type"] == "http.response.start", messages
    assert bodies, messages
    assert [each["type"] for each in bodies] == ["http.response.body"] * len(bodies)
    assert [bool(each.get("more_body")) for each in bodies] == [True] * (len(bodies) - 1) + [False]
    headers = []
    for name, value in start["headers"]:
        assert isinstance(name, bytes), start
        assert isinstance(value, bytes), start
        assert name == name.lower(), name
        headers.append((name.decode("latin-1"), value.decode("latin-1")))
    return Answer(start["status"], tuple(headers), b"".join(bytes(each.get("body", b"")) for each in bodies))
