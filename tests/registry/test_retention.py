"""Retention: tags go that no rule keeps, and nothing else does."""

from typing import Any

import pytest

from moorage import Registry
from moorage.registry.policy import ImmutableTags, RetentionRule
from moorage.spec.errors import DatabaseUnavailable
from tests.registry.test_collection import GRACE, Place
from tests.support import artifact, index

DAY = 86400.0


def ruled(*rules: RetentionRule, **policy: Any) -> Place:
    return Place(retention=rules, **policy)


async def going(registry: Registry) -> list[str]:
    return sorted([each.tag or each.digest async for each in registry.retention.preview()])


async def days_of_tags(place: Place, *tags: str, repository: str = "a") -> None:
    """Push each of the tags, a day after the one before, an image each."""
    for tag in tags:
        await place.image(f"{repository} {tag}", tag, repository)
        place.now += DAY


async def test_the_newest_stay() -> None:
    """Of the tags that a rule matches the newest stay, whatever their names."""
    async with (place := ruled(RetentionRule(repository="a", tags="b*", keep_newest=2))).registry:
        await days_of_tags(place, "b9", "other", "b1", "b5", "b3")
        await days_of_tags(place, "b1", "b2", "b3", repository="elsewhere")
        assert await going(place.registry) == ["b1", "b9"]
        assert await place.registry.retention.apply() == 2
        assert (await place.registry.tags.list("a")).items == ["b3", "b5", "other"]
        assert (await place.registry.tags.list("elsewhere")).items == ["b1", "b2", "b3"]
        assert await going(place.registry) == []


async def test_any_condition_keeps() -> None:
    """A tag stays that was pushed or pulled lately, or is like one that is kept."""
    rule = RetentionRule(repository="**", keep_pushed_days=2, keep_pulled_days=3, keep=("v*", "latest"))
    async with (place := ruled(rule)).registry:
        await days_of_tags(place, "old", "v1", "latest", "pulled", "long-ago", "new")
        await place.registry.manifests.get("a", "pulled", content=False)
        await place.registry.clean()
        place.now += DAY / 2
        assert await going(place.registry) == ["long-ago", "old"]
        place.now += DAY
        assert await going(place.registry) == ["long-ago", "new", "old"]
        place.now += 2 * DAY
        assert await going(place.registry) == ["long-ago", "new", "old", "pulled"]


async def test_pulls_outlast_the_database() -> None:
    """What was pulled before the database went away is known when it is back."""
    async with (place := ruled(RetentionRule(repository="**", keep_pulled_days=3))).registry:
        await days_of_tags(place, "old", "pulled")
        await place.registry.manifests.get("a", "pulled", content=False)
        place.metadata.away = True
        with pytest.raises(DatabaseUnavailable):
            await place.registry.clean()
        place.metadata.away = False
        await place.registry.clean()
        assert await going(place.registry) == ["old"]


async def test_versions() -> None:
    """By version the highest stay, and what is no version is older than all."""
    rule = RetentionRule(repository="a", keep_newest=3, order="version")
    async with (place := ruled(rule)).registry:
        await days_of_tags(place, "v1.10.0", "v1.9.0", "v2.0.0-rc.1", "v2.0.0", "nightly", "v0.1")
        assert await going(place.registry) == ["nightly", "v0.1", "v1.9.0"]


async def test_the_first_rule_decides() -> None:
    """A tag that several rules match obeys the first; a rule without conditions keeps all that it matches."""
    rules = (
        RetentionRule(repository="a/**", tags="release-*", untagged_days=1),
        RetentionRule(repository="a/**", tags="r*", keep_newest=1),
        RetentionRule(repository="**", keep_newest=0),
    )
    async with (place := ruled(*rules)).registry:
        await days_of_tags(place, "release-1", "release-2", "r1", "r2", "x", repository="a/b")
        await days_of_tags(place, "y", repository="c")
        found = [(each.repository, each.tag) async for each in place.registry.retention.preview()]
        assert sorted(found) == [("a/b", "r1"), ("a/b", "x"), ("c", "y")]


async def test_bytes_are_freed_and_can_be_restored() -> None:
    """The manifest of a tag goes with it after the grace, with platforms and signatures, and can be restored."""
    async with (place := ruled(RetentionRule(repository="a", keep_newest=1), history_days=7)).registry:
        await place.blob(b"{}")
        child = await place.image("one")
        old = await place.put(index([child]), "old")
        await place.put(artifact(subject=old))
        place.now += DAY
        await place.image("two", "new")
        before = await place.objects()
        await place.registry.retention.apply()
        for _ in range(3):
            await place.later(GRACE)
        assert not await place.has(old)
        assert not await place.has(child)
        await place.registry.history.restore("a", "old")
        assert await place.has(child)
        await place.registry.retention.apply()
        for _ in range(3):
            await place.later(GRACE)
        await place.later(8 * DAY)
        await place.later(GRACE)
        assert await place.objects() < before
        assert not await place.has_blob(b"one", "~a")


async def test_what_else_holds_a_manifest_keeps_it() -> None:
    """A tag goes, and its manifest stays if another tag or an index holds it."""
    async with (place := ruled(RetentionRule(repository="a", tags="x*", keep_newest=0))).registry:
        held, listed = await place.image("one", "x1"), await place.image("two", "x2")
        await place.image("one", "kept")
        await place.put(index([listed]), "index")
        assert await place.registry.retention.apply() == 2
        await place.later(10 * GRACE)
        assert await place.has(held)
        assert await place.has(listed)


async def test_untagged_after_days() -> None:
    """A manifest goes so many days after its last tag left it, or it was pushed or pulled; what is held stays."""
    async with (place := ruled(RetentionRule(repository="a", untagged_days=5))).registry:
        moved, never = await place.image("moved", "v1"), await place.image("never")
        pulled = await place.image("pulled")
        child = await place.image("child")
        platforms = await place.put(index([child]), "index")
        await place.blob(b"{}")
        signature = await place.put(artifact(subject=platforms))
        place.now += 4 * DAY
        await place.image("other", "v1")
        await place.registry.manifests.get("a", pulled["digest"])
        await place.registry.clean()
        place.now += 2 * DAY
        assert await going(place.registry) == [never["digest"]]
        place.now += 3 * DAY
        assert set(await going(place.registry)) == {each["digest"] for each in (never, moved, pulled)}
        assert await place.registry.retention.apply() == 3
        await place.later(GRACE)
        found = [await place.has(each) for each in (never, moved, pulled, child, platforms, signature)]
        assert found == [False, False, False, True, True, True]


async def test_signatures_live_with_what_they_sign() -> None:
    """A signature's tag goes when what it signs is gone, and not before; immutable tags never go."""
    rule = RetentionRule(repository="a", keep=("v*",))
    async with (place := ruled(rule, immutable_tags=(ImmutableTags("a", "fixed"),))).registry:
        signed = await place.image("one", "v1")
        tag = signed["digest"].replace(":", "-") + ".sig"
        await place.image("signature", tag)
        await place.image("fixed", "fixed")
        assert await going(place.registry) == []
        await place.registry.manifests.delete("a", signed["digest"])
        assert await going(place.registry) == [tag]


async def test_tags_that_change_meanwhile_stay() -> None:
    """A tag that is pushed again between the look and the removal stays."""
    async with (place := ruled(RetentionRule(repository="a", keep_newest=0))).registry:
        await days_of_tags(place, "v1", "v2", "v3")
        seen = [each async for each in place.registry.retention.preview()]
        await place.image("a v1", "v1")
        await place.image("other", "v2")
        assert await place.registry.retention._remove(seen) == 1
        assert (await place.registry.tags.list("a")).items == ["v1", "v2"]


async def test_events_say_by_which_rule() -> None:
    """Each removal is an event with the reason."""
    async with (place := ruled(RetentionRule(repository="a", keep_newest=1, keep_pushed_days=1))).registry:
        await days_of_tags(place, "v1", "v2")
        await place.registry.retention.apply()
        (change,) = [each for each in (await place.registry.history.list("a", "v1")).items if each.after is None]
        assert (change.actor, change.reason) == ("retention", "not among the 1 newest, not pushed within 1 days")


@pytest.mark.parametrize("rules", [(), (RetentionRule(repository="a", keep_newest=1),)])
async def test_runs_by_itself(rules: tuple[RetentionRule, ...]) -> None:
    """It runs each interval, by one process at a time, and not at all without rules."""
    async with (place := ruled(*rules)).registry:
        await days_of_tags(place, "v1", "v2")
        await place.registry.retention.apply_if_due()
        assert (await place.registry.tags.list("a")).items == (["v2"] if rules else ["v1", "v2"])
        await days_of_tags(place, "v3")
        place.now -= DAY - 60
        await place.registry.retention.apply_if_due()
        assert len((await place.registry.tags.list("a")).items) == (2 if rules else 3)


async def test_a_clock_that_was_years_ahead() -> None:
    """What was done while it was is due again an interval after it is right, not in years."""
    async with (place := ruled(RetentionRule(repository="a", keep_newest=1))).registry:
        place.now += 3650 * DAY
        await place.registry.retention.apply_if_due()
        place.now -= 3650 * DAY
        await days_of_tags(place, "v1", "v2")
        await place.registry.retention.apply_if_due()
        assert (await place.registry.tags.list("a")).items == ["v2"]


async def test_pulls_are_written_in_one_go() -> None:
    """Pulling states nothing by itself; closing does, and the clean-up each minute."""
    async with (place := Place()).registry:
        await place.image("one", "v1")
        rows = await place.metadata.fetch("retention_tags", "a")
        for _ in range(3):
            await place.registry.manifests.get("a", "v1")
        assert await place.metadata.fetch("retention_tags", "a") == rows
        await place.registry.clean()
        assert (await place.metadata.fetch("retention_tags", "a"))[0][3] == place.now
