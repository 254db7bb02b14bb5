"""Patterns of repository names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.patterns import matches
from tests.spec.test_names import REPOSITORIES


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("app", ["app"], ["apps", "my/app", "app/x", "ap"]),
        ("team-a/*", ["team-a/x", "team-a/x.y"], ["team-a", "team-a/x/y", "team-ab/x"]),
        ("team-a/**", ["team-a/x", "team-a/x/y"], ["team-a", "team-ab/x", "x/team-a/y"]),
        ("**", ["a", "a/b", "a/b/c"], []),
        ("**/app", ["app", "x/app", "x/y/app"], ["xapp", "x/myapp", "app/x"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz", "a/z/b"]),
        ("app-*", ["app-", "app-1"], ["app", "app-1/x"]),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a[bc]", [], ["ab", "ac"]),
    ],
)
def test_pattern(pattern: str, matched: list[str], others: list[str]) -> None:
    """``*`` stays within a component, ``**`` does not, everything else stands for itself."""
    assert all(matches(name, [pattern]) for name in matched)
    assert not any(matches(name, [pattern]) for name in others)


def as_expression(pattern: str) -> re.Pattern[str]:
    """The same as a regular expression, which takes too long for some patterns."""
    words = {"**/": "(?:.+/)?", "**": ".+", "*": "[^/]*"}
    return re.compile(
        "".join(words.get(part) or re.escape(part) for part in re.findall(r"\*\*/|\*\*|\*|[^*]+", pattern))
    )


@given(st.text("ab/", max_size=9), st.lists(st.sampled_from(["*", "**", "**/", "/", "a", "b", "ab"]), max_size=7))
def test_as_a_regular_expression_has_it(name: str, parts: list[str]) -> None:
    pattern = "".join(parts)
    assert matches(name, [pattern]) is bool(as_expression(pattern).fullmatch(name))


def test_many_asterisks_take_no_longer() -> None:
    """A regular expression would not come to an end."""
    assert not matches("a" * 200, ["**a" * 12 + "b"])
    assert matches("a" * 200 + "b", ["**a" * 12 + "b"])
    assert not matches("a" * 200, ["*a" * 50 + "b"])


@given(REPOSITORIES, st.lists(st.sampled_from(["*", "**", "a", "a/**", "**/a", "*/a"])))
def test_any_of_several(name: str, patterns: list[str]) -> None:
    """Several patterns match what any of them matches; a name matches itself and everything."""
    assert matches(name, patterns) is any(matches(name, [each]) for each in patterns)
    assert matches(name, [name])
    assert matches(name, ["**"])
    assert matches(name, ["*"]) is ("/" not in name)
