"""Bad requests to the application itself: every answer is described, nothing outside the root is opened."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from moorage import Policy
from moorage.spec.digest import compute
from moorage.spec.manifest import OCI_MANIFEST
from tests.fuzz import bodies, targets
from tests.fuzz.answer import Answer, check
from tests.fuzz.description import check_described
from tests.fuzz.door import Door
from tests.fuzz.profile import bounded
from tests.fuzz.sentinel import SECRET, Sentinel

_INTERPRETER: Final = tuple({str(Path(each).resolve()) for each in (sys.prefix, sys.base_prefix)})
_SOURCE: Final = str(Path(__file__).parents[2])
_WATCHED: Final = frozenset(
    {"open", "os.mkdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.listdir", "os.rmdir"}
)


class _Watch:
    """The paths that Python code of this process touches while ``on`` is set."""

    def __init__(self) -> None:
        self.on = False
        self.touched: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event in _WATCHED:
            self.touched.update(os.fsdecode(each) for each in arguments[:2] if isinstance(each, str | bytes | Path))


_watch = _Watch()
sys.addaudithook(_watch)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """A block in which what the application touches is written down."""
    _watch.on = True
    try:
        yield
    finally:
        _watch.on = False


class _Log(logging.Handler):
    """Keeps what the application has to say of its own failures."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def seed(door: Door) -> None:
    """What the strategies name is there: two blobs, a manifest, an upload session."""
    for content in (bodies.BLOB, bodies.EMPTY):
        target = f"/v2/{targets.NAME}/blobs/uploads/?digest={compute(content)}"
        assert door.ask("POST", target, body=content).status == 201
    headers = [("Content-Type", OCI_MANIFEST)]
    assert door.ask("PUT", targets.KEPT_MANIFEST, headers, bodies.STORED).status == 201


def session(door: Door) -> str:
    location = door.ask("POST", f"/v2/{targets.NAME}/blobs/uploads/").header("location")
    assert location
    return location.rpartition("/")[2]


def _open(door: Door, path: str) -> str:
    return path.replace(targets.UPLOAD, session(door)) if targets.UPLOAD in path else path


def hold(door: Door, method: str, target: str, headers: Any = (), body: bytes | list[bytes] = b"") -> Answer:
    """The answer, held to everything that all answers keep."""
    with watching():
        answer = door.ask(method, target, headers, body)
    note(f"{method} {target[:200]} {headers} {body[:200]!r} -> {answer.status} {answer.body[:300]!r}")
    check(method, answer)
    check_described(method, target, answer)
    assert SECRET not in answer.body
    return answer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A block in which the application has no failure to log."""
    log, logger = _Log(), logging.getLogger("moorage")
    logger.addHandler(log)
    try:
        yield
        assert log.said == []
    finally:
        logger.removeHandler(log)


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Sentinel]:
    planted = Sentinel.plant(tmp_path)
    _watch.touched.clear()
    yield planted
    planted.check()
    allowed = (str(planted.root), _SOURCE, *_INTERPRETER, "/dev/", "/proc/")
    assert any(each.startswith(f"{planted.root}/blobs/") for each in _watch.touched)
    outside = {each for each in _watch.touched if each.startswith("/") and not each.startswith(allowed)}
    assert outside == set()
    assert not {each for each in _watch.touched if ".." in each}


@pytest.fixture
def door(sentinel: Sentinel) -> Iterator[Door]:
    with quiet(), Door(sentinel.root) as opened:
        with watching():
            seed(opened)
        yield opened


def test_a_header_that_may_come_once() -> None:
    "Whatever the server in front lets through, neither of two counts."
    with Door() as door:
        twice = door.ask("GET", "/v2/", [("Authorization", "a"), ("Host", "x"), ("Authorization", "b")])
        assert (twice.status, twice.codes) == (400, ["UNSUPPORTED"])
        assert door.ask("GET", "/v2/", [("Accept", "a/b"), ("Accept", "a/c")]).status == 200


@bounded(300)
@given(st.sampled_from(targets.METHODS), targets.paths(), targets.queries)
def test_any_path_and_method(door: Door, method: str, path: str, query: str) -> None:
    hold(door, method, targets.joined(path, query))


@bounded(300)
@given(targets.endpoint_requests(), targets.queries, targets.headers)
def test_any_query_and_headers(
    door: Door, request_line: tuple[str, str], query: str, headers: list[tuple[str, str]]
) -> None:
    method, path = request_line
    body = bodies.BLOB if method in ("PUT", "PATCH", "POST") else b""
    hold(door, method, targets.joined(_open(door, path), query), headers, body)


@bounded(200)
@given(targets.headers)
def test_any_headers_on_content(door: Door, headers: list[tuple[str, str]]) -> None:
    "Ranges and conditions in any form, on a blob and a manifest that are there: never other bytes than theirs."
    for target, whole in ((targets.KEPT_BLOB, bodies.BLOB), (targets.KEPT_MANIFEST, bodies.STORED)):
        answer = hold(door, "GET", target, headers)
        if answer.status == 200:
            assert answer.body == whole
        elif answer.status == 206 and (span := answer.header("content-range")):
            first, last = span.removeprefix("bytes ").partition("/")[0].split("-")
            assert answer.body == whole[int(first) : int(last) + 1]


@bounded(300)
@given(st.one_of(targets.tags, st.none()), bodies.manifests, st.one_of(st.none(), targets.media_types))
def test_any_manifest(door: Door, tag: str | None, body: bytes, media_type: str | None) -> None:
    "What is stored is what was pushed, byte for byte, and can be listed; what is not is refused with a reason."
    headers = [] if media_type is None else [("Content-Type", media_type)]
    answer = hold(door, "PUT", f"/v2/{targets.NAME}/manifests/{tag or compute(body)}", headers, body)
    if answer.status == 201:
        digest = answer.header("docker-content-digest")
        pulled = hold(door, "GET", f"/v2/{targets.NAME}/manifests/{digest}")
        assert (pulled.status, pulled.body) == (200, body)
        if subject := answer.header("oci-subject"):
            assert hold(door, "GET", f"/v2/{targets.NAME}/referrers/{subject}").status in (200, 400)


@bounded(200)
@given(bodies.manifests, st.one_of(st.none(), targets.media_types), st.sampled_from(["v1", targets.FALLBACK]))
def test_any_manifest_where_much_is_allowed(body: bytes, media_type: str | None, tag: str) -> None:
    "Of any type, and with nothing there of what it references: what is stored still comes back as it was."
    headers = [] if media_type is None else [("Content-Type", media_type)]
    with quiet(), Door(policy=Policy(unknown_manifests=True, sparse="all")) as door:
        answer = door.ask("PUT", f"/v2/a/manifests/{tag}", headers, body)
        check("PUT", answer)
        assert answer.status in (201, 400)
        if answer.status == 201:
            pulled = door.ask("GET", f"/v2/a/manifests/{answer.header('docker-content-digest')}")
            check("GET", pulled)
            assert (pulled.status, pulled.body) == (200, body)
            if declared := (media_type or "").partition(";")[0].strip():
                assert (pulled.header("content-type") or "").lower() == declared.lower()


_STEPS = st.tuples(targets.endpoint_requests(), targets.queries, targets.headers, bodies.sent, st.integers(0, 9))


@bounded(100)
@given(st.lists(_STEPS, min_size=1, max_size=12))
def test_any_sequence(
    steps: list[tuple[tuple[str, str], str, list[tuple[str, str]], bytes | list[bytes], int]],
) -> None:
    "Requests one after another, some of them cut off in the middle of their body."
    with quiet(), Door() as door:
        seed(door)
        upload = session(door)
        for (method, path), query, headers, body, luck in steps:
            target = targets.joined(path.replace(targets.UPLOAD, upload), query)
            if luck == 0:
                answer = door.request(method, target, headers, body, cut=True)
                if answer is not None:
                    check(method, answer)
                continue
            answer = hold(door, method, target, headers, body)
            if location := answer.header("location"):
                if "/uploads/" in location:
                    upload = location.rpartition("/")[2]
                elif answer.status == 201:
                    assert hold(door, "GET", location).status == 200
        assert hold(door, "GET", "/v2/").status == 200
