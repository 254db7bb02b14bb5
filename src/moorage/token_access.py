"""The composition of tokens: settings to parts. Imported only where they are on, since their libraries cost time."""

from moorage.auth.base import Recalls
from moorage.auth.issuers import ClaimRule, Fetch, IssuerOptions, Issuers
from moorage.fetching import Fetcher
from moorage.issuer_settings import IssuerSetting
from moorage.registry import Registry
from moorage.registry.tokens import TokenOptions, Tokens
from moorage.settings import Settings
from moorage.web.access import Gate
from moorage.web.tokens import TokenPages


def tokens_of(settings: Settings, registry: Registry) -> Tokens:
    """The registry's own tokens."""
    options = TokenOptions(
        service=settings.token_service or _host(settings.public_url) or TokenOptions().service,
        algorithm=settings.token_algorithm,
        lifetime=settings.token_lifetime,
        refresh_lifetime=settings.refresh_token_lifetime,
    )
    return Tokens(registry.metadata, options, registry.clock)


def issuers_of(settings: Settings, registry: Registry) -> Issuers:
    """Those whose tokens are taken beside the registry's own."""
    fetchers = {each.issuer: Fetcher(each.certificate_authority, each.token_file) for each in settings.issuers}

    def fetch(options: IssuerOptions) -> Fetch:
        return fetchers[options.issuer]

    return Issuers([_issuer(each) for each in settings.issuers], fetch, registry.clock)


def open_endpoint(gate: Gate) -> None:
    """Let a gate that takes the registry's own tokens give them, too."""
    for each in gate.authenticators:
        if isinstance(each, Tokens):
            each.know([other for other in gate.authenticators if isinstance(other, Recalls)])
            gate.pages |= TokenPages(gate, each).pages()


def _issuer(setting: IssuerSetting) -> IssuerOptions:
    rules = [
        ClaimRule(
            claims={name: [value] if isinstance(value, str) else value for name, value in each.claims.items()},
            identity=each.identity,
            groups=each.groups,
        )
        for each in setting.identities
    ]
    return IssuerOptions(
        issuer=setting.issuer,
        audience=setting.audience,
        keys=setting.keys,
        rules=rules,
        decides=setting.access == "token",
        realm=setting.realm,
        service=setting.service,
    )


def _host(url: str | None) -> str | None:
    return None if url is None else url.partition("://")[2].partition("/")[0]
