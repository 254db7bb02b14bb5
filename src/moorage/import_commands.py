"""``moorage import``, ``adopt`` and ``export``: content from other registries and programs, and for them."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from moorage.build import registry_of, tree_of
from moorage.content_commands import opened, tell
from moorage.registry.adoption import Adoption
from moorage.registry.explain import Subject
from moorage.registry.exports import Export
from moorage.registry.imports import Import, Imported
from moorage.registry.policy import MEBIBYTE
from moorage.registry.taking_in import TakenIn
from moorage.settings import Settings, SettingsError, in_bucket
from moorage.storage.trees import FolderTree


async def import_(settings: Settings, source: str, *, name: str | None, jobs: int, dry_run: bool) -> int:
    """``moorage import``; 1 if something did not come. Raises ``SettingsError``."""
    if settings.in_memory:
        raise SettingsError(f"storage = {settings.storage!r}: allowed: whatever outlives its process")
    bar = Console(stderr=True)
    async with tree_of(settings, source) as tree, registry_of(settings, housekeeping=False) as registry:
        with bar.status("looking") as status:

            def told(so_far: Imported) -> None:
                if bar.is_terminal:
                    status.update(escape(_line(so_far)))

            done = await Import(registry, tree, name=name, jobs=jobs, dry_run=dry_run, told=told).run()
    for each in done.problems:
        tell(f"left out: {each}")
    tell(("would be imported: " if dry_run else "") + _line(done))
    return 1 if done.problems else 0


async def adopt(settings: Settings, source: str | None, *, finish: bool, rate: float | None, jobs: int) -> int:
    """``moorage adopt``; 1 if something did not come or is damaged. Raises ``SettingsError``."""
    settings = msgspec.structs.replace(settings, adopt=source or settings.adopt)
    place = settings.adopt
    if place is None:
        raise SettingsError("adopt is not set; allowed: a storage tree of distribution, here or on the command line")
    if settings.in_memory:
        raise SettingsError(f"storage = {settings.storage!r}: allowed: whatever outlives its process")
    place = _absolute(place)
    bar = Console(stderr=True)
    async with (
        tree_of(settings, place, "adopt") as tree,
        registry_of(settings, housekeeping=False) as registry,
    ):
        with bar.status("looking") as status:

            def told(so_far: Imported | TakenIn) -> None:
                if bar.is_terminal:
                    status.update(escape(_taken_in(so_far) if isinstance(so_far, TakenIn) else _line(so_far)))

            if finish:
                taken = await registry.take_in(rate and rate * MEBIBYTE, jobs=jobs, told=told)
                tell(_taken_in(taken))
                return 1 if taken.damaged else 0
            done = await Adoption(registry, tree, place, jobs=jobs, told=told).run()
    for each in done.problems:
        tell(f"left out: {each}")
    tell(_line(done, "in the tree"))
    tell(f"adopt = {place!r} is what a server of this root needs, until `moorage adopt --finish` took in the bytes")
    return 1 if done.problems else 0


def _absolute(place: str) -> str:
    """The place of a tree as it is understood wherever a server starts."""
    return place if in_bucket(place) else str(Path(place).expanduser().resolve())


def _taken_in(done: TakenIn) -> str:
    return f"{done.blobs} blobs taken in ({decimal(done.size)}), {done.damaged} damaged"


def _line(done: Imported, where: str = "read") -> str:
    return (
        f"{done.repositories} repositories: {done.manifests} manifests, {done.tags} tags, {done.blobs} blobs {where} "
        f"({decimal(done.size)}), {done.mounted} mounted; {done.kept} were there, {len(done.problems)} left out"
    )


async def export(settings: Settings, references: list[str], folder: Path) -> int:
    """``moorage export``; 1 if something of it is damaged. Raises ``SettingsError``."""
    subjects = [Subject.parse(each) for each in references]
    for reference, subject in zip(references, subjects, strict=True):
        if subject.repository is None:
            raise SettingsError(f"{reference}: allowed: REPOSITORY, REPOSITORY:TAG, REPOSITORY@DIGEST")
    bar = Console(stderr=True)
    async with opened(settings) as registry:
        with bar.status(f"writing {escape(str(folder))}"):
            done = await Export(registry, FolderTree(folder), subjects).run()
    for each in done.problems:
        tell(f"left out: {each}")
    tell(
        f"{folder}: {done.manifests} manifests and {done.blobs} blobs written ({decimal(done.size)}), "
        f"{done.kept} were there"
    )
    return 1 if done.problems else 0
