"""The commands that look after content: they open the root that a server may be serving at the same time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.filesize import decimal

from moorage.build import FACTS, facts_folder, registry_of
from moorage.config import Settings, SettingsError
from moorage.registry import Registry
from moorage.registry.explain import Holder

# How a line of `moorage why` begins, by the kind of the holder.
_WORDS: Final = {
    "blob": "blob {name}",
    "manifest": "manifest {name}",
    "tag": "held by the tag {name}",
    "index": "listed by the index {name}",
    "subject": "refers to {name}, which is there",
    "itself": "held by itself",
    "grace": "",
    "more": "and by more of the kind",
}
_out = Console(highlight=False, soft_wrap=True)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Registry]:
    """The registry that ``settings`` describe, which must be there already; raises ``SettingsError``."""
    folder = facts_folder(settings)
    if folder is None:
        raise SettingsError(f"storage = {settings.storage!r}: another process cannot look into its memory")
    if not (folder / FACTS).is_file():
        raise SettingsError(f"root = {str(folder)!r}: there is no registry; allowed: a folder that holds {FACTS}")
    async with registry_of(settings, housekeeping=False) as registry:
        yield registry


def tell(line: str) -> None:
    """Print a line as it is."""
    _out.print(line, markup=False)


def moment(at: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


async def collect(settings: Settings, *, dry_run: bool, grace: float | None) -> int:
    """``moorage collect``."""
    async with opened(settings) as registry:
        if dry_run:
            count = freed = 0
            async for each in registry.collectable(grace):
                where = f"{each.repository}@{each.digest}" if each.repository else each.digest
                tell(
                    f"would go: {each.kind} {where} ({decimal(each.size)}), since {moment(each.since)}: {each.reason}"
                )
                count, freed = count + 1, freed + each.size
            tell(f"{count} would go, {decimal(freed)} would be free")
            return 0
        with _out.status("looking at everything") as status:
            swept = await registry.collect(grace, progress=lambda made: status.update(f"looking at {made}"))
        went = swept.collected
        tell(
            f"{went.manifests} manifests, {went.links} blobs of repositories, the bytes of {went.blobs} blobs, "
            f"{swept.uploads} upload sessions and {swept.unnamed} files that no fact named are gone"
        )
        return 0


async def why(settings: Settings, reference: str) -> int:
    """``moorage why``."""
    async with opened(settings) as registry:
        found = await registry.explain.why(reference)
        for each in found:
            _tell_holder(each, 0)
        if not found:
            tell(f"{reference} is nowhere")
        return 0 if found else 1


def _tell_holder(holder: Holder, depth: int) -> None:
    words = _WORDS.get(holder.kind, f"{holder.kind} of {{name}}").format(name=holder.name)
    reason = f": {holder.reason}" if holder.reason else ""
    since = f", since {moment(holder.since)}" if holder.since is not None else ""
    until = f"goes at {moment(holder.until)} at the earliest" if holder.until is not None else ""
    tell("  " * depth + (words or until) + since + reason)
    for each in holder.held_by:
        _tell_holder(each, depth + 1)


async def cost(settings: Settings, references: list[str]) -> int:
    """``moorage cost``."""
    async with opened(settings) as registry:
        found = await registry.explain.cost(references)
    tell(
        f"{decimal(found.freed)} would be free: {found.manifests} manifests and {found.blobs} blobs; "
        f"{decimal(found.kept)} of their blobs stay, since something else references them"
    )
    return 0
