"""``moorage check``: a progress bar, a list of what is wrong, an exit code."""

from contextlib import AsyncExitStack

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn

from moorage.build import metadata_of, place_of, store_of
from moorage.registry.check import check, count, orphans
from moorage.registry.taking_in import require_tree
from moorage.settings import Settings, SettingsError


async def check_root(settings: Settings, *, full: bool) -> int:
    """Check the registry that ``settings`` describe; 0 if all is well, 1 if not. Raises ``SettingsError``."""
    if settings.in_memory:
        raise SettingsError(f"storage = {settings.storage!r}: allowed for a check: whatever outlives its process")
    out, bars = Console(highlight=False, soft_wrap=True), Console(stderr=True)
    problems = 0
    async with AsyncExitStack() as stack:
        metadata = await stack.enter_async_context(metadata_of(settings, read_only=True))
        store = await stack.enter_async_context(store_of(settings, read_only=True))
        await require_tree(store, metadata)
        total = await count(metadata)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn())
        with Progress(*columns, console=bars, disable=not bars.is_terminal) as progress:
            tasks = {
                "manifests": progress.add_task("manifests", total=total.manifests),
                "blobs": progress.add_task("blobs", total=total.blobs),
            }
            async for problem in check(
                store,
                metadata,
                not_needed=settings.policy().not_needed(),
                full=full,
                progress=lambda what, n: progress.advance(tasks[what], n),
            ):
                problems += 1
                out.print(f"wrong: {problem.rule}: {problem.what}", markup=False)
        lost = [key async for key in orphans(store, metadata)]
    out.print(
        f"{place_of(settings)}: {total.repositories} repositories, {total.tags} tags, {total.manifests} manifests, "
        f"{total.blobs} blobs, {total.uploads} uploads"
    )
    if lost:
        out.print(f"{len(lost)} objects that no fact names (an interrupted write leaves them; they do no harm)")
    out.print("nothing is wrong" if not problems else f"{problems} things are wrong")
    return 1 if problems else 0
