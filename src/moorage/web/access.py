"""Who sends a request, and what he may do: the one rule for what a client sees that may not.

Without credentials, or with wrong ones, everything that was not granted to ``anonymous`` is 401. Whoever has shown
who he is finds nothing in a repository that he may not pull, as if nothing were there, and gets 403 for every change
that he may not make. Neither depends on whether the repository is there.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, Self

from moorage.auth.attempts import WRONG
from moorage.auth.base import (
    ANONYMOUS,
    Authenticator,
    Authorizer,
    Challenge,
    Credentials,
    Grant,
    Identity,
)
from moorage.spec.actions import Action
from moorage.spec.errors import Denied, ScopeInsufficient, TokenInvalid, Unauthorized
from moorage.spec.names import REPOSITORY
from moorage.spec.patterns import matches
from moorage.spec.routes import Endpoint
from moorage.web.asgi import Request, Response
from moorage.web.options import WebOptions

_TOKEN_ACTIONS: Final = {Action.PUSH: "pull,push", Action.CREATE: "pull,push", Action.RETAG: "pull,push"}


@dataclass(slots=True, eq=False)  # made for each request, which frozen would cost twice
class Permit:
    """What the sender of a request may do; everything without an ``authorizer``.

    ``hidden`` is a repository that he may not pull.
    """

    identity: Identity
    authorizer: Authorizer | None = None
    hidden: bool = False

    @property
    def restricted(self) -> bool:
        """Whether there is anything that must be asked."""
        return self.authorizer is not None

    async def may(self, action: Action, repository: str | None, tag: str | None = None) -> bool:
        """Whether he may do that; see ``Authorizer``."""
        if self.authorizer is None:
            return True
        limit = self.identity.limit
        if limit is not None and not _covers(limit, action, repository):
            return False
        return (await self.authorizer.authorize(self.identity, action, repository, tag)).allowed

    async def may_otherwise(self, action: Action, repository: str | None, tag: str | None = None) -> bool:
        """Whether only the token stands in the way, so that another one would help."""
        limit = self.identity.limit
        if limit is None or _covers(limit, action, repository):
            return False
        if self.identity.scope == limit:  # the token itself grants: what another would, only its issuer knows
            return True
        return await replace(self, identity=replace(self.identity, limit=None)).may(action, repository, tag)


OPEN: Final = Permit(ANONYMOUS)
Page = Callable[[Request], Awaitable[Response]]


class Gate:
    """Lets requests in. As an async context manager it opens and closes those of its parts that can be.

    ``pages`` are what it answers by itself, under their paths: clients ask there for what lets them in.
    """

    def __init__(
        self, authenticators: Sequence[Authenticator], authorizer: Authorizer, options: WebOptions | None = None
    ) -> None:
        self.authenticators = tuple(authenticators)
        self.authorizer = authorizer
        self.options = options or WebOptions()
        self.pages: dict[str, Page] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for each in (*self.authenticators, self.authorizer):
                if isinstance(each, AbstractAsyncContextManager):
                    await stack.enter_async_context(each)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def admit(self, request: Request, endpoint: Endpoint, repository: str, reference: str) -> Permit:
        """What the request may do; raises ``Unauthorized``, ``Denied``."""
        action = endpoint.access
        try:
            identity = await self.identify(credentials_of(request, self.options.client(request)))
        except Unauthorized as error:
            raise self._challenging(error, request, action, repository) from error
        permit = Permit(identity, self.authorizer)
        if action is None:
            if identity.name != ANONYMOUS.name:
                return permit
        elif await permit.may(action, repository or None, _tag(reference)):
            source = None if identity.limit is None else _mounted_from(request, action)
            if source is None or not await permit.may_otherwise(Action.PULL, source):
                return permit
            lacking = ScopeInsufficient(detail=_wanted(Action.PULL, source))
            raise self._challenging(lacking, request, action, repository)
        elif await permit.may_otherwise(action, repository or None, _tag(reference)):
            lacking = ScopeInsufficient(detail=_wanted(action, repository))
            raise self._challenging(lacking, request, action, repository)
        if identity.name == ANONYMOUS.name:
            raise self._challenging(Unauthorized(detail=_wanted(action, repository)), request, action, repository)
        if action is Action.PULL:
            return Permit(identity, self.authorizer, hidden=True)
        raise Denied(detail=_wanted(action, repository))

    async def identify(self, credentials: Credentials) -> Identity:
        """Whose the credentials are; raises ``Unauthorized`` where they are nobody's."""
        for each in self.authenticators:
            if (identity := await each.authenticate(credentials)) is not None:
                return identity
        if credentials.token is not None:
            raise TokenInvalid
        if credentials.name is not None:
            raise Unauthorized(WRONG)
        return ANONYMOUS

    def _challenging(
        self, error: Unauthorized, request: Request, action: Action | None, repository: str
    ) -> Unauthorized:
        challenges = dict.fromkeys(each for other in self.authenticators for each in other.challenges)
        # Where clients can fetch tokens they are told of nothing else: several take the first challenge that they
        # read, and docker wants a password for Basic even where it has a refresh token.
        told = [each for each in challenges if each.scoped] or challenges
        error.challenges = [self._challenge(each, error, request, action, repository) for each in told]
        return error

    def _challenge(
        self, challenge: Challenge, error: Unauthorized, request: Request, action: Action | None, repository: str
    ) -> str:
        parameters = dict(challenge.parameters)
        for name, value in parameters.items():
            if value.startswith("/"):
                parameters[name] = self.options.address(request) + value
        if challenge.scoped and action is not None:
            parameters["scope"] = _scope(request, action, repository)
        if challenge.scoped and error.problem:
            parameters |= {"error": error.problem, "error_description": error.text.replace('"', "'")}
        said = ",".join(f'{name}="{value}"' for name, value in parameters.items())
        return f"{challenge.scheme} {said}".rstrip()


def _scope(request: Request, action: Action, repository: str) -> str:
    """What a token must be asked for; a mount also takes from another repository."""
    if not repository:
        return "registry:catalog:*"
    asked = f"repository:{repository}:{_TOKEN_ACTIONS.get(action, action)}"
    source = _mounted_from(request, action)
    return f"{asked} repository:{source}:pull" if source else asked


def _mounted_from(request: Request, action: Action) -> str | None:
    """The repository that a mount takes from, where it names one."""
    source = request.parameter("from") if action is Action.PUSH and request.method == "POST" else None
    return source if source and REPOSITORY.fullmatch(source) else None


def _covers(scope: Sequence[Grant], action: Action, repository: str | None) -> bool:
    """Whether the action is in the scope of a token."""
    for grant in scope:
        if action in grant.actions and (
            repository is None or grant.repositories == repository or matches(repository, (grant.repositories,))
        ):
            return True
    return False


def credentials_of(request: Request, address: str | None) -> Credentials:
    """What a request from ``address`` carries; raises ``Unauthorized`` where that cannot be read."""
    certificate = request.certificate
    header = request.header(b"authorization")
    if header is None:
        return Credentials(certificate=certificate, address=address)
    scheme, _, value = header.partition(" ")
    kind = scheme.lower()
    if kind == "bearer":
        return Credentials(token=value.strip(), certificate=certificate, address=address)
    if kind != "basic":
        raise Unauthorized("Authorization must be of a scheme that WWW-Authenticate names")
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Unauthorized("Authorization: Basic must be the base64 of UTF-8") from error
    if not colon:
        raise Unauthorized("Authorization: Basic must hold a name, a colon and a password")
    if not name and not password:  # some clients send this when they have no credentials
        return Credentials(certificate=certificate, address=address)
    return Credentials(name, password, certificate=certificate, address=address)


def _tag(reference: str) -> str | None:
    return reference if reference and ":" not in reference else None


def _wanted(action: Action | None, repository: str) -> dict[str, str] | None:
    wanted = {"name": repository, "action": str(action)} if repository else {"action": str(action)}
    return None if action is None else wanted
