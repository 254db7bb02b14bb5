"""Who may come in, and what gives out the tokens for it."""

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, quote

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.google.answers import refused

REFRESH_TOKEN: Final = "refresh"
SIGNED: Final = frozenset(
    f"X-Goog-{each}" for each in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders")
)
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class Identities:
    """Who may come in."""

    def __init__(self, account: Mapping[str, str]) -> None:
        self.email, self._kid = account["client_email"], account["private_key_id"]
        self._key: Any = load_pem_private_key(account["private_key"].encode(), None)
        self._given: set[str] = set()

    def token(self) -> JSONResponse:
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self._given.add(token)
        return JSONResponse({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def sign(self, text: bytes) -> bytes:
        return bytes(self._key.sign(text, padding.PKCS1v15(), SHA256()))

    def check(self, request: Request) -> None:
        """Raise unless the request may be made."""
        if "X-Goog-Signature" in request.query_params:
            self._check_signature(request)
            return
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            raise refused(403, "AccessDenied", "Access denied.", "Anonymous caller does not have storage access.")
        if kind != "Bearer" or not (token in self._given or self._is_own(token)):
            raise refused(401, "AuthenticationRequired", "Authentication required.")

    def _is_own(self, token: str) -> bool:
        """Whether the account signed it itself (https://google.aip.dev/auth/4111)."""
        try:
            required = ["iss", "sub", "iat", "exp"]
            claims = jwt.decode(token, self._key.public_key(), ["RS256"], {"require": required}, issuer=self.email)
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError:
            return False
        lasts, scopes = claims["exp"] - claims["iat"], str(claims.get("scope")).split()
        return kid == self._kid and claims["sub"] == self.email and lasts <= 3600 and _SCOPE in scopes

    def _check_signature(self, request: Request) -> None:
        """https://cloud.google.com/storage/docs/authentication/canonical-requests"""
        pairs = [pair for pair in request.query_params.multi_items() if pair[0] != "X-Goog-Signature"]
        told = dict(pairs)
        if missing := SIGNED - told.keys():
            raise refused(400, "InvalidArgument", "Invalid argument.", f"missing {sorted(missing)}")
        names = told["X-Goog-SignedHeaders"].split(";")
        must = {"host", *(name for name in request.headers if name.startswith("x-goog-"))}
        query = "&".join(sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs))
        headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
        path = request.scope["raw_path"].decode()
        asked = "\n".join([request.method, path, query, headers, told["X-Goog-SignedHeaders"], "UNSIGNED-PAYLOAD"])
        email, _, scope = told["X-Goog-Credential"].partition("/")
        date, hashed = told["X-Goog-Date"], hashlib.sha256(asked.encode()).hexdigest()
        text = "\n".join([told["X-Goog-Algorithm"], date, scope, hashed])
        try:
            signature = bytes.fromhex(request.query_params["X-Goog-Signature"])
            self._key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), SHA256())
        except (ValueError, InvalidSignature):
            raise refused(403, "SignatureDoesNotMatch", "Access denied.", text) from None
        if (email, scope) != (self.email, f"{date[:8]}/auto/storage/goog4_request") or not must <= set(names):
            raise refused(403, "AccessDenied", "Access denied.")
        begun = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if (
            not begun - timedelta(minutes=15)
            <= datetime.now(UTC)
            < begun + timedelta(seconds=int(told["X-Goog-Expires"]))
        ):
            raise refused(400, "ExpiredToken", "The provided token has expired.", "Request signature expired.")


def services(identities: Identities) -> Iterator[Route]:
    """What gives out tokens and signatures."""

    async def metadata(request: Request) -> Response:
        """https://cloud.google.com/compute/docs/metadata/querying-metadata"""
        if request.headers.get("metadata-flavor") != "Google":
            raise HTTPException(403)
        return identities.token() if request.path_params["what"] == "token" else Response(identities.email)

    async def token(request: Request) -> Response:
        """https://google.aip.dev/auth/4113"""
        form = parse_qs((await request.body()).decode())
        if (form.get("grant_type"), form.get("refresh_token")) != (["refresh_token"], [REFRESH_TOKEN]):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return identities.token()

    async def sign_blob(request: Request) -> Response:
        """https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob"""
        identities.check(request)
        if request.path_params["email"] != identities.email:
            raise HTTPException(403)
        payload = base64.b64decode((await request.json())["payload"])
        return JSONResponse({"signedBlob": base64.b64encode(identities.sign(payload)).decode()})

    own = "/computeMetadata/v1/instance/service-accounts/default/{what}"
    yield Route(own, metadata)
    yield Route("/o/oauth2/token", token, methods=["POST"])
    yield Route("/v1/projects/-/serviceAccounts/{email}:signBlob", sign_blob, methods=["POST"])
