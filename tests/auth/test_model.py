"""A second, simple model of the rules agrees with the real ones on random cases; nothing not granted is allowed."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moorage.auth.base import ANONYMOUS, Grant, Identity
from moorage.auth.rules import Rule, Rules
from moorage.spec.actions import Action

ACTIONS = st.frozensets(st.sampled_from(list(Action)), min_size=1)
COMPONENTS = ("a", "b", "alice", "x-y")
REPOSITORIES = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.sampled_from([*COMPONENTS, "*", "**", "{user}", "x*", "*y"]), min_size=1, max_size=4).map(
    "/".join
)
WHO = st.sampled_from(["alice", "bob", "@dev", "@ops", "*", "local", "anonymous"])
RULES = st.builds(
    Rule,
    st.lists(WHO, min_size=1, max_size=2).map(tuple),
    st.lists(PATTERNS, min_size=1, max_size=2).map(tuple),
    ACTIONS,
    st.booleans(),
)
SCOPES = st.none() | st.lists(st.builds(Grant, PATTERNS.filter(lambda p: "{" not in p), ACTIONS), max_size=2).map(
    tuple
)
IDENTITIES = st.just(ANONYMOUS) | st.builds(
    Identity,
    st.sampled_from(["alice", "bob", "a", "Alice", "a/b"]),
    st.frozensets(st.sampled_from(["dev", "ops"])),
    st.just("test"),
    st.booleans(),
    SCOPES,
    st.booleans(),
)


def fits(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """Whether the components of a pattern match those of a name: every way to do so is tried."""
    if not pattern:
        return not name
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        least = 0 if rest else 1
        return any(fits(rest, name[n:]) for n in range(least, len(name) + 1))
    if not name:
        return False
    return one_fits(first, name[0]) and fits(rest, name[1:])


def one_fits(pattern: str, component: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == component
    long_enough = len(component) >= len(before) + len(after)
    return long_enough and component.startswith(before) and component.endswith(after)


def concerns(rule: Rule, who: Identity) -> bool:
    names = {who.name, *(f"@{group}" for group in who.groups)}
    if who.name != "anonymous":
        names |= {"*"} | ({"local"} if who.local else set())
    return bool(names & set(rule.who))


def covers(rule: Rule, who: Identity, repository: str) -> bool:
    for pattern in rule.repositories:
        parts = pattern.split("/")
        if "{user}" in pattern and who.name not in (*COMPONENTS, "bob"):
            continue
        if fits([part.replace("{user}", who.name) for part in parts], repository.split("/")):
            return True
    return False


def by_rules(rules: Sequence[Rule], who: Identity, action: Action, repository: str) -> bool | None:
    """What the rules say: True, False where one denies, None where none says anything."""
    if who.name == "anonymous" and action not in ("pull", "catalog"):
        return False
    said = [
        each.allow
        for each in rules
        if action in each.actions and concerns(each, who) and covers(each, who, repository)
    ]
    found = all(said) if said else None
    if action == "catalog" and found and not by_rules(rules, who, Action.PULL, repository):
        found = by_rules(rules, who, Action.PULL, repository)
    return found


def allowed(rules: Sequence[Rule], who: Identity, action: Action, repository: str) -> bool:
    found = by_rules(rules, who, action, repository)
    if who.scope is None:
        return bool(found)
    within = any(
        action in each.actions and fits(each.repositories.split("/"), repository.split("/")) for each in who.scope
    )
    if not within:
        return False
    if action == "catalog" and who.scope_grants:
        return found is not False and allowed(rules, who, Action.PULL, repository)
    return bool(found) or (found is None and who.scope_grants)


@given(st.lists(RULES, min_size=1, max_size=6), IDENTITIES, REPOSITORIES)
def test_model_agrees(rules: list[Rule], who: Identity, repository: str) -> None:
    """For every action the two say the same, whichever is asked first and however often."""
    real = Rules(rules)
    for action in [*Action, *Action]:
        assert real.decide(who, action, repository).allowed is allowed(rules, who, action, repository), action


@given(st.lists(RULES, min_size=1, max_size=6), IDENTITIES, REPOSITORIES, ACTIONS)
def test_a_denying_rule_only_takes_away(
    rules: list[Rule], who: Identity, repository: str, actions: frozenset[Action]
) -> None:
    """One more rule that denies allows nothing that was not; one more that allows undoes no denial."""
    before, after = Rules(rules), Rules([*rules, Rule((who.name,), ("**",), actions, allow=False)])
    for action in Action:
        now = after.decide(who, action, repository).allowed
        assert not (now and action in actions)
        assert before.decide(who, action, repository).allowed or not now


@given(st.lists(RULES, min_size=1, max_size=4), IDENTITIES, REPOSITORIES)
def test_order_means_nothing(rules: list[Rule], who: Identity, repository: str) -> None:
    """The rules say the same in every order."""
    orders = itertools.islice(itertools.permutations(rules), 6)
    said = {tuple(Rules(order).decide(who, action, repository).allowed for action in Action) for order in orders}
    assert len(said) == 1
