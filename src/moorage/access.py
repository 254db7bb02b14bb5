"""The composition of access control: settings to a gate, of parts that are built in or entry points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from moorage.auth.attempts import Attempts
from moorage.auth.base import Authenticator, Authorizer
from moorage.auth.certificates import METHOD as CERTIFICATE
from moorage.auth.certificates import CertificateAuthenticator
from moorage.auth.htpasswd import Htpasswd
from moorage.auth.passwords import Passwords, PasswordSource
from moorage.auth.rules import Rule
from moorage.registry import Registry
from moorage.settings import Settings, SettingsError
from moorage.web.access import Gate
from moorage.web.admin import AdminPages
from moorage.web.options import WebOptions

AUTHENTICATORS: Final = "moorage.authenticators"
AUTHORIZERS: Final = "moorage.authorizers"
TOKENS: Final = "tokens"
ISSUERS: Final = "issuers"


@dataclass(frozen=True, slots=True)
class Known:
    """What a part is made of; ``sources`` are all that know passwords."""

    settings: Settings
    registry: Registry
    sources: Sequence[PasswordSource]


def gate_of(
    settings: Settings, options: WebOptions, authenticators: Sequence[Authenticator], authorizer: Authorizer | None
) -> Callable[[Registry], Gate] | None:
    """What makes the gate of a registry, or None where it is open to everyone. Raises ``SettingsError``."""
    sources = [_SOURCES[name](settings) for name in settings.authentication if name in _SOURCES]
    names = [name for name in settings.authentication if name not in _SOURCES]
    named = [_part("authentication", name, AUTHENTICATORS, _AUTHENTICATORS) for name in names]
    if {TOKENS, ISSUERS} & set(settings.authentication):
        token_parts()  # so that what is missing stops the start
    authorize = _part("authorization", settings.authorization, AUTHORIZERS, _AUTHORIZERS)
    if not authenticators and authorizer is None and not settings.authentication:
        return None

    def make(registry: Registry) -> Gate:
        known = Known(settings, registry, [source(registry) for source in sources])
        asked = [*authenticators, *(make_one(known) for make_one in named)]
        if known.sources:  # the last: keys and tokens also come as passwords, and are known by their form
            asked.append(Passwords(known.sources, attempts=Attempts(settings.login_delay)))
        gate = Gate(asked, authorizer or authorize(known), options)
        gate.pages |= AdminPages(gate, registry).pages()
        if TOKENS in settings.authentication:
            token_parts().open_endpoint(gate)
        return gate

    return make


def settled_rules(settings: Settings) -> list[Rule]:
    """The rules that stand in the settings."""
    return [each.rule("settings") for each in settings.rules]


def htpasswd_of(settings: Settings) -> Htpasswd:
    """The users of the htpasswd file; raises ``SettingsError``."""
    assert settings.htpasswd is not None  # noqa: S101  the settings were checked
    try:
        return Htpasswd(settings.htpasswd)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"htpasswd = {settings.htpasswd!r}: {error}; allowed: a file that can be read") from error


def _users(settings: Settings) -> Callable[[Registry], PasswordSource]:  # noqa: ARG001  the form of all sources
    return lambda registry: registry.access.passwords()


def _htpasswd(settings: Settings) -> Callable[[Registry], PasswordSource]:
    source = htpasswd_of(settings)
    return lambda _: source


def token_parts() -> Any:
    """The module that composes tokens; raises ``SettingsError`` where its libraries are missing."""
    try:
        return import_module("moorage.token_access")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tokens and issuers need {error.name}, which is missing; install moorage with the extra: moorage[tokens]"
        ) from error


def _made(make: Callable[[Settings, Registry], Authenticator], known: Known) -> Authenticator:
    return make(known.settings, known.registry)


_SOURCES: Final = {"users": _users, "htpasswd": _htpasswd}
_AUTHENTICATORS: Final[dict[str, Callable[[Known], Authenticator]]] = {
    CERTIFICATE: lambda known: CertificateAuthenticator(known.settings.tls_client_name),
    "keys": lambda known: known.registry.access.key_authenticator(known.sources),
    ISSUERS: lambda known: _made(token_parts().issuers_of, known),
    TOKENS: lambda known: _made(token_parts().tokens_of, known),
}
_AUTHORIZERS: Final[dict[str, Callable[[Known], Authorizer]]] = {
    "rules": lambda known: known.registry.access.authorizer(settled_rules(known.settings)),
}


def _part(setting: str, name: str, group: str, built_in: dict[str, Any]) -> Callable[[Known], Any]:
    """What makes the part of that name, built in or somebody else's."""
    if name in built_in:
        made: Callable[[Known], Any] = built_in[name]
        return made
    from importlib.metadata import entry_points  # noqa: PLC0415  takes time, and nothing built in needs it

    found = list(entry_points(group=group, name=name))
    if not found:
        sources = _SOURCES if group == AUTHENTICATORS else ()
        names = sorted({*built_in, *sources, *(each.name for each in entry_points(group=group))})
        raise SettingsError(f"{setting} = {name!r}: allowed: {', '.join(names)}")
    try:
        factory = found[0].load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{setting} = {name!r}: {found[0].value} cannot be loaded: {error}") from error
    return lambda known: factory(known.settings, known.registry)
