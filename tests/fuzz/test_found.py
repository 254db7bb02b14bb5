"""Faults that the fuzz found, each as the shortest request that shows it."""

import json
import time
from collections.abc import Iterator

import pytest

from moorage import Policy
from moorage.spec.digest import compute
from moorage.spec.manifest import OCI_INDEX, OCI_MANIFEST
from tests.fuzz.answer import Answer, check
from tests.fuzz.description import check_described
from tests.fuzz.door import Door

FALLBACK = "sha256-" + "0" * 64


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as opened:
        yield opened


def push(door: Door, tag: str, content: str | bytes, media_type: str | None = OCI_MANIFEST) -> Answer:
    target = f"/v2/a/manifests/{tag}"
    body = content.encode() if isinstance(content, str) else content
    answer = door.ask("PUT", target, [("Content-Type", media_type)] if media_type else [], body)
    check("PUT", answer)
    check_described("PUT", target, answer)
    return answer


@pytest.mark.parametrize(
    "content",
    [
        r'{"schemaVersion": 2, "layers": [], "annotations": {"a": "\ud800"}}',
        r'{"schemaVersion": 2, "layers": [], "\ud800": 1, "\ud800": 2}',
        r'{"schemaVersion": 2, "layers": [{"mediaType": "a/b", "digest": "md5:0", "size": 1, "data": "\ud800"}]}',
    ],
    ids=["annotation", "key that repeats", "data"],
)
def test_a_lone_surrogate_is_accepted_or_refused(door: Door, content: str) -> None:
    assert push(door, "latest", content).status in (201, 400)


def test_embedded_data_that_is_not_ascii_is_refused(door: Door) -> None:
    descriptor = {"mediaType": "a/b", "digest": "md5:0", "size": 1, "data": "é"}
    answer = push(door, "latest", json.dumps({"schemaVersion": 2, "layers": [descriptor]}))
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])


@pytest.mark.parametrize("value", [r'"\ud800"', "1e999"])
def test_what_a_manifest_may_hold_a_referrers_list_may_hold(door: Door, value: str) -> None:
    content = f'{{"schemaVersion": 2, "manifests": [], "x": {value}}}'
    assert push(door, "latest", content, OCI_INDEX).status == push(door, FALLBACK, content, OCI_INDEX).status


def test_a_key_that_repeats_is_found_in_linear_time(door: Door) -> None:
    "4 MiB hold 500,000 keys, for which this would be an hour in which the process answers nobody."

    def seconds(count: int) -> float:
        keys = "".join(f'"{n}": 0, ' for n in range(count))
        start = time.process_time()
        assert push(door, "latest", f'{{{keys}"schemaVersion": 2, "z": 0, "z": 0}}').status == 400
        return time.process_time() - start

    assert seconds(8000) < 8 * max(seconds(2000), 0.005)


def test_an_empty_chunk_is_not_the_range_that_it_announces(door: Door) -> None:
    session = door.ask("POST", "/v2/a/blobs/uploads/").header("location")
    assert session
    answer = door.ask("PATCH", session, [("Content-Range", "0-4"), ("Transfer-Encoding", "chunked")])
    assert (answer.status, answer.codes) == (400, ["SIZE_INVALID"])


def test_a_range_may_end_anywhere_behind_the_content(door: Door) -> None:
    "RFC 9110 section 14.1.2: a last position beyond the content is its end, however many digits it has."
    digest = compute(b"abc")
    assert door.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", body=b"abc").status == 201
    answer = door.ask("GET", f"/v2/a/blobs/{digest}", [("Range", "bytes=1-9999999999999999999")])
    assert (answer.status, answer.body) == (206, b"bc")


@pytest.mark.parametrize("media_type", ["a/b\r\n;c: d", "a/b\u2003;c"], ids=["a line break", "a wide space"])
def test_a_media_type_that_is_no_header_value_is_refused(media_type: str) -> None:
    with Door(policy=Policy(unknown_manifests=True)) as door:
        content = json.dumps({"schemaVersion": 2, "layers": [], "mediaType": media_type})
        answer = push(door, "latest", content, None)
        assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])
