"""Digests, by image-spec's "Digests" and "Registered algorithms"."""

import contextlib
import hashlib

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.digest import ALGORITHMS, Digest, algorithm_of, compute, digest_of, fault, new_hasher
from moorage.spec.errors import DigestInvalid

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}", f"blake3:{HEX}"])
def test_registered_digest_is_parsed(text: str) -> None:
    """A digest of a registered algorithm is itself, with its two parts at hand."""
    digest = Digest.parse(text)
    assert digest == text
    assert f"{digest.algorithm}:{digest.encoded}" == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        f":{HEX}",
        f"sha256:{HEX[1:]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"sha256:{HEX[1:]}g",
        f"SHA256:{HEX}",
        f"sha512:{HEX}",
        f"blake3:{HEX}{HEX}",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256::{HEX}",
        f"sha256:{HEX}/..",
        f"sha-+256:{HEX}",
        f"sha256:{HEX[1:]}\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_malformed_digest_is_refused(text: str) -> None:
    """What is not of the grammar is DIGEST_INVALID and the detail repeats it."""
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert caught.value.details == ({"digest": text},)
    assert fault(text)


@pytest.mark.parametrize(
    "text", ["md5:d41d8cd98f00b204e9800998ecf8427e", "sha256+b64u:LCa0a2j_xo", "multihash+base58:Qm"]
)
def test_unregistered_algorithm_is_no_fault_but_unsupported(text: str) -> None:
    """A well-formed digest of another algorithm is refused with the algorithms that are allowed."""
    assert fault(text) is None
    with pytest.raises(DigestInvalid, match="unsupported digest algorithm") as caught:
        Digest.parse(text)
    assert caught.value.details[0]["allowed"] == ("sha256", "sha512", "blake3")


def test_long_digest_is_cut_in_the_error() -> None:
    """An absurdly long digest does not come back whole."""
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse("x" * 100_000)
    assert len(caught.value.details[0]["digest"]) == 512


@given(st.binary(max_size=300))
def test_computed_digests_are_those_of_the_reference(content: bytes) -> None:
    """Each algorithm gives what its reference implementation gives, and its digest parses."""
    assert compute(content) == "sha256:" + hashlib.sha256(content).hexdigest()
    assert compute(content, "sha512") == "sha512:" + hashlib.sha512(content).hexdigest()
    assert compute(content, "blake3") == "blake3:" + blake3.blake3(content).hexdigest()
    assert all(Digest.parse(compute(content, algorithm)) for algorithm in ALGORITHMS)


@given(st.lists(st.binary(max_size=50)), st.sampled_from(ALGORITHMS))
def test_running_hash_is_that_of_the_whole(parts: list[bytes], algorithm: str) -> None:
    """Content hashed in pieces has the digest of the whole."""
    hasher = new_hasher(algorithm)
    for part in parts:
        hasher.update(part)
    assert digest_of(hasher, algorithm) == compute(b"".join(parts), algorithm)


@given(st.text())
def test_parse_never_fails_otherwise(text: str) -> None:
    """Any text is a digest or DIGEST_INVALID."""
    with contextlib.suppress(DigestInvalid):
        assert Digest.parse(text) == text


def test_algorithm_of() -> None:
    """A supported algorithm is itself; any other is DIGEST_INVALID naming the allowed ones."""
    assert [algorithm_of(each) for each in ALGORITHMS] == ["sha256", "sha512", "blake3"]
    with pytest.raises(DigestInvalid) as caught:
        algorithm_of("md5")
    assert caught.value.details == ({"algorithm": "md5", "allowed": ("sha256", "sha512", "blake3")},)
