"""The token endpoint: ``GET`` as docker asks for tokens, ``POST`` as OAuth 2 does, and the keys that verify them.

Docker's "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 6749, 7009, 7517, 8693.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from moorage.auth.base import Authorizer, Credentials, Identity
from moorage.auth.scopes import Scope, parse
from moorage.registry.tokens import PATH, Issued, Tokens
from moorage.spec.errors import MethodNotAllowed, TokenInvalid, TokenRequestInvalid, Unauthorized
from moorage.web.access import Gate, Page, credentials_of
from moorage.web.asgi import Request, Response, empty, error_response, json_response

REVOKE: Final = f"{PATH}/revoke"
KEYS: Final = f"{PATH}/keys"
_FORM: Final = "application/x-www-form-urlencoded"
_FORM_LONGEST: Final = 64 * 1024
_FIELDS: Final = 100
_SCOPES: Final = 100
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a type's name
_SUBJECTS: Final = frozenset(
    f"urn:ietf:params:oauth:token-type:{each}" for each in ("id_token", "jwt", "access_token")
)
_BASIC: Final = 'Basic realm="moorage",charset="UTF-8"'

Form = Mapping[str, Sequence[str]]


class TokenPages:
    """What ``gate`` answers at the token endpoint, with ``tokens`` of this registry."""

    def __init__(self, gate: Gate, tokens: Tokens) -> None:
        self._gate = gate
        self._tokens = tokens
        self._grants = {
            "password": self._password,
            "refresh_token": self._refresh_token,
            _EXCHANGE: self._exchange,
        }

    def pages(self) -> dict[str, Page]:
        """Its pages by their paths."""
        return {PATH: self.token, REVOKE: self.revoke, KEYS: self.keys}

    async def token(self, request: Request) -> Response:
        """Give a token."""
        _allow(request, "GET", "POST")
        try:
            return await (self._get(request) if request.method == "GET" else self._post(request))
        except (Unauthorized, TokenRequestInvalid) as error:
            return _refusal(error)

    async def revoke(self, request: Request) -> Response:
        """End a refresh token; that it is not there is no error (RFC 7009 section 2.2)."""
        _allow(request, "POST")
        try:
            await self._tokens.revoke(_one(await _form(request), "token"))
        except TokenRequestInvalid as error:
            return _refusal(error)
        return empty(200)

    async def keys(self, request: Request) -> Response:
        """The keys that verify the tokens, as a JWK set."""
        _allow(request, "GET", "HEAD")
        response = json_response({"keys": [key.jwk() for key in await self._tokens.keys()]})
        response.add("Cache-Control", "max-age=60")
        return response

    async def _get(self, request: Request) -> Response:
        """Docker's way: credentials in the header, or none."""
        query: dict[str, list[str]] = {}
        for name, value in request.query:
            query.setdefault(name, []).append(value)
        identity = await self._identify(credentials_of(request, self._gate.options.client(request)))
        wanted = query.get("offline_token", ["false"])[0].lower() in ("true", "1")
        return await self._answer(identity, query, lasting=wanted)

    async def _post(self, request: Request) -> Response:
        form = await _form(request)
        grant = _one(form, "grant_type")
        if grant not in self._grants:
            raise TokenRequestInvalid(
                f"grant_type {grant[:64]!r} is not known; allowed: {', '.join(self._grants)}",
                problem="unsupported_grant_type",
            )
        return await self._grants[grant](form, self._gate.options.client(request))

    async def _password(self, form: Form, address: str | None) -> Response:
        name, password = _one(form, "username"), _one(form, "password")
        identity = await self._identify(Credentials(name, password, address=address))
        return await self._answer(identity, form, lasting=_offline(form))

    async def _refresh_token(self, form: Form, address: str | None) -> Response:  # noqa: ARG002  each grant's form
        """Whoever asks for another refresh token (``access_type=offline``) uses up his own.

        Docker and most others do not ask, and keep their first one for good.
        """
        token = _one(form, "refresh_token")
        identity = await self._tokens.renew(token)
        return await self._answer(identity, form, used_up=token if _offline(form) else None)

    async def _exchange(self, form: Form, address: str | None) -> Response:
        """A token of a trusted issuer for one of ours; RFC 8693."""
        if _one(form, "subject_token_type") not in _SUBJECTS:
            raise TokenRequestInvalid(f"subject_token_type; allowed: {', '.join(sorted(_SUBJECTS))}")
        identity = await self._identify(Credentials(token=_one(form, "subject_token"), address=address))
        return await self._answer(identity, form, issued_token_type=_ACCESS_TOKEN, token_type="Bearer")  # noqa: S106

    async def _identify(self, credentials: Credentials) -> Identity:
        identity = await self._gate.identify(credentials)
        if identity.limit is not None:  # else a token could live for ever
            raise TokenInvalid("a token of this kind is not given another for")
        return identity

    async def _answer(
        self,
        identity: Identity,
        asked: Form,
        *,
        lasting: bool = False,
        used_up: str | None = None,
        **more: str,
    ) -> Response:
        service = self._tokens.options.service
        if any(each != service for each in asked.get("service", ())):
            raise TokenRequestInvalid(f"this registry's tokens are for the service {service}")
        scopes = parse(asked.get("scope", ()))
        if len(scopes) > _SCOPES:
            raise TokenRequestInvalid(f"{len(scopes)} scopes; allowed: {_SCOPES}", problem="invalid_scope")
        granted = [cut for scope in scopes if (cut := await _granted(self._gate.authorizer, identity, scope))]
        issued = await self._tokens.issue(identity, granted)
        if lasting and self._tokens.renewable(identity):
            more["refresh_token"] = await self._tokens.refresh_token(identity)
        if used_up is not None:  # last, since whoever gets no answer has lost it
            more["refresh_token"] = await self._tokens.succeed(used_up)
        return _issued(issued, granted, more)


async def _granted(authorizer: Authorizer, identity: Identity, scope: Scope) -> Scope | None:
    """What of a scope the rules grant, None for nothing."""
    actions = frozenset(
        [each for each in scope.actions if (await authorizer.authorize(identity, each, scope.repository)).allowed]
    )
    return Scope(scope.repository, actions) if actions else None


def _issued(issued: Issued, scopes: Sequence[Scope], more: Mapping[str, str]) -> Response:
    document: dict[str, Any] = {
        "token": issued.token,
        "access_token": issued.token,
        "expires_in": issued.expires_in,
        "issued_at": datetime.fromtimestamp(issued.issued_at, UTC).isoformat().replace("+00:00", "Z"),
        "scope": " ".join(map(str, scopes)),
        **more,
    }
    return _unstored(json_response(document))


def _refusal(error: Unauthorized | TokenRequestInvalid) -> Response:
    """An error that both OAuth clients (RFC 6749 section 5.2) and registry clients read."""
    problem = error.problem if isinstance(error, TokenRequestInvalid) else "invalid_grant"
    if isinstance(error, Unauthorized):
        error.challenges = [_BASIC]
    response = error_response(error)
    response.body = json_response({"error": problem, "error_description": error.text, "errors": error.entries()}).body
    response.headers = [each for each in response.headers if each[0] != b"content-length"]
    response.add("Content-Length", str(len(response.body)))
    return _unstored(response)


def _unstored(response: Response) -> Response:
    response.add("Cache-Control", "no-store")
    return response


def _allow(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        detail = {"method": request.method[:32], "allowed": list(allowed)}
        raise MethodNotAllowed(detail=detail, headers={"Allow": ", ".join(allowed)})


async def _form(request: Request) -> Form:
    """The fields of a form; raises ``TokenRequestInvalid``."""
    if (request.header(b"content-type") or "").partition(";")[0].strip().lower() != _FORM:
        raise TokenRequestInvalid(f"Content-Type; allowed: {_FORM}")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _FORM_LONGEST:
            raise TokenRequestInvalid(f"the form is longer than {_FORM_LONGEST} bytes")
    fields: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS):
            fields.setdefault(name, []).append(value)
    except ValueError as error:
        raise TokenRequestInvalid("the form cannot be read") from error
    return fields


def _one(form: Form, name: str) -> str:
    """The one value of a field; raises ``TokenRequestInvalid`` (RFC 6749 section 3.2)."""
    values = form.get(name, ())
    if len(values) != 1:
        raise TokenRequestInvalid(f"{name} must be given once")
    return values[0]


def _offline(form: Form) -> bool:
    return list(form.get("access_type", ())) == ["offline"]
