"""Ranges, entity tags, links and warnings."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.spec.errors import BlobUploadInvalid, RangeInvalid
from moorage.spec.headers import (
    WARNINGS_LONGEST,
    byte_ranges,
    content_range,
    entity_tags,
    next_link,
    warnings,
    weak_entity_tags,
)


@pytest.mark.parametrize(
    ("header", "span"), [("0-0", (0, 1)), ("0-9", (0, 10)), ("10-10", (10, 11)), ("007-8", (7, 9))]
)
def test_content_range(header: str, span: tuple[int, int]) -> None:
    """A chunk's range is inclusive on both ends."""
    assert content_range(header) == span


@pytest.mark.parametrize(
    "header", ["", "-", "0-", "-9", "9-0", "bytes 0-9", "bytes=0-9", "0-9/10", "a-b", "0-9 ", "\u0660-\u0669"]
)
def test_malformed_content_range(header: str) -> None:
    """Anything but ``<first>-<last>`` is BLOB_UPLOAD_INVALID, as is a range that ends before it starts."""
    with pytest.raises(BlobUploadInvalid) as caught:
        content_range(header)
    assert caught.value.details[0]["Content-Range"] == header


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-9", [(0, 10)]),
        ("bytes=0-99", [(0, 10)]),
        ("bytes=3-", [(3, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("Bytes = 2-4", [(2, 5)]),
        ("bytes=0-1,4-5", [(0, 2), (4, 6)]),
        ("bytes=4-5, 0-1", [(4, 6), (0, 2)]),
        ("bytes=0-1,,4-5,", [(0, 2), (4, 6)]),
        ("bytes=0-1,20-", [(0, 2)]),
        ("items=0-1", None),
        ("0-1", None),
        ("", None),
        ("bytes=0-9,0-9", None),
        ("bytes=" + ",".join(["0-0"] * 33), None),
    ],
)
def test_byte_ranges(header: str, spans: list[tuple[int, int]] | None) -> None:
    """Ten bytes, as RFC 9110 section 14 has them; None is the whole."""
    assert byte_ranges(header, 10) == spans


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=10-", "bytes=-0", "bytes=0-1,x"]
)
def test_unsatisfiable_byte_ranges(header: str) -> None:
    """What is malformed or lies beyond ten bytes is 416 with the size in Content-Range."""
    with pytest.raises(RangeInvalid) as caught:
        byte_ranges(header, 10)
    assert caught.value.status == 416
    assert caught.value.headers == {"Content-Range": "bytes */10"}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(0, 30)), min_size=1, max_size=5),
    st.integers(0, 20),
)
def test_spans_lie_in_the_content(asked: list[tuple[int, int | None]], size: int) -> None:
    """Whatever is asked for, a span is never empty and never beyond the content, nor are all more than the whole."""
    header = "bytes=" + ",".join(f"{first}-{'' if last is None else last}" for first, last in asked)
    try:
        spans = byte_ranges(header, size)
    except RangeInvalid:
        return
    if spans is not None:
        assert all(0 <= start < stop <= size for start, stop in spans)
        assert sum(stop - start for start, stop in spans) <= size


@pytest.mark.parametrize(
    ("header", "strong", "weak"),
    [
        ("*", None, None),
        (' "a" ', {"a"}, {"a"}),
        ('"a", "b"', {"a", "b"}, {"a", "b"}),
        ('"a,b"', {"a,b"}, {"a,b"}),
        ('W/"a", "b"', {"b"}, {"a", "b"}),
        ("a", set(), set()),
        ("", set(), set()),
    ],
)
def test_entity_tags(header: str, strong: set[str] | None, weak: set[str] | None) -> None:
    """Strong comparison leaves weak tags out, weak comparison takes them; ``*`` is anything."""
    assert entity_tags(header) == strong
    assert weak_entity_tags(header) == weak


@given(st.text(max_size=30))
def test_next_link_keeps_its_query(last: str) -> None:
    """Whatever ``last`` holds, the link leads there and cannot break out of its brackets."""
    link = next_link("/v2/a/tags/list", [("last", last), ("n", 5)])
    assert link.startswith("</v2/a/tags/list?")
    assert link.endswith('>; rel="next"')
    assert link.count("<") == link.count(">") == 1
    query = link[1:].partition(">")[0].partition("?")[2]
    assert parse_qsl(query, keep_blank_values=True) == [("last", last), ("n", "5")]


def test_warnings_form() -> None:
    """A warning has the code 299, the agent ``-``, no date, and quotes what needs it."""
    assert warnings(['say "hi" \\']) == ['299 - "say \\"hi\\" \\\\"']


def test_warnings_are_limited_together() -> None:
    """All warnings together stay within 4,096 bytes: those that no longer fit are left out."""
    values = warnings(["x" * 1000] * 10)
    assert len(values) == 4
    assert sum(map(len, values)) <= WARNINGS_LONGEST == 4096
