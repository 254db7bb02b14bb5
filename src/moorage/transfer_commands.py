"""``moorage backup``, ``restore-backup`` and ``migrate``: a registry taken elsewhere while it serves."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from moorage.build import FACTS, facts_folder, metadata_of, place_of, store_of
from moorage.config import load
from moorage.metadata.base import MovableMetadata
from moorage.registry.taking_in import require_tree
from moorage.registry.transfer import Place, Transfer
from moorage.settings import Settings, SettingsError

STAGING = ".transfer"  # in the folder of the target; what a broken-off transfer leaves there, the next one removes


def described(where: Path) -> Settings:
    """What a folder or a file of settings describes; raises ``SettingsError``."""
    if where.is_file() or (where.suffix == ".toml" and not where.is_dir()):
        return load(where)
    return Settings(root=str(where))


async def transfer(source: Settings, target: Settings, *, jobs: int) -> int:
    """Take the registry of ``source`` to ``target``; 1 if something of it is damaged. Raises ``SettingsError``."""
    for settings in (source, target):
        if settings.in_memory:
            raise SettingsError(f"storage = {settings.storage!r}: allowed: whatever outlives its process")
    folder = facts_folder(source)
    if folder is not None and source.metadata == "sqlite" and not (folder / FACTS).is_file():
        raise SettingsError(f"root = {str(folder)!r}: there is no registry; allowed: a folder that holds {FACTS}")
    out, bars = Console(highlight=False, soft_wrap=True), Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=bars, disable=not bars.is_terminal) as progress:
        task = progress.add_task("bytes", total=None)
        async with AsyncExitStack() as stack:
            old = await stack.enter_async_context(_opened(source, read_only=True))
            new = await stack.enter_async_context(_opened(target, read_only=False))
            staging = await stack.enter_async_context(_staging(target))

            def told(there: int, total: int) -> None:
                progress.update(task, completed=there, total=total)

            done = await Transfer(old, new, staging, jobs=jobs, told=told).run()
    for each in done.damaged:
        out.print(f"damaged: {each}", markup=False)
    out.print(
        f"{place_of(target)} is what {place_of(source)} was: {done.copied} objects copied ({decimal(done.size)}), "
        f"{done.kept} were there",
        markup=False,
    )
    return 1 if done.damaged else 0


@asynccontextmanager
async def _opened(settings: Settings, *, read_only: bool) -> AsyncIterator[Place]:
    facts = metadata_of(settings, read_only=read_only)
    async with store_of(settings, read_only=read_only) as store, facts as metadata:
        if read_only:
            await require_tree(store, metadata)
        yield Place(store, metadata)


@asynccontextmanager
async def _staging(target: Settings) -> AsyncIterator[MovableMetadata]:
    """Facts in a file that is gone afterwards; beside the target's, where those are in a file."""
    root = facts_folder(target) if target.metadata == "sqlite" else None
    folder = root / STAGING if root is not None else Path(tempfile.mkdtemp())
    shutil.rmtree(folder, ignore_errors=True)
    try:
        async with metadata_of(Settings(root=str(folder))) as metadata:
            yield metadata
    finally:
        shutil.rmtree(folder, ignore_errors=True)
