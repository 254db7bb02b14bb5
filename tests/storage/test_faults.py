"""A bucket that fails in every way it can: nothing acknowledged is lost, no 200 has wrong bytes."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.buckets import SECRET, Engine
from tests.conformance.test_matrix import check as check_root
from tests.proxy import Asked, Proxy, Rule, Trouble, on, status, times
from tests.server import as_environment, running
from tests.storage.conftest import Behind, Opener
from tests.support import digest_of, errors, raw

pytestmark = pytest.mark.stores

MIB = 1024 * 1024
SMALL, LARGE = b"small" * 1000, b"large" * (4 * MIB)
SLOW_DOWN = status(503, "SlowDown")
both = pytest.mark.parametrize("engine", ["seaweedfs", "google"], indirect=True)
PASSING: dict[str, tuple[bytes, Rule]] = {
    "500": (SMALL, times(2, on("put", status(500, "InternalError")))),
    "503 SlowDown": (SMALL, times(2, on("put", SLOW_DOWN))),
    "429": (SMALL, times(2, on("put", status(429, "TooManyRequests")))),
    "a cut connection": (SMALL, times(2, on("put", Trouble()))),
    "no answer": (SMALL, times(1, on("put", Trouble(hang=True)))),
    "done, but answered with 500": (SMALL, times(1, on("put", Trouble(SLOW_DOWN.answer, forward=True)))),
    "500 to a part": (LARGE, times(2, on("part", status(500, "InternalError")))),
    "503 to the beginning": (LARGE, times(1, on("begin", SLOW_DOWN))),
    "503 to the end": (LARGE, times(1, on("complete", SLOW_DOWN))),
    "a cut part": (LARGE, times(1, on("part", Trouble()))),
}
LASTING: dict[str, tuple[bytes, Rule]] = {
    "500": (SMALL, on("put", status(500, "InternalError"))),
    "503 SlowDown": (SMALL, on("put", SLOW_DOWN)),
    "429": (SMALL, on("put", status(429, "TooManyRequests"))),
    "no answer": (SMALL, on("put", Trouble(hang=True))),
    "cut connections": (SMALL, on("put", Trouble())),
    "refused": (SMALL, on("put", status(403, "AccessDenied"))),
    "no bucket": (SMALL, on("put", status(404, "NoSuchBucket"))),
    "done, but answered with 500": (SMALL, on("put", Trouble(SLOW_DOWN.answer, forward=True))),
    "no beginning": (LARGE, on("begin", SLOW_DOWN)),
    "parts": (LARGE, on("part", SLOW_DOWN)),
    "no end": (LARGE, on("complete", SLOW_DOWN)),
    "ended, but answered with 500": (LARGE, on("complete", Trouble(SLOW_DOWN.answer, forward=True))),
}


async def push(place: Behind, content: bytes) -> httpx.Response:
    return await place.repository.post(f"?digest={digest_of(content)}", content=content)


@both
@pytest.mark.parametrize("trouble", PASSING)
async def test_what_passes_is_tried_again(behind: Opener, trouble: str) -> None:
    """A failure that passes costs the client nothing but time."""
    place = await behind()
    content, place.proxy.rule = PASSING[trouble]
    assert (await push(place, content)).status_code == 201
    assert (await place.repository.get(f"blobs/{digest_of(content)}")).content == content
    assert await place.wrong() == []
    await place.keys()


@both
@pytest.mark.parametrize("trouble", LASTING)
async def test_what_lasts_is_refused_and_keeps_nothing(behind: Opener, trouble: str) -> None:
    """503 says when to come again; nothing of the push is there then, and the same push works afterwards."""
    place = await behind()
    content, place.proxy.rule = LASTING[trouble]
    answer = await push(place, content)
    errors(answer, 503, "UNKNOWN")
    assert int(answer.headers["retry-after"]) > 0
    assert place.proxy.url.partition("://")[2] not in answer.text  # where bytes are is nobody else's matter
    assert (await place.repository.head(f"blobs/{digest_of(content)}")).status_code == 404
    assert await place.wrong() == []
    await place.keys(0)
    assert (await push(place, content)).status_code == 201
    assert (await place.repository.get(f"blobs/{digest_of(content)}")).content == content


@both
async def test_a_chunk_that_fails_leaves_the_session_as_it_was(behind: Opener) -> None:
    """What was acknowledged before stays, and the client goes on from there."""
    place = await behind()
    location = await place.repository.start()
    location = (await place.repository.client.patch(location, content=SMALL)).headers["location"]
    place.proxy.rule = on("put", SLOW_DOWN)
    errors(await place.repository.client.patch(location, content=b"more"), 503, "UNKNOWN")
    place.proxy.rule = on("get", SLOW_DOWN)
    status_of = await place.repository.client.get(location)
    assert status_of.headers["range"] == f"0-{len(SMALL) - 1}"
    location = (await place.repository.client.patch(location, content=b"more")).headers["location"]
    digest = digest_of(SMALL + b"more")
    errors(
        await place.repository.client.put(location, params={"digest": digest}), 503, "UNKNOWN"
    )  # it cannot be read
    assert await place.wrong() == []
    assert (await place.repository.client.put(location, params={"digest": digest})).status_code == 201
    assert (await place.repository.get(f"blobs/{digest}")).content == SMALL + b"more"


@pytest.mark.parametrize("answer", [status(507, "XMinioStorageFull"), status(403, "QuotaExceeded")])
async def test_no_room(behind: Opener, answer: Trouble) -> None:
    """A full bucket is a full disk: 507."""
    place = await behind()
    place.proxy.rule = on("put", answer)
    errors(await push(place, SMALL), 507, "UNKNOWN")
    assert await place.wrong() == []


def cut_each(after: int) -> Callable[[Asked], Trouble | None]:
    return on("get", Trouble(forward=True, after=after))


@both
@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(times(1, cut_each(0)), id="cut before the first byte"),
        pytest.param(times(3, cut_each(3 * MIB)), id="cut three times"),
        pytest.param(cut_each(6 * MIB), id="cut always, but each time later"),
        pytest.param(times(2, on("get", Trouble(forward=True, shorten=MIB))), id="fewer bytes than there are"),
        pytest.param(times(2, on("get", SLOW_DOWN)), id="503"),
        pytest.param(times(1, on("get", Trouble(hang=True))), id="no answer"),
    ],
)
async def test_a_pull_goes_on_where_it_was_cut(behind: Opener, rule: Rule) -> None:
    """The client does not notice: it gets a 200 with every byte."""
    place = await behind()
    assert (await push(place, LARGE)).status_code == 201
    place.proxy.rule = rule
    answer = await place.repository.get(f"blobs/{digest_of(LARGE)}")
    assert answer.status_code == 200
    assert digest_of(answer.content) == digest_of(LARGE)
    answer = await place.repository.get(f"blobs/{digest_of(LARGE)}", headers={"Range": "bytes=7-20000000"})
    assert answer.status_code == 206
    assert digest_of(answer.content) == digest_of(LARGE[7:20000001])


def test_a_pull_that_cannot_go_on_is_cut(seaweedfs: Engine, tmp_path: Path) -> None:
    """The client sees a broken connection, or 503 where nothing was sent yet; never a whole 200 of other bytes."""
    with Proxy(seaweedfs.endpoint).serving() as proxy:
        quick = {"object_retries": 1, "object_retry_timeout": 1.0, "object_read_timeout": 1.0}
        settings = as_environment(seaweedfs.place(object_endpoint=proxy.url, **quick))
        with running(tmp_path, **settings) as server:
            digest = digest_of(LARGE)
            pushed = httpx.post(f"{server.url}/v2/a/blobs/uploads/?digest={digest}", content=LARGE, trust_env=False)
            assert pushed.status_code == 201
            request = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()

            def broken(asked: Asked) -> Trouble | None:
                if asked.verb != "get":
                    return None
                started = b"range: bytes=0-" in asked.head.lower()
                return Trouble(forward=True, after=5 * MIB) if started else SLOW_DOWN

            proxy.rule = broken
            head, _, body = raw(server.url, request).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert len(body) < len(LARGE)
            assert LARGE.startswith(body)
            proxy.rule = on("get", SLOW_DOWN)
            head, _, body = raw(server.url, request).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503")
            assert b"retry-after: " in head.lower()
            assert b"SlowDown" in body
            proxy.rule = lambda _: None
            head, _, body = raw(server.url, request).partition(b"\r\n\r\n")
            assert digest_of(body) == digest
        assert SECRET not in server.log
        assert "X-Amz" not in server.log
        assert check_root(tmp_path, "none", settings) == []


async def test_an_object_that_is_gone(behind: Opener) -> None:
    """Bytes that somebody took away are a 500 to the client and a finding of the check."""
    place = await behind()
    await push(place, SMALL)
    await place.store.delete(list(await place.keys()))
    errors(await place.repository.get(f"blobs/{digest_of(SMALL)}"), 500, "UNKNOWN")
    (wrong,) = await place.wrong()
    assert "its bytes are gone" in wrong


async def pushed_and_doomed(place: Behind) -> None:
    """Three objects that no fact needs any more, and one that a blob is."""
    location = await place.repository.start()
    for content in (b"a", b"b", b"c"):
        location = (await place.repository.client.patch(location, content=content)).headers["location"]
    answer = await place.repository.client.put(location, params={"digest": digest_of(b"abc")})
    assert answer.status_code == 201


async def test_a_delete_that_fails_is_done_later(behind: Opener) -> None:
    """What could not be deleted stays known, and goes when the bucket works again."""
    place = await behind()
    await pushed_and_doomed(place)
    place.proxy.rule = lambda asked: SLOW_DOWN if asked.verb.startswith("delete") else None
    with pytest.raises(Exception, match="does not answer"):
        await place.registry.clean()
    await place.keys(4)
    await place.registry.clean()
    await place.keys()
    assert await place.wrong() == []


async def test_a_batch_that_fails_is_done_one_by_one(behind: Opener) -> None:
    """The error of one key, or of the whole batch, keeps no other from being deleted."""
    for answer in (
        status(501, "NotImplemented"),
        status(
            200,
            body="<DeleteResult><Error><Key>x</Key><Code>InternalError</Code><Message>m</Message></Error></DeleteResult>",
        ),
    ):
        place = await behind()
        await pushed_and_doomed(place)
        place.proxy.rule = lambda asked, answer=answer: (
            answer if asked.verb == "delete many" and asked.body.count(b"<Key>") > 1 else None
        )
        await place.registry.clean()
        await place.keys()
        assert await place.wrong() == []


async def test_a_batch_that_lies(behind: Opener) -> None:
    """Objects that are said to be deleted and are not cost room and nothing else."""
    place = await behind()
    await pushed_and_doomed(place)

    def lie(asked: Asked) -> Trouble | None:
        if asked.verb != "delete many":
            return None
        keys = re.findall(r"<Key>.*?</Key>", asked.body.decode())
        told = "".join(f"<Deleted>{key}</Deleted>" for key in keys)
        return status(200, body=f"<DeleteResult>{told}</DeleteResult>")

    place.proxy.rule = lie
    await place.registry.clean()
    await place.keys(4)
    assert await place.wrong() == []
    assert (await place.repository.get(f"blobs/{digest_of(b'abc')}")).content == b"abc"


async def test_nothing_secret_is_told(behind: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the client nor the log is told credentials, signatures or what the storage says about them."""
    caplog.set_level(logging.DEBUG)
    place = await behind()
    leak = f"<Error><Code>SignatureDoesNotMatch</Code><StringToSign>{SECRET} X-Amz-Signature</StringToSign></Error>"
    place.proxy.rule = on("put", status(403, body=leak))
    answer = await push(place, SMALL)
    assert "SignatureDoesNotMatch" in answer.text
    for told in (answer.text, caplog.text):
        assert SECRET not in told
        assert "X-Amz" not in told
