"""The commands that look after content: they open the root that a server may be serving at the same time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.filesize import decimal

from moorage.build import metadata_of, registry_of
from moorage.registry import Registry
from moorage.registry.explain import Holder, Subject
from moorage.registry.policy import MEBIBYTE
from moorage.settings import Settings, SettingsError
from moorage.spec import moments
from moorage.spec.digest import Digest

OPERATOR: Final = "operator"  # who does what is done on the command line
# How a line of `moorage why` begins, by the kind of the holder.
_WORDS: Final = {
    "blob": "blob {name}",
    "manifest": "manifest {name}",
    "tag": "held by the tag {name}",
    "index": "listed by the index {name}",
    "subject": "refers to {name}, which is there",
    "release": "held by the draft release {name}",
    "itself": "held by itself",
    "grace": "",
    "quarantine": "quarantined",
    "more": "and by more of the kind",
}
_out = Console(highlight=False, soft_wrap=True)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Registry]:
    """The registry that ``settings`` describe, which must be there already; raises ``SettingsError``."""
    if settings.in_memory:
        raise SettingsError(f"storage = {settings.storage!r}: another process cannot look into its memory")
    async with metadata_of(settings, read_only=True):
        pass  # there is one
    async with registry_of(settings, housekeeping=False) as registry:
        yield registry


def tell(line: str) -> None:
    """Print a line as it is."""
    _out.print(line, markup=False)


def moment(at: float) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


async def collect(settings: Settings, *, dry_run: bool, grace: float | None, history: float | None) -> int:
    """``moorage collect``."""
    policy = settings.policy()
    if grace is not None:
        policy = replace(policy, collect_grace=grace)
    if history is not None:
        policy = replace(policy, history_days=history)
    async with opened(settings) as registry:
        if dry_run:
            count = freed = 0
            async for each in registry.collectable(policy):
                where = f"{each.repository}@{each.digest}" if each.repository else each.digest
                tell(
                    f"would go: {each.kind} {where} ({decimal(each.size)}), since {moment(each.since)}: {each.reason}"
                )
                count, freed = count + 1, freed + each.size
            tell(f"{count} would go, {decimal(freed)} would be free")
            return 0
        with _out.status("looking at everything") as status:
            swept = await registry.collect(policy, progress=lambda made: status.update(f"looking at {made}"))
        went = swept.collected
        tell(
            f"{went.manifests} manifests, {went.links} blobs of repositories, the bytes of {went.blobs} blobs, "
            f"{swept.uploads} upload sessions and {swept.unnamed} files that no fact named are gone"
        )
        return 0


async def why(settings: Settings, reference: str) -> int:
    """``moorage why``."""
    subject = Subject.parse(reference)
    if subject.tag is None and subject.digest is None:
        raise SettingsError(f"{reference}: allowed: DIGEST, REPOSITORY:TAG, REPOSITORY@DIGEST")
    async with opened(settings) as registry:
        found = await registry.explain.why(subject)
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


async def history(settings: Settings, reference: str, limit: int) -> int:
    """``moorage history``."""
    subject = Subject.parse(reference)
    if subject.repository is None or subject.digest is not None:
        raise SettingsError(f"{reference}: allowed: REPOSITORY or REPOSITORY:TAG")
    async with opened(settings) as registry:
        page = await registry.history.list(subject.repository, subject.tag, limit)
    for each in page.items:
        change = f"{each.before or 'nothing'} -> {each.after or 'nothing'}"
        reason = f" ({each.reason})" if each.reason else ""
        tell(f"{moment(each.at)}  {each.tag}  {change}  by {each.actor}{reason}")
    return 0


async def restore(settings: Settings, reference: str) -> int:
    """``moorage restore``."""
    name, _, to = reference.partition("@")
    subject = Subject.parse(name)
    if subject.repository is None or subject.tag is None:
        raise SettingsError(f"{reference}: allowed: REPOSITORY:TAG, REPOSITORY:TAG@DIGEST, REPOSITORY:TAG@MOMENT")
    wanted: Digest | float | None = None
    if to:
        try:
            wanted = Digest.parse(to) if to[:1].isalpha() and ":" in to else moments.parse(to)
        except ValueError as error:
            raise SettingsError(
                f"{reference}: {error}; allowed after the @: a digest, or like 2026-08-01T09:30"
            ) from error
    async with opened(settings) as registry:
        digest = await registry.history.restore(subject.repository, subject.tag, wanted, actor=OPERATOR)
    tell(f"{subject.repository}:{subject.tag} names {digest}")
    return 0


async def retention(settings: Settings, *, apply: bool) -> int:
    """``moorage retention``."""
    async with opened(settings) as registry:
        if apply:
            tell(f"{await registry.retention.apply()} tags and untagged manifests are gone")
            return 0
        going: list[Subject] = []
        async for each in registry.retention.preview():
            name = f"{each.repository}:{each.tag}" if each.tag else f"{each.repository}@{each.digest}"
            tell(f"would go: {name}, pushed {moment(each.pushed_at)}: {each.reason}")
            going.append(Subject(each.repository, each.tag, None if each.tag else Digest(each.digest)))
        found = await registry.explain.cost(going)
    tell(f"{len(going)} would go, and {decimal(found.freed)} would be free in the end")
    return 0


async def quota(settings: Settings, *, recount: bool) -> int:
    """``moorage quota``."""
    async with opened(settings) as registry:
        if recount:
            await registry.quotas.recount()
        quotas = await registry.quotas.list()
    width = max((len(each.pattern) for each in quotas), default=0)
    for each in quotas:
        for of, used, allowed in zip(each.used._fields, each.used, each.allowed, strict=True):
            in_words = decimal if of == "bytes" else str
            most = "" if allowed is None else f" of {in_words(allowed)}"
            share = f", {100 * used / allowed:.1f} %" if allowed else ""
            tell(f"{each.pattern:{width}}  {of:12}  {in_words(used)}{most}{share}")
        if not each.counted:
            tell(f"{each.pattern:{width}}  is still being counted")
    if not quotas:
        tell("there are no quotas")
    return 0


async def scrub(settings: Settings, rate: float | None) -> int:
    """``moorage scrub``."""
    async with opened(settings) as registry:
        with _out.status("reading every blob"):
            found = await registry.scrub(None if rate is None else rate * MEBIBYTE)
        last, damaged = "", 0
        while page := await registry.quarantined(last):
            for each in page:
                tell(f"quarantined: {each.digest} ({decimal(each.size)}), since {moment(each.since)}: {each.reason}")
            last, damaged = page[-1].digest, damaged + len(page)
    tell(f"{found.blobs} blobs read, {decimal(found.size)}; {found.quarantined} found damaged now, {damaged} in all")
    return 1 if damaged else 0
