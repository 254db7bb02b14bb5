"""The order of versions."""

import random

import pytest

from moorage.spec.versions import precedence

# Semantic versioning 2.0.0, section 11, and what tags add to it.
ORDERED = [
    "0.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "v1.0.1",
    "1.2",
    "v1.10",
    "2",
    "10.0.0",
]


def test_order() -> None:
    """Numbers count as numbers, a prerelease comes before its release."""
    shuffled = random.Random(1).sample(ORDERED, len(ORDERED))
    assert sorted(shuffled, key=lambda tag: precedence(tag) or ((0, 0, 0), False, ())) == ORDERED


@pytest.mark.parametrize("tag", ["latest", "1.02.3", "1.2.3.4", "v", "1.2.3-", "1.2.3-a..b", "sha-1234", "01"])
def test_what_is_no_version(tag: str) -> None:
    """Anything else has no place in the order."""
    assert precedence(tag) is None


def test_equal_versions() -> None:
    """What is written otherwise but means the same is equal."""
    assert precedence("v1.2") == precedence("1.2.0")
