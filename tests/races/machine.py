"""What the machine of the protocol holds and compares, and how it chooses what the next request is about."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.fuzz.answer import Answer, check
from tests.fuzz.description import check_described
from tests.fuzz.door import Door
from tests.races.model import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTETS,
    Condition,
    Expected,
    digest_of,
    fallback_tag,
)
from tests.races.verbs import Model

NAMES = ("a", "a/b", "c")
TAGS = ("v1", "v2", "latest")
CONTENTS = (b"", b"1", b"22", b"0123456789", b"x" * 3000)
ABSENT = digest_of(b"nobody has this")
SUBJECT = digest_of(b"what much refers to and nobody has")
TYPES = ("application/x-one", "application/x-two", None)
BLOBS = tuple(digest_of(content) for content in CONTENTS)


Given = st.DataObject


def mostly(data: Given, likely: list[Any], unlikely: list[Any], label: str) -> Any:
    """Seven times out of eight one of the ``likely``, if there are any."""
    luck = data.draw(st.integers(0, 7), f"luck with {label}")
    return data.draw(st.sampled_from(likely if likely and luck != 5 else unlikely), label)


class Machine(RuleBasedStateMachine):
    """The registry, the model, and what was tried so far."""

    def __init__(self) -> None:
        super().__init__()
        self.door = Door()
        self.door.__enter__()
        self.model = Model()
        self.pushed: list[tuple[bytes, str]] = []  # manifests that were tried, to be tried again elsewhere
        self.closed: list[tuple[str, str]] = []  # sessions that are gone
        self.touched = "a"  # the repository of the last request

    def teardown(self) -> None:
        try:
            self.look_at_everything()
        finally:
            self.door.__exit__(None, None, None)

    def compare(
        self, expected: Expected, method: str, target: str, headers: Any = (), body: bytes | list[bytes] = b""
    ) -> Answer:
        self.touched = next((name for name in NAMES if f"/v2/{name}/" in target), self.touched)
        answer = self.door.ask(method, target, headers, body)
        told = (method, target, headers, body[:80], answer, expected)
        check(method, answer)
        check_described(method, target, answer)
        assert answer.status == expected.status, told
        for name, value in expected.headers.items():
            assert answer.header(name) == value, (name, told)
        assert (answer.header("location") or "").startswith(expected.location), told
        if method == "HEAD":
            return answer
        if expected.codes:
            assert answer.codes == list(expected.codes), told
        elif expected.document is not None:
            assert answer.json == expected.document, told
        elif expected.body is not None:
            assert answer.body == expected.body, told
        if expected.missing:
            assert [each["detail"]["path"] for each in answer.json["errors"]] == list(expected.missing), told
        return answer

    def settle(self) -> None:
        """Let the model know the bytes of the referrers lists that were merged."""
        for name, tag in list(self.model.pending):
            answer = self.door.ask("GET", f"/v2/{name}/manifests/{tag}")
            assert answer.status == 200
            assert answer.header("docker-content-digest") == digest_of(answer.body)
            self.model.settle(name, tag, answer.body)

    def session(self, data: Given) -> tuple[str, str]:
        """A repository and a session, most often an open one of it."""
        opened = [(session.repository, upload) for upload, session in self.model.uploads.items()]
        elsewhere = [("c", upload) for _, upload in opened]
        absent = [("a", "no-session"), *elsewhere[-1:], *self.closed[-2:]]
        name, upload = mostly(data, opened[-4:], absent, "session")
        return name, upload

    def chunk(
        self, data: Given, upload: str, content: bytes, offset: int | None
    ) -> tuple[int | None, list[tuple[str, str]], bytes | list[bytes]]:
        """``(first, headers, body)`` of a chunk that says where it starts, or does not; with a length, or without."""
        received = self.model.uploads[upload].received if upload in self.model.uploads else b""
        first = None if offset is None or not content else len(received) if offset > 3 else offset
        headers = [] if first is None else [("Content-Range", f"{first}-{first + len(content) - 1}")]
        if content and data.draw(st.booleans(), "in pieces"):
            return first, headers, [content[:1], content[1:]]
        return first, headers, content

    def descriptor(self, media_type: str, digest: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest, "size": 1}

    def blob(self, data: Given, name: str) -> str:
        held = sorted(self.model.repositories[name].blobs) if name in self.model.repositories else []
        return str(mostly(data, held, [*BLOBS, ABSENT], "blob"))

    def manifest(self, data: Given, name: str) -> tuple[str, str]:
        """``(digest, media type)`` of a manifest, most often one that the repository has."""
        held = self.model.repositories[name].manifests if name in self.model.repositories else {}
        known = [(digest, held[digest].media_type) for digest in held]
        others = [(digest_of(content), media_type) for content, media_type in self.pushed[-3:]]
        digest, media_type = mostly(data, known[:3] + known[-3:], [*others, (ABSENT, OCI_MANIFEST)], "manifest")
        return digest, media_type

    def subject(self, data: Given, name: str) -> str:
        """Often the same one, so that much refers to it."""
        return str(mostly(data, [SUBJECT, SUBJECT, self.manifest(data, name)[0]], [ABSENT], "subject"))

    def _common(self, data: Given, name: str) -> dict[str, Any]:
        document: dict[str, Any] = {"schemaVersion": 2}
        if artifact_type := data.draw(st.sampled_from(TYPES), "artifact type"):
            document["artifactType"] = artifact_type
        if data.draw(st.booleans(), "has a subject"):
            document["subject"] = self.descriptor(OCI_MANIFEST, self.subject(data, name))
        if data.draw(st.booleans(), "has annotations"):
            document["annotations"] = {"n": str(data.draw(st.integers(0, 3), "annotation"))}
        return document

    def image(self, data: Given, name: str) -> tuple[bytes, str]:
        media_type = data.draw(st.sampled_from([OCI_MANIFEST, OCI_MANIFEST, DOCKER_MANIFEST]), "media type")
        document = self._common(data, name)
        if data.draw(st.booleans(), "has a config"):
            document["config"] = self.descriptor("application/x-config", self.blob(data, name))
        layers = data.draw(st.integers(0, 2), "layers")
        document["layers"] = [self.descriptor(OCTETS, self.blob(data, name)) for _ in range(layers)]
        return json.dumps(document).encode(), media_type

    def index(self, data: Given, name: str) -> tuple[bytes, str]:
        media_type = data.draw(st.sampled_from([OCI_INDEX, OCI_INDEX, DOCKER_LIST]), "media type")
        document = self._common(data, name)
        document["manifests"] = []
        for _ in range(data.draw(st.sampled_from([1, 1, 2, 0]), "children")):
            if data.draw(st.integers(0, 3), "kind of child"):
                digest, child_type = self.manifest(data, name)
                document["manifests"].append(self.descriptor(child_type, digest))
            else:
                document["manifests"].append(self.descriptor(OCTETS, self.blob(data, name)))
        return json.dumps(document).encode(), media_type

    def condition(self, data: Given, name: str, reference: str) -> Condition:
        """Most often none, else one that as often holds as not."""
        kind = data.draw(st.integers(0, 7), "precondition")
        if kind > 2:
            return Condition()
        repository = self.model.repositories.get(name)
        current = repository.resolve(reference) if repository else None
        listed = ("*",) if kind == 2 else tuple({current or ABSENT, self.manifest(data, name)[0]})
        if data.draw(st.booleans(), "If-Match"):
            return Condition(match=listed)
        return Condition(none_match=listed)

    def reference(self, data: Given, name: str) -> str:
        """A tag or a digest, most often one that is there."""
        repository = self.model.repositories.get(name)
        held = [*repository.tags, *repository.manifests] if repository else []
        held += [digest for digest in held if repository and repository.needs(digest)] * 3
        return str(mostly(data, held, [*TAGS, *BLOBS, "-no-tag"], "reference"))

    def look_at_everything(self) -> None:
        """Every tag, manifest, blob, session and list of referrers, there and not there."""
        digests = {digest for each in self.model.repositories.values() for digest in each.manifests}
        for name in NAMES:
            for digest in sorted(digests | {ABSENT, SUBJECT}):
                self.compare(self.model.get_manifest(name, digest), "GET", f"/v2/{name}/manifests/{digest}")
                listed = self.model.list_referrers(name, digest, None, None, "")
                self.compare(listed, "GET", f"/v2/{name}/referrers/{digest}")
            for tag in (*TAGS, *map(fallback_tag, sorted(digests | {SUBJECT}))):
                self.compare(self.model.get_manifest(name, tag), "GET", f"/v2/{name}/manifests/{tag}")
            for digest in sorted(self.model.contents):
                self.compare(self.model.get_blob(name, digest), "GET", f"/v2/{name}/blobs/{digest}")
            self.walk_pages(name)
        for upload, session in self.model.uploads.items():
            target = f"/v2/{session.repository}/blobs/uploads/{upload}"
            self.compare(self.model.status(session.repository, upload), "GET", target)

    def walk_pages(self, name: str) -> None:
        """Following ``Link`` shows each tag once, in order."""
        repository = self.model.repositories.get(name)
        target, seen = f"/v2/{name}/tags/list?n=1", list[str]()
        while repository and target:
            answer = self.door.ask("GET", target)
            seen += answer.json["tags"]
            link = answer.header("link")
            target = link.partition(">")[0].removeprefix("<") if link else ""
        assert seen == (sorted(repository.tags) if repository else [])
