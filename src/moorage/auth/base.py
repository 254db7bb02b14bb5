"""The two protocols of access control, and the values that go between them.

A request's ``Credentials`` are shown to one ``Authenticator`` after the other, until one says whose they are: an
``Identity``. The ``Authorizer`` says what that identity may do.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from moorage.spec.actions import Action


@dataclass(frozen=True, slots=True)
class Certificate:
    """A client's certificate that the transport has verified: the subject and the alternative names, as text.

    ``subject`` is a distinguished name (RFC 4514), ``names`` are ``DNS:…``, ``EMAIL:…``, ``URI:…``, ``IP:…``;
    ``common_name`` and ``organizations`` are the subject's.
    """

    subject: str
    names: tuple[str, ...] = ()
    common_name: str | None = None
    organizations: tuple[str, ...] = ()


@dataclass(slots=True)  # made for each request, which frozen would cost twice
class Credentials:
    """What a request carried to show who sends it. ``address`` is where it came from; it proves nothing."""

    name: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    address: str | None = None

    @property
    def given(self) -> bool:
        """Whether there is anything in it that could prove who somebody is."""
        return self.name is not None or self.token is not None or self.certificate is not None


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on the repositories that a pattern matches."""

    repositories: str
    actions: frozenset[Action]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request.

    ``method`` says how that was proved. ``local`` is whom the registry knows by itself (its users and its htpasswd
    file) rather than by what an issuer says. ``scope`` is the most that this identity may do, whatever the rules
    grant: that of a key; with ``scope_grants`` it is also granted, unless a rule denies it. It is over at
    ``expires_at`` (seconds since 1970), where that is not None.

    ``proof`` is what the authenticator that made it knows it by later (``Recalls``); it is no secret. ``limit`` is
    the scope of the token that it brought, the most that may be done with that one; the ``Authorizer`` need not look
    at it.
    """

    name: str
    groups: frozenset[str] = frozenset()
    method: str = ""
    local: bool = False
    scope: tuple[Grant, ...] | None = None
    scope_grants: bool = False
    expires_at: float | None = None
    proof: str = ""
    limit: tuple[Grant, ...] | None = None


ANONYMOUS: Final = Identity("anonymous")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and what decided that, in words for whoever asks why."""

    allowed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """What clients are told to bring (RFC 9110 section 11.3).

    A parameter that starts with ``/`` is sent as a URL of this registry. ``scoped`` challenges also say what was
    asked for, as the token flow wants it.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()
    scoped: bool = False


class Authenticator(Protocol):
    """One way to know who somebody is.

    Where it has ``__aenter__`` and ``__aexit__``, it is opened and closed with the application that uses it.
    """

    @property
    def challenges(self) -> Sequence[Challenge]:
        """What clients are told to bring for it."""

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Whose these credentials are; None where they are not of a kind that this one knows.

        Raises ``Unauthorized`` where they are, and are wrong: nobody else is asked then.
        """


@runtime_checkable
class Recalls(Protocol):
    """An authenticator that sees later whether whom it once let in is still there, without his credentials.

    So a token that was given to somebody ends with him, and a refresh token can stand for him.
    """

    @property
    def methods(self) -> Collection[str]:
        """Every ``method`` of its identities."""

    async def recall(self, identity: Identity) -> Identity | None:
        """The identity as it is now, None where it is no more.

        Of ``identity`` the name and the proof count. Where nothing has changed, an equal one or itself is returned.
        It is called for every request with a token, so it must be quick.
        """


class Authorizer(Protocol):
    """What decides who may do what."""

    async def authorize(
        self, identity: Identity, action: Action, repository: str | None, tag: str | None = None
    ) -> Decision:
        """Whether ``identity`` may do that, and why.

        ``repository`` is None where the registry as a whole is meant: may the catalog be asked at all, may it be
        managed. ``catalog`` of a repository is whether it is listed, which needs ``pull`` as well. ``tag`` is what
        the request names, where it names one. It is called several times a request.
        """
