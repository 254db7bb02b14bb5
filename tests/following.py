"""Follows a registry's redirects to a bucket, and shows both answers as one: so the same tests hold for both ways."""

import httpx

_THEIRS = ("accept-ranges", "content-length", "content-range", "content-type")


def _redirected(request: httpx.Request, response: httpx.Response) -> httpx.Request | None:
    if response.status_code != 307:
        return None
    assert response.headers["content-length"] == "0"
    kept = {name: value for name, value in request.headers.items() if name in ("range", "if-none-match")}
    return httpx.Request(request.method, response.headers["location"], headers=kept)


def _joined(first: httpx.Response, last: httpx.Response) -> httpx.Response:
    assert last.status_code in (200, 206), last.text
    ours = [pair for pair in first.headers.multi_items() if pair[0] not in ("location", "content-length")]
    theirs = [(name, last.headers[name]) for name in _THEIRS if name in last.headers]
    etag = ("etag", f'"{first.headers["docker-content-digest"]}"')  # no client compares validators of two servers
    headers = [*ours, *theirs, etag]
    return httpx.Response(last.status_code, headers=headers, content=last.content, request=first.request)


class Following(httpx.BaseTransport):
    """``inner``, and where its redirects lead."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        there = _redirected(request, response)
        if there is None:
            return response
        response.read()
        response.request = request
        with httpx.Client(trust_env=False) as client:
            return _joined(response, client.send(there))

    def close(self) -> None:
        self._inner.close()


class AsyncFollowing(httpx.AsyncBaseTransport):
    """The same for an application."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        there = _redirected(request, response)
        if there is None:
            return response
        await response.aread()
        response.request = request
        async with httpx.AsyncClient(trust_env=False) as client:
            return _joined(response, await client.send(there))

    async def aclose(self) -> None:
        await self._inner.aclose()
