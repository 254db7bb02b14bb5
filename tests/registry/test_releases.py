"""Releases and the rest of the registry: what a draft holds, what a rollback finds, what stays known."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage import Registry
from moorage.errors import ManifestUnknown, RegistryError
from moorage.registry.check import check
from moorage.registry.policy import RetentionRule
from moorage.spec.errors import ReleaseUnknown
from moorage.spec.releases import ABSENT, TagMove
from tests.registry.test_collection import GRACE, Place
from tests.registry.test_history import names
from tests.support import CONFIG, digest_of, encode, image, index, pieces

DAY = 86400.0


async def passed(place: Place, days: int) -> None:
    """So many days, with what the registry does by itself on each of them."""
    for _ in range(days):
        place.now += DAY
        await place.registry.retention.apply()
        await place.registry.clean()


async def test_a_draft_holds_its_manifests() -> None:
    """Neither a retention rule nor the going of an index takes them, as long as it is there; `why` says so."""
    rule = RetentionRule(repository="a", untagged_days=1)
    async with (place := Place(retention=(rule,), cascade=True)).registry:
        staged, other, platform = [await place.image(name) for name in ("staged", "other", "platform")]
        parent = await place.put(index([platform]))
        moves = [TagMove("a", "one", staged["digest"]), TagMove("a", "two", platform["digest"])]
        await place.registry.releases.make("r", moves, draft=True)
        await place.registry.manifests.delete("a", parent["digest"])
        place.now += 2 * DAY
        assert [each.digest async for each in place.registry.retention.preview()] == [other["digest"]]
        await passed(place, 5)
        assert [await place.has(each) for each in (staged, platform, other)] == [True, True, False]
        ((holder,),) = [each.held_by for each in await place.registry.explain.why(f"a@{staged['digest']}")]
        assert (holder.kind, holder.name, holder.until) == ("release", "r", None)
        assert (await place.registry.explain.cost([f"a@{staged['digest']}"])).manifests == 1
        await place.registry.releases.publish("r")
        await passed(place, 5)
        assert [await names(place.registry, tag) for tag in ("one", "two")] == [staged["digest"], platform["digest"]]


async def test_a_draft_takes_back_what_is_to_go() -> None:
    """What collection would take soon stays from the moment when it is in a draft."""
    async with (place := Place()).registry:
        platform = await place.image("platform")
        parent = await place.put(index([platform]))
        await place.registry.manifests.delete("a", parent["digest"])
        await place.registry.releases.make("r", [TagMove("a", "t", platform["digest"])], draft=True)
        ((holder,),) = [each.held_by for each in await place.registry.explain.why(f"a@{platform['digest']}")]
        assert (holder.kind, holder.name) == ("release", "r")
        await place.later(2 * GRACE)
        assert await place.has(platform)
        assert await place.has_blob(b"platform")


async def test_a_discarded_draft_holds_nothing() -> None:
    """Its manifests are what they were: untagged, and taken by the rule for those."""
    rule = RetentionRule(repository="a", untagged_days=1)
    async with (place := Place(retention=(rule,))).registry:
        staged = await place.image("staged")
        await place.registry.releases.make("r", [TagMove("a", "t", staged["digest"])], draft=True)
        await place.registry.releases.discard("r")
        await passed(place, 5)
        assert not await place.has(staged)


async def test_what_a_draft_holds_can_be_deleted() -> None:
    """A request to delete it is obeyed; the draft is refused then, whole."""
    async with (place := Place()).registry:
        one, two = await place.image("one"), await place.image("two")
        moves = [TagMove("a", "1", one["digest"]), TagMove("a", "2", two["digest"])]
        await place.registry.releases.make("r", moves, draft=True)
        await place.registry.manifests.delete("a", two["digest"])
        with pytest.raises(ManifestUnknown):
            await place.registry.releases.publish("r")
        assert await names(place.registry, "1") is None
        assert (await place.registry.releases.get("r"))[0].state == "draft"


async def test_rollback_reaches_as_far_as_the_history() -> None:
    """What tags named before is taken by a rule and comes back, until the history forgets it; then all is refused."""
    rule = RetentionRule(repository="*", untagged_days=1)
    async with (place := Place(retention=(rule,), history_days=7)).registry:
        old = [await place.image("old", "stable", name) for name in ("a", "b")]
        new = [await place.image("new", None, name) for name in ("a", "b")]
        moves = [TagMove(name, "stable", each["digest"]) for name, each in zip(("a", "b"), new, strict=True)]
        await place.registry.releases.make("first", moves)
        await passed(place, 4)
        assert not await place.has(old[0])
        await place.registry.releases.roll_back("first")
        found = [await names(place.registry, "stable", name) for name in ("a", "b")]
        assert found == [each["digest"] for each in old]
        assert await place.has_blob(b"old", "b")
        await place.registry.releases.make("second", moves)
        await passed(place, 12)
        with pytest.raises(ManifestUnknown) as caught:
            await place.registry.releases.roll_back("second")
        assert [each["name"] for each in caught.value.details] == ["a", "b"]
        found = [await names(place.registry, "stable", name) for name in ("a", "b")]
        assert found == [each["digest"] for each in new]


async def test_all_of_a_release_has_one_moment() -> None:
    """A look at any moment finds all of its tags as they were before it, or all as they were after it."""
    async with (place := Place(history_days=7)).registry:
        old = [(await place.image("old", "stable", name))["digest"] for name in ("a", "b", "c")]
        new = [(await place.image("new", None, name))["digest"] for name in ("a", "b", "c")]
        place.now += 10
        moves = [TagMove(*each) for each in zip("abc", ["stable"] * 3, new, strict=True)]
        await place.registry.releases.make("r", moves)
        place.now += 10
        await place.registry.releases.roll_back("r")
        place.now += 10
        for seconds, expected in ((-20.1, old), (-20, new), (-10.1, new), (-10, old), (0, old)):
            past = place.registry.at(place.now + seconds)
            assert [await names(past, "stable", name) for name in "abc"] == expected


async def test_releases_are_forgotten_with_the_events() -> None:
    """And drafts are not."""
    async with (place := Place(events_days=30)).registry:
        staged = await place.image("one")
        for name, draft in (("live", False), ("draft", True)):
            await place.registry.releases.make(name, [TagMove("a", name, staged["digest"])], draft=draft)
        await passed(place, 29)
        assert len((await place.registry.releases.list()).items) == 2
        await passed(place, 2)
        assert [each.name for each in (await place.registry.releases.list()).items] == ["draft"]
        with pytest.raises(ReleaseUnknown):
            await place.registry.releases.get("live")
        assert await names(place.registry, "live") == staged["digest"]


Tag = tuple[str, str]  # its repository and its name
Wanted = dict[Tag, tuple[str, str | None]]  # what it shall name, what it must name
REPOSITORIES = ("a", "b", "c")
TAGS = ("x", "y")
CONTENTS = [encode(image(CONFIG, [], annotations={"n": str(n)})) for n in range(4)]
DIGESTS = [digest_of(each) for each in CONTENTS]
PLACES = st.tuples(st.sampled_from(REPOSITORIES), st.sampled_from(TAGS))
NAMED = st.sampled_from([*DIGESTS, ABSENT])
STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["make", "draft"]),
        st.integers(0, 5),
        st.dictionaries(PLACES, st.tuples(NAMED, st.none() | NAMED), min_size=1, max_size=6),
    ),
    st.tuples(st.sampled_from(["publish", "discard", "roll back", "force"]), st.integers(0, 5)),
    st.tuples(st.just("push"), PLACES, st.sampled_from(DIGESTS)),
    st.tuples(st.just("delete"), PLACES),
)


@dataclass
class Model:
    """What releases must do, in few words: what each tag names; each release, and what its tags named before."""

    tags: dict[Tag, str] = field(default_factory=dict)
    releases: dict[str, tuple[str, Wanted, dict[Tag, str]]] = field(default_factory=dict)

    def named(self, place: Tag) -> str:
        return self.tags.get(place, ABSENT)

    def set(self, changes: dict[Tag, str]) -> None:
        self.tags = {at: digest for at, digest in {**self.tags, **changes}.items() if digest != ABSENT}

    def make(self, name: str, changes: Wanted, *, draft: bool) -> bool:
        """Whether it is accepted."""
        state, known, _ = self.releases.get(name, ("", changes, {}))
        if state == "rolled back" or known != changes:
            return False
        if state and (draft or state == "released"):
            return True
        if not draft:
            for at, (digest, expected) in changes.items():
                if expected not in (None, self.named(at)) or ABSENT == digest == self.named(at):
                    return False
            before = {at: self.named(at) for at in changes}
            self.set({at: digest for at, (digest, _) in changes.items()})
            self.releases[name] = "released", changes, before
        else:
            self.releases[name] = "draft", changes, {}
        return True

    def roll_back(self, name: str, *, force: bool) -> bool:
        state, changes, before = self.releases.get(name, ("", {}, {}))
        if state != "released":
            return state == "rolled back"
        if not force and any(
            self.named(at) not in (digest, before[at]) for at, (digest, _) in changes.items() if digest != before[at]
        ):
            return False
        self.set({at: was for at, was in before.items() if was != changes[at][0]})
        self.releases[name] = "rolled back", changes, before
        return True


async def done(registry: Registry, model: Model, step: tuple[Any, ...]) -> None:
    """Do a step in both; they must agree whether it is accepted."""
    verb, what, *more = step
    name = f"r{what}" if isinstance(what, int) else ""
    state = model.releases.get(name, ("", {}, {}))[0]
    try:
        if verb in ("make", "draft"):
            (changes,) = more
            expected = model.make(name, changes, draft=verb == "draft")
            moves = [TagMove(at[0], at[1], digest, was) for at, (digest, was) in changes.items()]
            await registry.releases.make(name, moves, draft=verb == "draft")
        elif verb == "publish":
            expected = bool(state) and model.make(name, model.releases[name][1], draft=False)
            await registry.releases.publish(name)
        elif verb == "discard":
            expected = state == "draft" and bool(model.releases.pop(name))
            await registry.releases.discard(name)
        elif verb in ("roll back", "force"):
            expected = model.roll_back(name, force=verb == "force")
            await registry.releases.roll_back(name, force=verb == "force")
        elif verb == "push":
            expected = True
            model.set({what: more[0]})
            await registry.manifests.put(what[0], what[1], CONTENTS[DIGESTS.index(more[0])])
        else:
            expected = what in model.tags
            model.set({what: ABSENT})
            await registry.manifests.delete(*what)
    except RegistryError:
        assert not expected, step
    else:
        assert expected, step


@settings(deadline=None, max_examples=120)
@given(st.lists(STEPS, max_size=14))
def test_any_sequence(steps: list[tuple[Any, ...]]) -> None:
    """Whatever is asked for, in whatever order: each step is done whole or changes nothing, as in the model."""

    async def run() -> None:
        async with (place := Place(history_days=7)).registry:
            for name in REPOSITORIES:
                await place.registry.uploads.push(name, digest_of(CONFIG), pieces(CONFIG))
                for content, digest in zip(CONTENTS, DIGESTS, strict=True):
                    await place.registry.manifests.put(name, digest, content)
            model = Model()
            for step in steps:
                place.now += 1
                await done(place.registry, model, step)
                found = {(name, tag): await names(place.registry, tag, name) for name in REPOSITORIES for tag in TAGS}
                assert {at: digest for at, digest in found.items() if digest} == model.tags, step
                states = {each.name: each.state for each in (await place.registry.releases.list()).items}
                assert states == {name: state for name, (state, *_) in model.releases.items()}, step
            assert [each async for each in check(place.store, place.metadata, full=True)] == []

    asyncio.run(run())
