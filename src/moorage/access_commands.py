"""``moorage user``, ``moorage key`` and ``moorage access``: who there is, and what they may do."""

import getpass
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from moorage.command_options import on_registry

if TYPE_CHECKING:
    from moorage.auth.base import Identity
    from moorage.auth.passwords import PasswordSource
    from moorage.registry import Registry
    from moorage.registry.tokens import Tokens
    from moorage.settings import Settings

Groups = Annotated[list[str] | None, typer.Option("--group", "-g", metavar="GROUP", help="A group; may be repeated.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option("--password-file", metavar="FILE", help="File that holds the password; else it is asked for."),
]
Name = Annotated[str, typer.Argument(metavar="NAME")]

_DURATION: Final = re.compile(r"(\d+)([smhdwy])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_HELP: Final = {"help_option_names": ["-h", "--help"]}
_OPTIONS: Final[dict[str, Any]] = {"no_args_is_help": True, "context_settings": _HELP}

token = typer.Typer(help="The registry's own tokens: the keys that sign them, and refresh tokens.", **_OPTIONS)
user = typer.Typer(help="Users that the registry keeps, with their passwords.", **_OPTIONS)
key = typer.Typer(help="API keys, for scripts and machines.", **_OPTIONS)
access = typer.Typer(help="Rules: who may do what.", **_OPTIONS)


@user.command("add")
@on_registry
async def add_user(
    settings: "Settings",
    name: Name,
    *,
    group: Groups = None,
    password_file: PasswordFile = None,
) -> None:
    """Add a user. The password is asked for, or read from standard input where that is no terminal."""
    password = _password(password_file)
    async with _opened(settings) as registry:
        await registry.access.add_user(name, password, group or [], actor=_actor())


@user.command("passwd")
@on_registry
async def set_password(settings: "Settings", name: Name, *, password_file: PasswordFile = None) -> None:
    """Give a user another password; the old one is good for nothing from then on."""
    password = _password(password_file)
    async with _opened(settings) as registry:
        await registry.access.set_password(name, password, actor=_actor())


@user.command("groups")
@on_registry
async def set_groups(
    settings: "Settings",
    name: Name,
    groups: Annotated[list[str] | None, typer.Argument(metavar="[GROUP]...", show_default=False)] = None,
) -> None:
    """Let a user be in these groups, and in no others."""
    async with _opened(settings) as registry:
        await registry.access.set_groups(name, groups or [], actor=_actor())


@user.command("list")
@on_registry
async def list_users(settings: "Settings") -> None:
    """List the users and their groups."""
    async with _opened(settings) as registry:
        for each in await registry.access.users():
            print(each.name, *sorted(each.groups))  # noqa: T201


@user.command("remove")
@on_registry
async def remove_user(settings: "Settings", name: Name) -> None:
    """Remove a user, and the API keys that act as that user."""
    async with _opened(settings) as registry:
        await registry.access.remove_user(name, actor=_actor())


@key.command("create")
@on_registry
async def create_key(
    settings: "Settings",
    name: Name,
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN:ACTIONS", help="What it may do, like team-a/**:pull,push; may be repeated."),
    ] = None,
    acts_as: Annotated[
        str | None, typer.Option("--as", metavar="USER", help="The user whose rights it has, within its scope.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="How long it is good: a number and s, m, h, d, w or y.")
    ] = None,
) -> None:
    """Make an API key and print it. It is shown this once."""
    async with _opened(settings) as registry:
        until = None if expires is None else registry.clock() + _duration(expires)
        made = await registry.access.create_key(name, scope, acts_as=acts_as, expires_at=until, actor=_actor())
        print(made)  # noqa: T201


@key.command("list")
@on_registry
async def list_keys(settings: "Settings") -> None:
    """List the API keys: what they may do, until when, when they were last used."""
    from moorage.auth.words import write_scope  # noqa: PLC0415

    async with _opened(settings) as registry:
        for each in await registry.access.keys():
            scope = write_scope(each.scope) if each.scope is not None else []
            acts = [f"as {each.acts_as}"] if each.acts_as else []
            until = f"expires {_day(each.expires_at)}" if each.expires_at else "never expires"
            used = f"used {_day(each.used_at)}" if each.used_at else "never used"
            print("; ".join([each.name, *acts, *scope, until, used]))  # noqa: T201


@key.command("revoke")
@on_registry
async def revoke_key(settings: "Settings", name: Name) -> None:
    """Revoke an API key; it is good for nothing from then on."""
    async with _opened(settings) as registry:
        await registry.access.revoke_key(name, actor=_actor())


Who = Annotated[
    str, typer.Argument(metavar="WHO", help="Names, @groups, * (whoever is known), local or anonymous; with commas.")
]
Actions = Annotated[
    str,
    typer.Argument(
        metavar="ACTIONS", help="pull, push, create, retag, delete, catalog, admin; * is all but admin; with commas."
    ),
]
Patterns = Annotated[list[str], typer.Argument(metavar="REPOSITORIES...", help="Patterns, like 'team-a/**'.")]


@access.command()
@on_registry
async def allow(settings: "Settings", who: Who, actions: Actions, repositories: Patterns) -> None:
    """Let WHO do ACTIONS in REPOSITORIES, at once. The first rule replaces the default one."""
    await _add_rule(settings, who, actions, repositories, allow=True)


@access.command()
@on_registry
async def deny(settings: "Settings", who: Who, actions: Actions, repositories: Patterns) -> None:
    """Let WHO not do ACTIONS in REPOSITORIES, whatever other rules allow; at once."""
    await _add_rule(settings, who, actions, repositories, allow=False)


@access.command("list")
@on_registry
async def list_rules(settings: "Settings") -> None:
    """List the rules: first those of the settings, then those of the metadata by their numbers."""
    from moorage.access import settled_rules  # noqa: PLC0415
    from moorage.auth.rules import Rules  # noqa: PLC0415

    async with _opened(settings) as registry:
        rules = [*settled_rules(settings), *(await registry.access.rules()).values()]
        for each in Rules(rules).rules:
            print(each)  # noqa: T201


@access.command("remove")
@on_registry
async def remove_rule(
    settings: "Settings",
    number: Annotated[
        int, typer.Argument(min=1, max=999_999_999, metavar="NUMBER", help="The rule's number, as the list has it.")
    ],
) -> None:
    """Remove a rule of the metadata, at once."""
    async with _opened(settings) as registry:
        await registry.access.remove_rule(number, actor=_actor())


@access.command()
@on_registry
async def explain(
    settings: "Settings",
    who: Annotated[str, typer.Argument(metavar="USER", help="A user, key:NAME, anonymous, or somebody else's name.")],
    action: Annotated[str, typer.Argument(metavar="ACTION")],
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY")],
    *,
    group: Groups = None,
) -> int:
    """Say whether USER may do ACTION in REPOSITORY, and which rule decides. The exit code is 1 if not."""
    from moorage.access import settled_rules  # noqa: PLC0415
    from moorage.auth.words import read_actions  # noqa: PLC0415
    from moorage.spec.names import check_repository  # noqa: PLC0415

    async with _opened(settings) as registry:
        identity = await _identity(registry, settings, who, group or [])
        (wanted,) = read_actions([action])
        decide = registry.access.authorizer(settled_rules(settings)).authorize
        decision = await decide(identity, wanted, check_repository(repository))
        print(f"{'allowed' if decision.allowed else 'denied'}: {decision.why}")  # noqa: T201
        return 0 if decision.allowed else 1


@token.command("rotate-key")
@on_registry
async def rotate_key(
    settings: "Settings",
    *,
    now: Annotated[bool, typer.Option("--now", help="Let no token of an earlier key be good any more.")] = False,
) -> None:
    """Sign tokens with a new key; the one before verifies until its last token is over."""
    async with _opened(settings) as registry:
        print(f"key {await _tokens(settings, registry).rotate_key(at_once=now)}")  # noqa: T201


@token.command("keys")
@on_registry
async def list_signing_keys(settings: "Settings") -> None:
    """List the keys of tokens: the one that signs, and those that still verify."""
    from moorage.metadata.tokens import keys  # noqa: PLC0415

    async with _opened(settings) as registry:
        for each in await keys(registry.metadata, registry.clock()):
            until = "signs" if each.expires_at is None else f"verifies until {_day(each.expires_at)}"
            print(f"{each.kid} {each.algorithm}; made {_day(each.created_at)}; {until}")  # noqa: T201


@token.command("revoke")
@on_registry
async def revoke_refresh_tokens(settings: "Settings", name: Name) -> None:
    """Revoke every refresh token of a user: wherever NAME logged in, NAME has to log in again."""
    async with _opened(settings) as registry:
        print(f"{await _tokens(settings, registry).revoke_all_of(name)} logins revoked")  # noqa: T201


def _tokens(settings: "Settings", registry: "Registry") -> "Tokens":
    from moorage.access import token_parts  # noqa: PLC0415

    found: Tokens = token_parts().tokens_of(settings, registry)
    return found


async def _identity(registry: "Registry", settings: "Settings", who: str, groups: Sequence[str]) -> "Identity":
    """Whoever would show this name: a user, a key, nobody, or somebody whom the registry does not know."""
    from moorage.access import htpasswd_of  # noqa: PLC0415
    from moorage.auth.base import ANONYMOUS, Identity  # noqa: PLC0415
    from moorage.auth.words import KEY_IDENTITY  # noqa: PLC0415

    if who == ANONYMOUS.name:
        return ANONYMOUS
    if who.startswith(KEY_IDENTITY):
        found = {each.name: each for each in await registry.access.keys()}.get(who.removeprefix(KEY_IDENTITY))
        if found is None:
            raise ValueError(f"there is no key {who.removeprefix(KEY_IDENTITY)}")
        if found.acts_as is None:
            return Identity(who, method="key", scope=found.scope, scope_grants=True)
        owner = await _identity(registry, settings, found.acts_as, groups)
        return Identity(owner.name, owner.groups, "key", owner.local, found.scope)
    sources: list[PasswordSource] = [registry.access.passwords()]
    if settings.htpasswd:
        sources.append(htpasswd_of(settings))
    for source in sources:
        if (entry := await source.entry(who)) is not None:
            return Identity(who, entry.groups | {*groups}, source.method, local=True)
    return Identity(who, frozenset(groups), method="elsewhere")


async def _add_rule(
    settings: "Settings", who: str, actions: str, repositories: Sequence[str], *, allow: bool
) -> None:
    async with _opened(settings) as registry:
        number = await registry.access.add_rule(
            who.split(","), actions.split(","), repositories, allow=allow, actor=_actor()
        )
        print(f"rule {number}")  # noqa: T201


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[Registry]":
    from moorage.build import registry_of  # noqa: PLC0415

    if settings.in_memory:
        raise ValueError(f"storage = {settings.storage!r}: who is known is forgotten when this ends")
    async with registry_of(settings, housekeeping=False) as registry:
        yield registry


def _password(file: Path | None) -> str:
    """A password from a file, a prompt or standard input: never from the command line, which others can see."""
    if file is not None:
        return file.read_text("utf-8").rstrip("\r\n")
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ValueError("the two differ")
    return password


def _actor() -> str:
    """Whose name the events bear: the account that runs the command."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # an account without a name
        return f"command line ({os.getuid()})"


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if not found:
        raise ValueError(f"expires = {text!r}: allowed: a number and s, m, h, d, w or y, like 90d")
    return int(found[1]) * _SECONDS[found[2]]


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
