"""``moorage release``: tags of several repositories go live together, and back."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moorage.command_options import Limit, on_registry

if TYPE_CHECKING:
    from moorage.metadata.releases import Release, TagMoved
    from moorage.settings import Settings

_REFUSED = {403, 404, 405, 409, 412}  # the statuses of errors that are about what the registry holds
Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]

release = typer.Typer(
    help="Releases: tags of several repositories that go live together, or not at all, and back.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _refusable(command: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[int]]:
    """``command`` with 1 as its exit code where what the registry holds is against it, told change by change."""

    @wraps(command)
    async def run(*arguments: Any, **named: Any) -> int:
        from moorage.spec.errors import RegistryError  # noqa: PLC0415

        try:
            await command(*arguments, **named)
        except RegistryError as error:
            if error.status not in _REFUSED:
                raise
            lines = [", ".join(f"{key}={value}" for key, value in each.items()) for each in error.details if each]
            print(f"moorage: {error.text}", *lines, sep="\n  ", file=sys.stderr)  # noqa: T201
            return 1
        return 0

    return run


@release.command("apply")
@on_registry
@_refusable
async def apply(
    settings: "Settings",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The release in TOML or JSON; - is standard input.")],
    *,
    draft: Annotated[
        bool, typer.Option("--draft", help="Only hold its manifests, until it is published or discarded.")
    ] = False,
) -> None:
    """Let all tags of a release name what it says, or none of them; the exit code is 1 if it is refused.

    Done again with the same file, it changes nothing.
    """
    from moorage.content_commands import OPERATOR, opened  # noqa: PLC0415
    from moorage.spec.releases import parse  # noqa: PLC0415

    content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    name, wanted = parse(content, toml=not content.lstrip().startswith(b"{"))
    async with opened(settings) as registry:
        await registry.releases.make(name, wanted.changes, draft=draft or wanted.draft, actor=OPERATOR)
        _tell(*await registry.releases.get(name))


@release.command("publish")
@on_registry
@_refusable
async def publish(settings: "Settings", name: Name) -> None:
    """Let a draft go live; the exit code is 1 if it is refused."""
    from moorage.content_commands import OPERATOR, opened  # noqa: PLC0415

    async with opened(settings) as registry:
        await registry.releases.publish(name, actor=OPERATOR)
        _tell(*await registry.releases.get(name))


@release.command("discard")
@on_registry
@_refusable
async def discard(settings: "Settings", name: Name) -> None:
    """Drop a draft, which then holds nothing; the exit code is 1 if it is refused."""
    from moorage.content_commands import OPERATOR, opened, tell  # noqa: PLC0415

    async with opened(settings) as registry:
        await registry.releases.discard(name, actor=OPERATOR)
    tell(f"{name} is discarded")


@release.command("rollback")
@on_registry
@_refusable
async def rollback(
    settings: "Settings",
    name: Name,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also set tags back that name something else by now.")
    ] = False,
) -> None:
    """Let all tags of a release name again what they named before; the exit code is 1 if it is refused."""
    from moorage.content_commands import OPERATOR, opened, tell  # noqa: PLC0415

    async with opened(settings) as registry:
        kept = await registry.releases.roll_back(name, force=force, actor=OPERATOR)
        _tell(*await registry.releases.get(name))
    for each in kept:
        tell(f"stays as it is by the policy: {each.move.repository}:{each.move.tag}")


@release.command("list")
@on_registry
@_refusable
async def list_releases(
    settings: "Settings",
    *,
    limit: Limit = 50,
) -> None:
    """List the releases and drafts, the latest first."""
    from moorage.content_commands import opened  # noqa: PLC0415

    async with opened(settings) as registry:
        page = await registry.releases.list(limit)
    for each in page.items:
        _tell(each)


@release.command("show")
@on_registry
@_refusable
async def show(settings: "Settings", name: Name) -> None:
    """Show a release and what became of each of its tags; the exit code is 1 if there is none."""
    from moorage.content_commands import opened  # noqa: PLC0415

    async with opened(settings) as registry:
        _tell(*await registry.releases.get(name))


def _tell(found: "Release", changes: "Sequence[TagMoved]" = ()) -> None:
    from moorage.content_commands import moment, tell  # noqa: PLC0415

    at = found.rolled_back_at or found.released_at or found.created_at
    tell(f"{found.name}  {found.state}  {moment(at)}  by {found.actor}")
    for each in changes:
        move, expected = each.move, f", expected {each.move.expected}" if each.move.expected else ""
        before = f"{each.before} -> " if each.before else "-> "
        tell(f"  {move.repository}:{move.tag}  {before}{move.digest}{expected}")
