"""Repository names, tags, references and fallback tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.digest import Digest
from moorage.spec.errors import DigestInvalid, ManifestUnknown, NameInvalid, TagInvalid
from moorage.spec.names import (
    REPOSITORY,
    check_repository,
    check_tag,
    fallback_subject_prefix,
    fallback_tag,
    parse_reference,
)

A64 = "a" * 64


@pytest.mark.parametrize(
    "name", ["a", "0", "a/b", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d", "blobs", "a/blobs/uploads", "a" * 255]
)
def test_repository_name(name: str) -> None:
    """What the specification's expression matches is a repository name."""
    assert check_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "a/", "/a", "a//b", "A", "a.", ".a", "-a", "a-", "a..b", "a___b", "a_.b", "a b", "a%b", "a\n", "ä",
        "..", "a/../b", "a/.", "a:b", "a@b", "_catalog", "a" * 256, "a/" * 127 + "aa",
    ],
)  # fmt: skip
def test_malformed_repository_name(name: str) -> None:
    """Anything else is NAME_INVALID with what is allowed."""
    with pytest.raises(NameInvalid) as caught:
        check_repository(name)
    assert caught.value.details[0]["name"] == name
    assert REPOSITORY.pattern in caught.value.details[0]["allowed"]


@pytest.mark.parametrize("tag", ["a", "A", "0", "_", "a.b", "a-b", "__", "latest", "1.2.3-rc.1", "x" * 128])
def test_tag(tag: str) -> None:
    """What the specification's expression matches is a tag, and as a reference too."""
    assert check_tag(tag) == tag
    assert parse_reference(tag) == (tag, None)


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a b", "a+b", "a/b", "a\n", "ä", "x" * 129, "\N{DIGIT ONE}\u0661"])
def test_malformed_tag(tag: str) -> None:
    """Anything else is TagInvalid where it is pushed, and names nothing (404) where it is asked for."""
    with pytest.raises(TagInvalid):
        check_tag(tag)
    with pytest.raises(ManifestUnknown):
        parse_reference(tag)


def test_reference_with_a_colon_is_a_digest() -> None:
    """A colon makes a reference a digest, which must be right."""
    assert parse_reference(f"sha256:{A64}") == (None, Digest(f"sha256:{A64}"))
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:a")


# The last row of the specification's table.
LONG = (
    "test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:"
    "alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation"
)
LONG_TAG = "test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot"


@pytest.mark.parametrize(
    ("digest", "tag"),
    [(f"sha256:{A64}", f"sha256-{A64}"), (f"sha512:{A64}{A64}", f"sha512-{A64}"), (LONG, LONG_TAG)],
)
def test_fallback_tag(digest: str, tag: str) -> None:
    """The table of "Referrers Tag Schema", row by row; each is a tag."""
    assert fallback_tag(digest) == tag
    assert check_tag(tag) == tag


def test_fallback_subject_prefix() -> None:
    """A fallback tag tells how its subject's digest starts; other tags tell nothing."""
    assert fallback_subject_prefix(f"sha256-{A64}") == f"sha256:{A64}"
    assert fallback_subject_prefix(f"sha512-{A64}") == f"sha512:{A64}"
    for tag in ("latest", "sha256", f"sha256-{A64}.sig", f"sha256-{A64[1:]}", f"md5-{A64}", f"sha256-{A64.upper()}"):
        assert fallback_subject_prefix(tag) is None


WORD = st.text("az09", min_size=1, max_size=4)
COMPONENT = st.lists(st.tuples(WORD, st.sampled_from([".", "_", "__", "-", "---"])), min_size=1, max_size=3).map(
    lambda parts: "".join(word + separator for word, separator in parts).rstrip("._-")
)
REPOSITORIES = st.lists(
    COMPONENT | st.sampled_from(["blobs", "uploads", "manifests", "tags", "list", "referrers"]),
    min_size=1,
    max_size=6,
).map("/".join)


@given(REPOSITORIES)
def test_every_name_of_the_expression_is_taken(name: str) -> None:
    """The expression and the length are the whole rule."""
    assert REPOSITORY.fullmatch(name)
    assert check_repository(name) == name
