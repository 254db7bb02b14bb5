"""Faults of the protocol, each as the fewest requests that show it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from moorage import Digest, Policy, Registry
from moorage.metadata.base import Row
from moorage.metadata.sqlite import SQLiteMetadata
from moorage.spec.errors import BlobUploadUnknown
from moorage.storage.filesystem import FilesystemBlobStore
from tests.fuzz.answer import Answer
from tests.fuzz.door import Door
from tests.races.model import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST, digest_of

IMAGE = b'{"schemaVersion": 2, "layers": []}'
SUBJECT = digest_of(b"a subject")


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as opened:
        yield opened


def put(door: Door, reference: str, content: bytes, media_type: str = OCI_MANIFEST) -> Answer:
    answer = door.ask("PUT", f"/v2/a/manifests/{reference}", [("Content-Type", media_type)], content)
    assert answer.status == 201, answer
    return answer


def descriptor(content: bytes, media_type: str = OCI_MANIFEST) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def index(*manifests: dict[str, object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


def test_an_index_that_was_a_referrers_list_needs_its_children_once_it_has_a_tag(door: Door) -> None:
    put(door, "child", IMAGE)
    put(door, SUBJECT.replace(":", "-"), index(descriptor(IMAGE)), OCI_INDEX)
    put(door, "v1", index(descriptor(IMAGE)), OCI_INDEX)
    assert door.ask("DELETE", f"/v2/a/manifests/{digest_of(IMAGE)}").status == 405


def test_an_index_that_has_a_tag_keeps_its_children_whatever_its_bytes_are_pushed_as(door: Door) -> None:
    put(door, "child", IMAGE)
    put(door, "v1", index(descriptor(IMAGE)), DOCKER_LIST)
    put(door, SUBJECT.replace(":", "-"), index(descriptor(IMAGE)), OCI_INDEX)
    assert door.ask("DELETE", f"/v2/a/manifests/{digest_of(IMAGE)}").status == 405


def test_an_index_pushed_with_a_tag_and_a_fallback_tag_needs_its_children(door: Door) -> None:
    content = index(descriptor(b"nobody has this"))
    tags = f"tag=v1&tag={SUBJECT.replace(':', '-')}"
    target = f"/v2/a/manifests/{digest_of(content)}?{tags}"
    answer = door.ask("PUT", target, [("Content-Type", OCI_INDEX)], content)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])


def test_a_referrer_that_is_listed_twice_is_one_referrer(door: Door) -> None:
    put(door, "child", IMAGE)
    listed = index(descriptor(IMAGE), descriptor(IMAGE, "application/x-other"))
    put(door, SUBJECT.replace(":", "-"), listed, OCI_INDEX)
    found = door.ask("GET", f"/v2/a/referrers/{SUBJECT}").json["manifests"]
    assert [each["digest"] for each in found] == [digest_of(IMAGE)]


def test_deleting_a_manifest_that_is_not_there_is_404_also_for_the_digest_of_a_blob_in_use(door: Door) -> None:
    blob = digest_of(b"layer")
    assert door.ask("POST", f"/v2/a/blobs/uploads/?digest={blob}", body=b"layer").status == 201
    put(door, "v1", json.dumps({"schemaVersion": 2, "layers": [descriptor(b"layer", "a/b")]}).encode())
    answer = door.ask("DELETE", f"/v2/a/manifests/{blob}")
    assert (answer.status, answer.codes) == (404, ["MANIFEST_UNKNOWN"])


def test_bytes_that_were_of_an_unknown_type_have_a_subject_once_they_are_a_manifest() -> None:
    content = json.dumps(
        {"schemaVersion": 2, "layers": [], "subject": {"mediaType": OCI_MANIFEST, "digest": SUBJECT, "size": 1}}
    ).encode()
    with Door(policy=Policy(unknown_manifests=True)) as door:
        put(door, "v1", content, "application/x-unknown")
        assert put(door, "v1", content).header("oci-subject") == SUBJECT
        found = door.ask("GET", f"/v2/a/referrers/{SUBJECT}").json["manifests"]
    assert [each["digest"] for each in found] == [digest_of(content)]


class _Interrupted(SQLiteMetadata):
    """Facts that let ``between`` happen just before the question that comes after ``wait`` others."""

    wait = -1
    between: Callable[[], Awaitable[object]]

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:
        self.wait -= 1
        if self.wait == -1:
            await self.between()
        return await super().fetch(query, *parameters)


@pytest.mark.parametrize("wait", [0, 1, 2])
async def test_a_close_that_comes_too_late_finds_no_session(tmp_path: Path, wait: int) -> None:
    "Whenever another worker closes the session: what the client sent is not wrong, so it is not told that it is."
    facts = _Interrupted(tmp_path / "moorage.db")
    async with (
        Registry(FilesystemBlobStore(tmp_path / "blobs"), facts) as one,
        Registry(FilesystemBlobStore(tmp_path / "blobs"), SQLiteMetadata(tmp_path / "moorage.db")) as other,
    ):
        session = await other.uploads.start("a")
        await other.uploads.append("a", session.id, _pieces(b"start"))
        facts.between = lambda: other.uploads.finish("a", session.id, digest_of(b"start"))
        facts.wait = wait
        try:
            stored = await one.uploads.finish("a", session.id, digest_of(b"startend"), _pieces(b"end"))
        except BlobUploadUnknown:
            stored = Digest(digest_of(b"start"))
        facts.wait = -1
        assert (await one.blobs.get("a", stored)).digest == stored


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
