"""A server that asks for a name and a password, and who may log in to it: with each request, or by tokens."""

import base64
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import bcrypt
import httpx

NAME = "alice"
PASSWORD = "open sesame!"  # with what a URL or a shell would change
Way = Literal["basic", "tokens"]


@dataclass(frozen=True)
class Login:
    """``settings`` are the server's, ``headers`` go with a request that is let in."""

    settings: dict[str, str]
    headers: dict[str, str]


def basic(name: str, password: str) -> dict[str, str]:
    """The header of a name and a password."""
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


class TokenFlow(httpx.Auth):
    """Does what clients do: asks without credentials, reads the challenge, fetches a token, asks again with it.

    ``more`` are scopes that it asks for besides: a mount without ``from`` takes from what the token lets one pull.
    """

    def __init__(self, more: Callable[[httpx.Request], str] = lambda _: "") -> None:
        self._more = more

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        # Without the body: one that is streamed could not be sent twice.
        refused = yield httpx.Request(request.method, request.url)
        if refused.status_code != 401:  # what is malformed is refused to anybody
            yield request
            return
        scheme, _, parameters = refused.headers["www-authenticate"].partition(" ")
        assert scheme == "Bearer"
        asked = dict(re.findall(r'(\w+)="([^"]*)"', parameters))
        query = {"service": asked["service"], "scope": [asked.get("scope", ""), self._more(request)]}
        answer = yield httpx.Request("GET", asked["realm"], params=query, headers=basic(NAME, PASSWORD))
        assert answer.status_code == 200, answer.status_code
        answer.read()
        request.headers["authorization"] = f"Bearer {answer.json()['token']}"
        yield request


def logged_in(file: Path, way: Way = "basic", cost: int = 4) -> Login:
    """Settings for ``tests.server.running`` with an htpasswd file, which is written to ``file``; its one user."""
    file.write_text(f"{NAME}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()}\n")
    settings = {
        "MOORAGE_AUTHENTICATION": f"{'tokens,' * (way == 'tokens')}htpasswd,keys",
        "MOORAGE_HTPASSWD": str(file),
    }
    return Login(settings, basic(NAME, PASSWORD))
