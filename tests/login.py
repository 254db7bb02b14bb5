"""A server that asks for a name and a password, and who may log in to it."""

import base64
from dataclasses import dataclass
from pathlib import Path

import bcrypt

NAME = "alice"
PASSWORD = "open sesame!"  # with what a URL or a shell would change


@dataclass(frozen=True)
class Login:
    """``settings`` are the server's, ``headers`` go with a request that is let in."""

    settings: dict[str, str]
    headers: dict[str, str]


def basic(name: str, password: str) -> dict[str, str]:
    """The header of a name and a password."""
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def logged_in(file: Path) -> Login:
    """Settings for ``tests.server.running`` with an htpasswd file, which is written to ``file``; its one user."""
    file.write_text(f"{NAME}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    settings = {"MOORAGE_AUTHENTICATION": "htpasswd,keys", "MOORAGE_HTPASSWD": str(file)}
    return Login(settings, basic(NAME, PASSWORD))
