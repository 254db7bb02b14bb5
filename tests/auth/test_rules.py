"""Who may do what, by rules."""

import pytest

from moorage.auth.base import ANONYMOUS, Grant, Identity
from moorage.auth.rules import DEFAULT, Rule, Rules
from moorage.spec.actions import Action

EVERY = frozenset(Action)
PULL = frozenset({Action.PULL})
ALICE = Identity("alice", frozenset({"dev"}), "htpasswd", local=True)
GUEST = Identity("guest", method="issuer")


def rule(who: str, repositories: str, *actions: Action, allow: bool = True) -> Rule:
    return Rule(tuple(who.split()), tuple(repositories.split()), frozenset(actions) or EVERY, allow)


def may(rules: list[Rule], identity: Identity, action: Action, repository: str | None) -> bool:
    return Rules(rules).decide(identity, action, repository).allowed


@pytest.mark.parametrize(
    ("who", "identity", "concerned"),
    [
        ("alice", ALICE, True),
        ("bob alice", ALICE, True),
        ("bob", ALICE, False),
        ("dev", ALICE, False),
        ("@dev", ALICE, True),
        ("@ops", ALICE, False),
        ("@alice", ALICE, False),
        ("*", ALICE, True),
        ("*", GUEST, True),
        ("local", ALICE, True),
        ("local", GUEST, False),
        ("*", ANONYMOUS, False),
        ("local", ANONYMOUS, False),
        ("anonymous", ANONYMOUS, True),
        ("anonymous", ALICE, False),
    ],
)
def test_who(who: str, identity: Identity, concerned: bool) -> None:
    """A rule is about those that it names, and nobody else."""
    assert may([rule(who, "**")], identity, Action.PULL, "a/b") is concerned


@pytest.mark.parametrize(
    ("name", "repository", "expected"),
    [
        ("alice", "alice/app", True),
        ("alice", "alice/a/b", True),
        ("alice", "alice", False),
        ("alice", "alice2/app", False),
        ("alice", "bob/app", False),
        (".*", "bob/app", False),
        ("**", "bob/app", False),
        ("bob/x", "bob/x/y", False),
        ("", "/app", False),
        ("Alice", "alice/app", False),
    ],
)
def test_own_repositories(name: str, repository: str, expected: bool) -> None:
    """``{user}`` is the name of whoever asks, if it can be a component, and never a pattern of its own."""
    assert may([rule("*", "{user}/**")], Identity(name, method="x"), Action.PULL, repository) is expected


def test_deny_wins_wherever_it_stands() -> None:
    """A rule that denies wins over every one that allows, whatever the order."""
    rules = [rule("alice", "**"), rule("@dev", "secret/**", Action.PULL, allow=False)]
    for each in (rules, rules[::-1]):
        assert not may(each, ALICE, Action.PULL, "secret/app")
        assert may(each, ALICE, Action.PUSH, "secret/app")
        assert may(each, ALICE, Action.PULL, "app")


def test_default() -> None:
    """Without a rule whom the registry knows by itself may do all but manage it; nobody else may do anything."""
    for action in Action:
        assert may([], ALICE, action, "a/b") is (action is not Action.ADMIN)
        assert not may([], GUEST, action, "a/b")
        assert not may([], ANONYMOUS, action, "a/b")
    assert not may([], ALICE, Action.ADMIN, None)


def test_any_rule_replaces_the_default() -> None:
    """One rule about somebody else, and the default is gone."""
    assert not may([rule("bob", "**")], ALICE, Action.PULL, "a")
    assert may([DEFAULT, rule("bob", "**")], ALICE, Action.PULL, "a")


def test_anonymous_pulls_at_most() -> None:
    """Whatever the rules say, nobody pushes, deletes or manages without showing who he is."""
    for action in Action:
        allowed = action in (Action.PULL, Action.CATALOG)
        assert may([rule("anonymous", "**")], ANONYMOUS, action, "a") is allowed


def test_catalog_lists_what_may_be_pulled() -> None:
    """A repository is listed to whom both were granted; the catalog is there for whoever finds something in it."""
    rules = [rule("alice", "a/**", Action.PULL, Action.CATALOG), rule("alice", "b/**", Action.CATALOG)]
    assert may(rules, ALICE, Action.CATALOG, "a/x")
    assert not may(rules, ALICE, Action.CATALOG, "b/x")
    assert may(rules, ALICE, Action.CATALOG, None)
    assert not may(rules, GUEST, Action.CATALOG, None)
    assert not may([*rules, rule("alice", "**", Action.CATALOG, allow=False)], ALICE, Action.CATALOG, None)
    assert may([*rules, rule("alice", "a/**", Action.CATALOG, allow=False)], ALICE, Action.CATALOG, None)


def test_managing_needs_a_rule_about_everything() -> None:
    """Who manages some repositories does not manage the registry."""
    assert not may([rule("alice", "a/**", Action.ADMIN)], ALICE, Action.ADMIN, None)
    assert may([rule("alice", "**", Action.ADMIN)], ALICE, Action.ADMIN, None)


def test_scope_limits() -> None:
    """What a token or a key may do is what it says and what the rules say."""
    scoped = Identity("alice", method="token", scope=(Grant("a/**", frozenset({Action.PULL, Action.PUSH})),))
    rules = [rule("alice", "**", Action.PULL, Action.DELETE)]
    assert may(rules, scoped, Action.PULL, "a/x")
    assert not may(rules, scoped, Action.PUSH, "a/x")
    assert not may(rules, scoped, Action.DELETE, "a/x")
    assert not may(rules, scoped, Action.PULL, "b/x")
    assert not may(rules, scoped, Action.CATALOG, None)


def test_scope_that_grants() -> None:
    """Where the scope grants by itself no rule is needed, and one that denies still wins."""
    robot = Identity(
        "ci", method="key", scope=(Grant("a/**", PULL), Grant("**", frozenset({Action.CATALOG}))), scope_grants=True
    )
    assert may([], robot, Action.PULL, "a/x")
    assert not may([], robot, Action.PUSH, "a/x")
    assert not may([], robot, Action.PULL, "b/x")
    assert may([], robot, Action.CATALOG, None)
    assert may([], robot, Action.CATALOG, "a/x")
    assert not may([], robot, Action.CATALOG, "b/x")
    assert not may([rule("ci", "a/x", allow=False)], robot, Action.PULL, "a/x")


def test_catalog_token_lists_what_the_rules_let_pull() -> None:
    """A token for the catalog alone names no repository; the rules say which are listed."""
    token = Identity("alice", method="token", scope=(Grant("**", frozenset({Action.CATALOG})),))
    rules = [rule("alice", "a/**", Action.PULL, Action.CATALOG)]
    assert may(rules, token, Action.CATALOG, "a/x")
    assert not may(rules, token, Action.CATALOG, "b/x")
    assert not may(rules, token, Action.PULL, "a/x")


def test_why() -> None:
    """A decision names the rule that made it."""
    allowing = Rule(("@dev",), ("team-a/**",), frozenset({Action.PUSH, Action.PULL}), source="settings")
    denying = Rule(("alice",), ("team-a/x",), PULL, allow=False, source="metadata 7")
    rules = Rules([allowing, denying])
    assert rules.decide(ALICE, Action.PUSH, "team-a/x").why == "allow @dev pull,push team-a/** (settings)"
    assert rules.decide(ALICE, Action.PULL, "team-a/x").why == "deny alice pull team-a/x (metadata 7)"
    assert rules.decide(ALICE, Action.DELETE, "team-a/x").why == "no rule allows it"
    assert rules.decide(ANONYMOUS, Action.DELETE, "team-a/x").why == "anonymous may pull and list at most"
    scoped = Identity("alice", frozenset({"dev"}), "key", scope=(Grant("b", PULL),))
    assert rules.decide(scoped, Action.PUSH, "team-a/x").why == "outside the scope of the key"


def test_remembered_decisions_are_bounded_and_right() -> None:
    """However many are asked for, each answer is the right one, and memory does not grow."""
    rules = Rules([rule("*", "{user}/**", Action.PULL)])
    for n in range(25_000):
        name = f"u{n % 5}"
        assert rules.decide(Identity(name, method="x"), Action.PULL, f"u{n % 7}/{n}").allowed is (n % 5 == n % 7)
    assert len(rules._known) <= 20_000
