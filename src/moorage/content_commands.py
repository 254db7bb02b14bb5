"""The commands that look after content: they open the root that a server may be serving at the same time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from rich.console import Console
from rich.filesize import decimal

from moorage.build import FACTS, registry_of, storage_folder
from moorage.config import Settings, SettingsError
from moorage.registry import Registry

_out = Console(highlight=False, soft_wrap=True)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Registry]:
    """The registry that ``settings`` describe, which must be there already; raises ``SettingsError``."""
    folder = storage_folder(settings)
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
