"""An OpenID provider: a real HTTP server with real keys, that can be down and can change its keys."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "https://registry.test"


@dataclass(frozen=True)
class IssuerKey:
    """One of its RSA keys, as most providers have them."""

    kid: str
    private: Any = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def jwk(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key()))
        return {**members, "kid": self.kid, "alg": "RS256", "use": "sig"}


@dataclass
class Issuer:
    """``url`` is its name; ``asked`` are the paths that it was asked for."""

    url: str = ""
    keys: list[IssuerKey] = field(default_factory=lambda: [IssuerKey("one")])
    down: bool = False
    named: str | None = None
    asked: list[str] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)

    def token(self, *, key: IssuerKey | None = None, algorithm: str = "RS256", **changes: Any) -> str:
        """An id token of a pipeline; a claim that is changed to None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": AUDIENCE, "sub": "repo:acme/app", "iat": now, "exp": now + 600,
            "repository": "acme/app", "repository_owner": "acme", "ref": "refs/heads/main",
        }  # fmt: skip
        key = key or self.keys[0]
        payload = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(payload, key.private, algorithm, {"kid": key.kid})

    def answer(self, path: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.named or self.url, "jwks_uri": f"{self.url}/jwks"}
        return {"keys": [key.jwk() for key in self.keys]} if path == "/jwks" else None


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer that answers for the length of the block."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            issuer.authorization.append(self.headers.get("authorization"))
            found = None if issuer.down else issuer.answer(self.path)
            body = json.dumps(found).encode()
            self.send_response(200 if found else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
