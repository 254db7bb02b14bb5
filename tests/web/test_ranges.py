"""Ranges of blobs and manifests; RFC 9110 section 14."""

import email
import email.policy
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support import CONFIG, OCI_MANIFEST, Repository, detail, digest_of, encode, image

BLOB = bytes(range(256)) * 4


@dataclass
class Stored:
    repository: Repository
    path: str
    content: bytes
    digest: str
    media_type: str

    async def get(self, wanted: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.repository.get(self.path, headers={"range": wanted, **named})


@pytest.fixture(params=["blob", "manifest"])
async def stored(repository: Repository, request: pytest.FixtureRequest) -> AsyncIterator[Stored]:
    """A blob and a manifest of more than 512 bytes."""
    if request.param == "blob":
        digest = await repository.push_blob(BLOB)
        yield Stored(repository, f"blobs/{digest}", BLOB, digest, "application/octet-stream")
        return
    await repository.push_blob(CONFIG)
    content = encode(image(layers=[], annotations={"filling": "x" * 600}))
    digest = await repository.push(content, "latest")
    yield Stored(repository, "manifests/latest", content, digest, OCI_MANIFEST)


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-199", 100, 200),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=-100000", 0, None),
        ("bytes=0-", 0, None),
        ("bytes=500-999999", 500, None),
        ("bytes= 5-9 ", 5, 10),
        ("BYTES=5-9", 5, 10),
    ],
)
async def test_single_range(stored: Stored, wanted: str, start: int, stop: int | None) -> None:
    """One range is 206 with its bytes, its length, where it lies, and the digest of the whole."""
    response = await stored.get(wanted)
    size = len(stored.content)
    expected = stored.content[start:stop]
    first = start if start >= 0 else size + start
    assert response.status_code == 206
    assert response.content == expected
    assert response.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{size}"
    assert response.headers["content-length"] == str(len(expected))
    assert response.headers["content-type"] == stored.media_type
    assert response.headers["docker-content-digest"] == stored.digest
    assert response.headers["etag"] == f'"{stored.digest}"'


async def test_last_byte(stored: Stored) -> None:
    """The last byte can be had by its number."""
    last = len(stored.content) - 1
    response = await stored.get(f"bytes={last}-{last}")
    assert (response.status_code, response.content) == (206, stored.content[-1:])


async def test_several_ranges(stored: Stored) -> None:
    """Several ranges are one multipart/byteranges body, each part with its type and place, in the order asked for."""
    response = await stored.get("bytes=300-349, 0-9,-5")
    size = len(stored.content)
    assert response.status_code == 206
    assert "content-range" not in response.headers
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["docker-content-digest"] == stored.digest
    kind = response.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.message_from_bytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + response.content, policy=email.policy.HTTP
    )
    parts = [each for each in message.iter_parts() if isinstance(each, email.message.EmailMessage)]
    assert [each["content-range"] for each in parts] == [
        f"bytes 300-349/{size}",
        f"bytes 0-9/{size}",
        f"bytes {size - 5}-{size - 1}/{size}",
    ]
    assert {each["content-type"] for each in parts} == {stored.media_type}
    boundary = kind.partition("=")[2].encode()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in response.content.split(b"\r\n--" + boundary)[1:-1]]
    assert bodies == [stored.content[300:350], stored.content[:10], stored.content[-5:]]
    assert response.content.endswith(b"\r\n--" + boundary + b"--\r\n")


async def test_one_of_several_in_the_content(stored: Stored) -> None:
    """If only one of several ranges lies in the content, that one is sent as a single range."""
    response = await stored.get("bytes=0-1,999999-")
    assert (response.status_code, response.content) == (206, stored.content[:2])
    assert response.headers["content-range"].startswith("bytes 0-1/")


@pytest.mark.parametrize("wanted", ["bytes=999999-", "bytes=-0", "bytes=999999-1000000,5000000-"])
async def test_unsatisfiable(stored: Stored, wanted: str) -> None:
    """A range beyond the content is 416 that tells the size."""
    response = await stored.get(wanted)
    size = len(stored.content)
    assert detail(response, 416, "SIZE_INVALID") == {"Range": wanted, "size": size}
    assert response.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("wanted", ["bytes=", "bytes=x-y", "bytes=9-3", "bytes=1", "bytes=--1", "bytes=0-1;2-3"])
async def test_malformed(stored: Stored, wanted: str) -> None:
    """A range of bytes that cannot be read is 416 too, never a guess."""
    assert detail(await stored.get(wanted), 416, "SIZE_INVALID")["Range"] == wanted


@pytest.mark.parametrize(
    "wanted", ["lines=0-1", "0-1", "", "bytes=0-99999,0-99999", "bytes=" + ",".join(["1-1"] * 40)]
)
async def test_ignored(stored: Stored, wanted: str) -> None:
    """Another unit, no unit, or ranges that make more work than the whole: the whole is sent."""
    response = await stored.get(wanted)
    assert (response.status_code, response.content) == (200, stored.content)
    assert "content-range" not in response.headers


async def test_head_has_no_ranges(stored: Stored) -> None:
    """Range is defined for GET alone: a HEAD answers for the whole."""
    response = await stored.repository.head(stored.path, headers={"range": "bytes=0-1"})
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(stored.content))


async def test_if_range(stored: Stored) -> None:
    """If-Range with the entity tag of the content gives the range; with any other validator the whole."""
    response = await stored.get("bytes=0-1", if_range=f'"{stored.digest}"')
    assert (response.status_code, response.content) == (206, stored.content[:2])
    others = [f'"{digest_of(b"x")}"', f'W/"{stored.digest}"', stored.digest, "Sat, 01 Jan 2022 00:00:00 GMT", ""]
    for each in others:
        response = await stored.get("bytes=0-1", if_range=each)
        assert (response.status_code, response.content) == (200, stored.content)
    assert (await stored.get("bytes=999999-", if_range='"other"')).status_code == 200


async def test_empty_blob(repository: Repository) -> None:
    """Nothing of an empty blob can be asked for by number, and its whole is 200."""
    digest = await repository.push_blob(b"")
    response = await repository.get(f"blobs/{digest}", headers={"range": "bytes=0-"})
    assert response.status_code == 416
    assert response.headers["content-range"] == "bytes */0"
    assert (await repository.get(f"blobs/{digest}")).status_code == 200


async def test_resume(repository: Repository) -> None:
    """A pull that was cut off goes on where it ended and gives the whole."""
    content = b"pull me twice" * 50_000
    digest = await repository.push_blob(content)
    received = content[:123_457]
    response = await repository.get(f"blobs/{digest}", headers={"range": f"bytes={len(received)}-"})
    assert digest_of(received + response.content) == digest


async def test_304_before_range(stored: Stored) -> None:
    """If-None-Match is looked at first: a client that has the content gets 304, not a part of it."""
    response = await stored.get("bytes=0-1", if_none_match=f'"{stored.digest}"')
    assert response.status_code == 304
