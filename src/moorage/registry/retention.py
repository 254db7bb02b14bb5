"""Retention: tags that no rule keeps go, and untagged manifests after their time.

The first rule that matches repository and tag decides about a tag. It keeps a tag that is among its newest, was
pushed or pulled lately, or matches ``keep``. Immutable tags stay, and so do those of signatures while what they sign
is there.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

from moorage.metadata import collection as duties
from moorage.metadata import repositories
from moorage.metadata import retention as facts
from moorage.metadata.events import Change
from moorage.metadata.retention import Removal, TagFacts
from moorage.registry.parts import Parts
from moorage.registry.policy import DAY, RetentionRule
from moorage.spec.patterns import matches
from moorage.spec.versions import precedence

ACTOR: Final = "retention"
_DUTY: Final = "retention"
_STEP: Final = 100
_PAGE: Final = 500
# The tags of signatures and referrers lists, of every client: what they describe, and perhaps a suffix.
_DESCRIBES: Final = re.compile(r"(sha256|sha512|blake3)-([a-f0-9]{64,128})(\..+)?")


class Retention:
    """What the policy's retention rules take away."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def preview(self) -> AsyncIterator[Removal]:
        """Everything that would go now; changes nothing."""
        last = ""
        while names := await repositories.page(self._parts.metadata, last, _PAGE):
            for name in names:
                async for each in self._of(name):
                    yield each
            last = names[-1]

    async def apply(self) -> int:
        """Take away now what the rules do not keep; returns how many tags and manifests went."""
        done = 0
        waiting: list[Removal] = []
        async for each in self.preview():
            waiting.append(each)
            if len(waiting) == _STEP:
                done += await self._remove(waiting)
                waiting = []
        return done + await self._remove(waiting)

    async def apply_if_due(self) -> None:
        """``apply``, unless there are no rules, it is not due, or another process is at it."""
        policy, clock = self._parts.policy, self._parts.clock
        if not policy.retention:
            return
        transact = self._parts.metadata.transact
        if await transact(duties.claim, _DUTY, clock(), policy.retention_interval) is not None:
            await self.apply()
            await transact(duties.progress, _DUTY, None, clock() + policy.retention_interval)

    async def _remove(self, removals: Sequence[Removal]) -> int:
        change = Change(self._parts.clock(), ACTOR)
        return await self._parts.metadata.transact(facts.remove, removals, change) if removals else 0

    async def _of(self, repository: str) -> AsyncIterator[Removal]:
        rules = [rule for rule in self._parts.policy.retention if matches(repository, (rule.repository,))]
        if not rules:
            return
        governed: dict[RetentionRule, list[TagFacts]] = {}
        for tag in await facts.tags_of(self._parts.metadata, repository):
            rule = next((each for each in rules if matches(tag.name, (each.tags,))), None)
            if rule is None or not rule.removes_tags or self._parts.policy.is_immutable(repository, tag.name):
                continue
            if found := _DESCRIBES.fullmatch(tag.name):
                if not await self._has(repository, f"{found[1]}:{found[2]}"):
                    yield Removal(repository, tag.name, tag.digest, tag.pushed_at, "what it describes is not there")
                continue
            governed.setdefault(rule, []).append(tag)
        now = self._parts.clock()
        for rule, tags in governed.items():
            for tag in _not_kept(rule, tags, now):
                yield Removal(repository, tag.name, tag.digest, tag.pushed_at, rule.words)
        days = next((rule.untagged_days for rule in rules if rule.untagged_days is not None), None)
        if days is not None:
            async for each in self._untagged(repository, days, now - days * DAY):
                yield each

    async def _untagged(self, repository: str, days: float, before: float) -> AsyncIterator[Removal]:
        last = 0
        while rows := await self._parts.metadata.fetch("untagged", repository, last, _PAGE):
            for _, digest, pushed_at, pulled_at, left_at in rows:
                if max(pushed_at, pulled_at or 0, left_at or 0) <= before:
                    yield Removal(repository, None, digest, pushed_at, f"without a tag for {days:g} days")
            last = rows[-1][0]

    async def _has(self, repository: str, digest: str) -> bool:
        return bool(await self._parts.metadata.fetch("describe_by_digest", repository, digest))


def _not_kept(rule: RetentionRule, tags: list[TagFacts], now: float) -> list[TagFacts]:
    """The tags that the rule does not keep, the oldest first."""
    ordered = sorted(tags, key=lambda tag: (tag.pushed_at, tag.name))
    if rule.order == "version":  # what is no version is older than any
        ordered.sort(
            key=lambda tag: (precedence(tag.name) is not None, precedence(tag.name) or ((0, 0, 0), False, ()))
        )
    older = ordered[: max(0, len(ordered) - rule.keep_newest)] if rule.keep_newest is not None else ordered
    return [tag for tag in older if not _is_kept(rule, tag, now)]


def _is_kept(rule: RetentionRule, tag: TagFacts, now: float) -> bool:
    pushed, pulled = rule.keep_pushed_days, rule.keep_pulled_days
    return (
        (pushed is not None and tag.pushed_at > now - pushed * DAY)
        or (pulled is not None and tag.pulled_at is not None and tag.pulled_at > now - pulled * DAY)
        or matches(tag.name, rule.keep)
    )
