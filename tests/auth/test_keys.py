"""The form of API keys."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.auth.keys import digest_of_key, is_key, make_key


def test_form() -> None:
    """Each key is another, of the form that secret scanners are told."""
    made = {make_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch("moorage_[0-9A-Za-z]{49}", key) and is_key(key) for key in made)
    assert len({digest_of_key(key) for key in made}) == 1000


@given(st.integers(8, 56), st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
def test_mistyped_character(place: int, character: str) -> None:
    """One wrong character is noticed by the checksum."""
    key = make_key()
    assert is_key(key[:place] + character + key[place + 1 :]) is (key[place] == character)


@pytest.mark.parametrize("text", ["", "moorage_", "moorage_x", "sesame"])
def test_what_is_no_key(text: str) -> None:
    key = make_key()
    assert not any(is_key(each) for each in (text, key[:-1], key + "x", key + "\n", f" {key}", key.upper()))
