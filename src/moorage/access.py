"""The composition of access control: settings to a gate. The parts it can name are built in or entry points."""

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from moorage.auth.base import Authenticator, Authorizer
from moorage.auth.certificates import METHOD as CERTIFICATE
from moorage.auth.certificates import CertificateAuthenticator
from moorage.auth.rules import Rules
from moorage.config import Settings, SettingsError
from moorage.registry import Registry
from moorage.web.access import Gate
from moorage.web.options import WebOptions

AUTHENTICATORS: Final = "moorage.authenticators"
AUTHORIZERS: Final = "moorage.authorizers"
RULES: Final = "rules"

AuthenticatorFactory = Callable[[Settings, Registry], Authenticator]
AuthorizerFactory = Callable[[Settings, Registry], Authorizer]


def gate_of(
    settings: Settings, options: WebOptions, authenticators: Sequence[Authenticator], authorizer: Authorizer | None
) -> Callable[[Registry], Gate] | None:
    """What makes the gate of a registry, or None where it is open to everyone. Raises ``SettingsError``."""
    named = [_part("authentication", name, AUTHENTICATORS, _AUTHENTICATORS) for name in settings.authentication]
    authorize = _part("authorization", settings.authorization, AUTHORIZERS, _AUTHORIZERS)
    if not authenticators and authorizer is None and not named:
        return None

    def make(registry: Registry) -> Gate:
        asked = [*authenticators, *(factory(settings, registry) for factory in named)]
        return Gate(asked, authorizer or authorize(settings, registry), options)

    return make


def _rules(settings: Settings, registry: Registry) -> Authorizer:  # noqa: ARG001  every factory has the same form
    return Rules()


def _certificate(settings: Settings, registry: Registry) -> Authenticator:  # noqa: ARG001
    return CertificateAuthenticator(settings.tls_client_name)


_AUTHENTICATORS: Final[dict[str, AuthenticatorFactory]] = {CERTIFICATE: _certificate}
_AUTHORIZERS: Final[dict[str, AuthorizerFactory]] = {RULES: _rules}


def _part(setting: str, name: str, group: str, built_in: dict[str, Any]) -> Any:
    """The factory of that name, built in or somebody else's."""
    if name in built_in:
        return built_in[name]
    found: list[EntryPoint] = list(entry_points(group=group, name=name))
    if not found:
        names = sorted({*built_in, *(each.name for each in entry_points(group=group))})
        raise SettingsError(f"{setting} = {name!r}: allowed: {', '.join(names) or f'an entry point of {group}'}")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{setting} = {name!r}: {found[0].value} cannot be loaded: {error}") from error
