"""Who sends a request, and what he may do: the one rule for what a client sees that may not.

Without credentials, or with wrong ones, everything that was not granted to ``anonymous`` is 401. Whoever has shown
who he is finds nothing in a repository that he may not pull, as if nothing were there, and gets 403 for every change
that he may not make. Neither depends on whether the repository is there.
"""

import base64
import binascii
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Final, Self

from moorage.auth.base import ANONYMOUS, Authenticator, Authorizer, Challenge, Credentials, Identity
from moorage.spec.actions import Action
from moorage.spec.errors import Denied, Unauthorized
from moorage.spec.routes import Endpoint
from moorage.web.asgi import Request
from moorage.web.options import WebOptions

_TOKEN_ACTIONS: Final = {Action.PUSH: "pull,push", Action.CREATE: "pull,push", Action.RETAG: "pull,push"}


@dataclass(frozen=True, slots=True)
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
        return (await self.authorizer.authorize(self.identity, action, repository, tag)).allowed


OPEN: Final = Permit(ANONYMOUS)


class Gate:
    """Lets requests in. As an async context manager it opens and closes those of its parts that can be."""

    def __init__(
        self, authenticators: Sequence[Authenticator], authorizer: Authorizer, options: WebOptions | None = None
    ) -> None:
        self.authenticators = tuple(authenticators)
        self.authorizer = authorizer
        self.options = options or WebOptions()
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
            identity = await self.identify(request)
        except Unauthorized as error:
            raise self._challenging(error, request, action, repository) from error
        permit = Permit(identity, self.authorizer)
        if action is None:
            if identity.name != ANONYMOUS.name:
                return permit
        elif await permit.may(action, repository or None, _tag(reference)):
            return permit
        if identity.name == ANONYMOUS.name:
            raise self._challenging(Unauthorized(detail=_wanted(action, repository)), request, action, repository)
        if action is Action.PULL:
            return Permit(identity, self.authorizer, hidden=True)
        raise Denied(detail=_wanted(action, repository))

    async def identify(self, request: Request) -> Identity:
        """Who sends the request; raises ``Unauthorized`` where its credentials are nobody's."""
        credentials = credentials_of(request)
        for each in self.authenticators:
            if (identity := await each.authenticate(credentials)) is not None:
                return identity
        if credentials.name is not None or credentials.token is not None:
            raise Unauthorized("wrong credentials")
        return ANONYMOUS

    def _challenging(
        self, error: Unauthorized, request: Request, action: Action | None, repository: str
    ) -> Unauthorized:
        challenges = dict.fromkeys(each for other in self.authenticators for each in other.challenges)
        error.challenges = [self._challenge(each, request, action, repository) for each in challenges]
        return error

    def _challenge(self, challenge: Challenge, request: Request, action: Action | None, repository: str) -> str:
        parameters = dict(challenge.parameters)
        for name, value in parameters.items():
            if value.startswith("/"):
                parameters[name] = self.options.address(request) + value
        if challenge.scoped and action is not None:
            asked = f"repository:{repository}:{_TOKEN_ACTIONS.get(action, action)}"
            parameters["scope"] = asked if repository else "registry:catalog:*"
        said = ",".join(f'{name}="{value}"' for name, value in parameters.items())
        return f"{challenge.scheme} {said}".rstrip()


def credentials_of(request: Request) -> Credentials:
    """What a request carries; raises ``Unauthorized`` where that cannot be read."""
    address, certificate = request.client, request.certificate
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
