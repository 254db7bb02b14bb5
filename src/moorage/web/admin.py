"""Managing access over HTTP: API keys, rules and quotas, for identities that were granted ``admin`` on everything."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from moorage.auth.words import write_scope
from moorage.registry import Registry
from moorage.registry.access import Access, ApiKey
from moorage.spec.actions import Action
from moorage.spec.errors import AccessInvalid, MethodNotAllowed
from moorage.spec.routes import Endpoint
from moorage.web.access import Gate, Page
from moorage.web.asgi import Request, Response, empty, json_response

KEYS: Final = "/api/keys"
RULES: Final = "/api/rules"
QUOTAS: Final = "/api/quotas"
_LARGEST: Final = 64 * 1024
_ENDPOINT: Final = Endpoint("admin", "api", "GET", "/api/", Action.ADMIN)
Body = TypeVar("Body")
Answer = Callable[[Request, str], Coroutine[Any, Any, Response]]


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key to make; ``expires_in`` is seconds."""

    name: str
    scope: list[str] | None = None
    acts_as: str | None = None
    expires_in: float | None = None


class NewRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule to add: ``allow`` or ``deny`` is given."""

    who: list[str]
    repositories: list[str]
    allow: list[str] = []
    deny: list[str] = []


class AdminPages:
    """What ``gate`` answers to those who manage ``registry``."""

    def __init__(self, gate: Gate, registry: Registry) -> None:
        self._gate = gate
        self._registry = registry
        self._access: Access = registry.access

    def pages(self) -> dict[str, Page]:
        """Its pages by their paths."""
        keys = {"GET": self._list_keys, "POST": self._create_key, "DELETE": self._revoke_key}
        rules = {"GET": self._list_rules, "POST": self._add_rule, "DELETE": self._remove_rule}
        return {KEYS: self._page(keys), RULES: self._page(rules), QUOTAS: self._page({"GET": self._list_quotas})}

    def _page(self, answers: Mapping[str, Answer]) -> Page:
        async def page(request: Request) -> Response:
            permit = await self._gate.admit(request, _ENDPOINT, "", "")
            answer = answers.get(request.method)
            if answer is None:
                allowed = ", ".join(answers)
                raise MethodNotAllowed(detail={"method": request.method[:32]}, headers={"Allow": allowed})
            try:
                response = await answer(request, permit.identity.name)
            except msgspec.DecodeError as error:
                raise AccessInvalid(f"the body is not the JSON that is wanted: {error}") from error
            except ValueError as error:
                raise AccessInvalid(str(error)) from error
            response.add("Cache-Control", "no-store")
            return response

        return page

    async def _list_keys(self, request: Request, actor: str) -> Response:  # noqa: ARG002  the form of all answers
        return json_response({"keys": [_described(each) for each in await self._access.keys()]})

    async def _create_key(self, request: Request, actor: str) -> Response:
        wanted = await _body(request, NewKey)
        expires = None if wanted.expires_in is None else self._registry.clock() + wanted.expires_in
        key = await self._access.create_key(
            wanted.name, wanted.scope, acts_as=wanted.acts_as, expires_at=expires, actor=actor
        )
        return json_response({"name": wanted.name, "key": key}, status=201)

    async def _revoke_key(self, request: Request, actor: str) -> Response:
        await self._access.revoke_key(_parameter(request, "name"), actor=actor)
        return empty(204)

    async def _list_rules(self, request: Request, actor: str) -> Response:  # noqa: ARG002
        rules = [
            {
                "number": number,
                "who": rule.who,
                "repositories": rule.repositories,
                "allow" if rule.allow else "deny": [each for each in Action if each in rule.actions],
            }
            for number, rule in (await self._access.rules()).items()
        ]
        return json_response({"rules": rules})

    async def _add_rule(self, request: Request, actor: str) -> Response:
        wanted = await _body(request, NewRule)
        if bool(wanted.allow) is bool(wanted.deny):
            raise ValueError("allowed: either allow or deny")
        number = await self._access.add_rule(
            wanted.who, wanted.allow or wanted.deny, wanted.repositories, allow=bool(wanted.allow), actor=actor
        )
        return json_response({"number": number}, status=201)

    async def _remove_rule(self, request: Request, actor: str) -> Response:
        number = _parameter(request, "number")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise ValueError(f"number = {number[:64]!r}: allowed: the number of a rule")
        await self._access.remove_rule(int(number), actor=actor)
        return empty(204)

    async def _list_quotas(self, request: Request, actor: str) -> Response:  # noqa: ARG002
        quotas = [
            {
                "repository": each.pattern,
                "counted": each.counted,
                **{
                    of: {"used": used, "allowed": allowed}
                    for of, used, allowed in zip(each.used._fields, each.used, each.allowed, strict=True)
                },
            }
            for each in await self._registry.quotas.list()
        ]
        return json_response({"quotas": quotas})


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "acts_as": key.acts_as,
        "scope": None if key.scope is None else write_scope(key.scope),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "used_at": key.used_at,
    }


def _parameter(request: Request, name: str) -> str:
    value = request.parameter(name)
    if value is None:
        raise ValueError(f"the parameter {name} is missing")
    return value


async def _body(request: Request, kind: type[Body]) -> Body:
    body = await request.whole(_LARGEST)
    if body is None:
        raise ValueError(f"allowed: at most {_LARGEST} bytes")
    return msgspec.json.decode(body, type=kind)
