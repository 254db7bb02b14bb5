"""The whole protocol, in any order of requests, against the model."""

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz.answer import Answer, check
from tests.fuzz.description import check_described
from tests.fuzz.door import Door
from tests.fuzz.profile import bounded
from tests.races.model import (
    ALGORITHMS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTETS,
    Condition,
    Expected,
    Upload,
    digest_of,
    fallback_tag,
)
from tests.races.verbs import Model

NAMES = ("a", "a/b", "c")
TAGS = ("v1", "v2", "latest")
CONTENTS = (b"", b"1", b"22", b"0123456789", b"x" * 3000)
ABSENT = digest_of(b"nobody has this")
TYPES = ("application/x-one", "application/x-two", None)
BLOBS = tuple(digest_of(content) for content in CONTENTS)

names = st.sampled_from(NAMES)
algorithms = st.sampled_from(("sha256", "sha256", *ALGORITHMS))
contents = st.sampled_from(CONTENTS)
offsets = st.one_of(st.none(), st.none(), st.integers(0, 12))
sizes = st.one_of(st.none(), st.integers(0, 4))
Given = st.DataObject


class Protocol(RuleBasedStateMachine):
    """Each rule asks the registry and the model, and compares the answers."""

    def __init__(self) -> None:
        super().__init__()
        self.door = Door()
        self.door.__enter__()
        self.model = Model()
        self.pushed: list[tuple[bytes, str]] = []  # manifests that were tried, to be tried again elsewhere
        self.closed: list[tuple[str, str]] = []  # sessions that are gone

    def teardown(self) -> None:
        try:
            self.look_at_everything()
        finally:
            self.door.__exit__(None, None, None)

    def compare(
        self, expected: Expected, method: str, target: str, headers: Any = (), body: bytes | list[bytes] = b""
    ) -> Answer:
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

    # Blobs

    @rule(name=names, content=contents, algorithm=algorithms, right=st.sampled_from([True, True, True, False]))
    def push_blob(self, name: str, content: bytes, algorithm: str, right: bool) -> None:
        digest = digest_of(content if right else content + b"!", algorithm)
        target = f"/v2/{name}/blobs/uploads/?digest={digest}"
        self.compare(self.model.push(name, digest, content), "POST", target, body=content)

    @rule(name=names, content=contents, source=st.one_of(st.none(), names), algorithm=algorithms)
    def mount(self, name: str, content: bytes, source: str | None, algorithm: str) -> None:
        digest = digest_of(content, algorithm)
        query = f"mount={digest}" + (f"&from={source}" if source else "")
        answer = self.compare(self.model.mount(name, digest, source), "POST", f"/v2/{name}/blobs/uploads/?{query}")
        if answer.status == 202:
            self._opened(name, answer)

    @rule(name=names, algorithm=algorithms)
    def open_session(self, name: str, algorithm: str) -> None:
        target = f"/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}"
        self._opened(name, self.compare(self.model.opened(name), "POST", target))

    def _opened(self, name: str, answer: Answer) -> None:
        upload = (answer.header("location") or "").rpartition("/")[2]
        assert upload not in self.model.uploads
        self.model.uploads[upload] = Upload(name)

    def _session(self, data: Given) -> tuple[str, str]:
        """A repository and a session, most often an open one of it."""
        opened = [(session.repository, upload) for upload, session in self.model.uploads.items()]
        absent = [("a", "no-session"), *self.closed[-2:]]
        name, upload = data.draw(st.sampled_from(opened * 4 + absent), "session")
        if data.draw(st.integers(0, 9), "elsewhere") == 0:
            name = data.draw(names, "of another repository")
        return name, upload

    def _chunk(
        self, data: Given, upload: str, content: bytes, offset: int | None
    ) -> tuple[int | None, list[tuple[str, str]], bytes | list[bytes]]:
        """``(first, headers, body)`` of a chunk that says where it starts, or does not; with a length, or without."""
        received = self.model.uploads[upload].received if upload in self.model.uploads else b""
        first = None if offset is None or not content else len(received) if offset > 3 else offset
        headers = [] if first is None else [("Content-Range", f"{first}-{first + len(content) - 1}")]
        if content and data.draw(st.booleans(), "in pieces"):
            return first, headers, [content[:1], content[1:]]
        return first, headers, content

    @rule(data=st.data(), content=contents, offset=offsets)
    def append(self, data: Given, content: bytes, offset: int | None) -> None:
        name, upload = self._session(data)
        first, headers, body = self._chunk(data, upload, content, offset)
        expected = self.model.append(name, upload, content, first)
        self.compare(expected, "PATCH", f"/v2/{name}/blobs/uploads/{upload}", headers, body)

    @rule(data=st.data(), content=contents, offset=offsets, algorithm=algorithms, right=st.integers(0, 5))
    def finish(self, data: Given, content: bytes, offset: int | None, algorithm: str, right: int) -> None:
        name, upload = self._session(data)
        first, headers, body = self._chunk(data, upload, content, offset)
        received = self.model.uploads[upload].received if upload in self.model.uploads else b""
        digest = digest_of(received + content if right else b"something else", algorithm)
        expected = self.model.finish(name, upload, digest, content, first)
        self.compare(expected, "PUT", f"/v2/{name}/blobs/uploads/{upload}?digest={digest}", headers, body)
        if expected.status == 201:
            self.closed.append((name, upload))

    @rule(data=st.data(), method=st.sampled_from(["GET", "HEAD"]))
    def session_status(self, data: Given, method: str) -> None:
        name, upload = self._session(data)
        self.compare(self.model.status(name, upload), method, f"/v2/{name}/blobs/uploads/{upload}")

    @rule(data=st.data())
    def cancel(self, data: Given) -> None:
        name, upload = self._session(data)
        expected = self.model.cancel(name, upload)
        self.compare(expected, "DELETE", f"/v2/{name}/blobs/uploads/{upload}")
        if expected.status == 204:
            self.closed.append((name, upload))

    @rule(name=names, content=contents, algorithm=algorithms, method=st.sampled_from(["GET", "HEAD"]))
    def get_blob(self, name: str, content: bytes, algorithm: str, method: str) -> None:
        digest = digest_of(content, algorithm)
        self.compare(self.model.get_blob(name, digest), method, f"/v2/{name}/blobs/{digest}")

    @rule(
        name=names,
        content=contents,
        asked=st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["{0}-{1}", "{0}-", "-{1}"])),
    )
    def get_part_of_blob(self, name: str, content: bytes, asked: tuple[int, int, str]) -> None:
        first, more, form = asked
        digest, span = digest_of(content), "bytes=" + form.format(first, first + more)
        expected = self.model.get_blob(name, digest, span)
        self.compare(expected, "GET", f"/v2/{name}/blobs/{digest}", [("Range", span)])

    @rule(data=st.data(), name=names, content=contents, algorithm=algorithms)
    def delete_blob(self, data: Given, name: str, content: bytes, algorithm: str) -> None:
        held = sorted(self.model.repositories[name].blobs) if name in self.model.repositories else []
        digest = data.draw(st.sampled_from([*held, digest_of(content, algorithm)]), "blob")
        self.compare(self.model.delete_blob(name, digest), "DELETE", f"/v2/{name}/blobs/{digest}")

    # Manifests

    def _descriptor(self, media_type: str, digest: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": digest, "size": 1}

    def _blob(self, data: Given, name: str) -> str:
        held = sorted(self.model.repositories[name].blobs) if name in self.model.repositories else []
        return data.draw(st.sampled_from(held * 3 + [BLOBS[1], ABSENT]), "blob")

    def _manifest(self, data: Given, name: str) -> tuple[str, str]:
        """``(digest, media type)`` of a manifest, most often one that the repository has."""
        held = self.model.repositories[name].manifests if name in self.model.repositories else {}
        known = [(digest, held[digest].media_type) for digest in sorted(held)]
        others = [(digest_of(content), media_type) for content, media_type in self.pushed[-3:]]
        return data.draw(st.sampled_from(known * 3 + others + [(ABSENT, OCI_MANIFEST)]), "manifest")

    def _common(self, data: Given, name: str) -> dict[str, Any]:
        document: dict[str, Any] = {"schemaVersion": 2}
        if artifact_type := data.draw(st.sampled_from(TYPES), "artifact type"):
            document["artifactType"] = artifact_type
        if data.draw(st.booleans(), "has a subject"):
            subject, media_type = self._manifest(data, name)
            document["subject"] = self._descriptor(media_type, subject)
        if data.draw(st.booleans(), "has annotations"):
            document["annotations"] = {"n": str(data.draw(st.integers(0, 3), "annotation"))}
        return document

    def _image(self, data: Given, name: str) -> tuple[bytes, str]:
        media_type = data.draw(st.sampled_from([OCI_MANIFEST, OCI_MANIFEST, DOCKER_MANIFEST]), "media type")
        document = self._common(data, name)
        if data.draw(st.booleans(), "has a config"):
            document["config"] = self._descriptor("application/x-config", self._blob(data, name))
        layers = data.draw(st.integers(0, 2), "layers")
        document["layers"] = [self._descriptor(OCTETS, self._blob(data, name)) for _ in range(layers)]
        return json.dumps(document).encode(), media_type

    def _index(self, data: Given, name: str) -> tuple[bytes, str]:
        media_type = data.draw(st.sampled_from([OCI_INDEX, OCI_INDEX, DOCKER_LIST]), "media type")
        document = self._common(data, name)
        document["manifests"] = []
        for _ in range(data.draw(st.integers(0, 2), "children")):
            if data.draw(st.integers(0, 3), "kind of child"):
                digest, child_type = self._manifest(data, name)
                document["manifests"].append(self._descriptor(child_type, digest))
            else:
                document["manifests"].append(self._descriptor(OCTETS, self._blob(data, name)))
        return json.dumps(document).encode(), media_type

    def _condition(self, data: Given, name: str) -> Condition:
        kind = data.draw(st.integers(0, 5), "precondition")
        if kind > 2:
            return Condition()
        listed = tuple(self._manifest(data, name)[0] for _ in range(data.draw(st.integers(1, 2), "digests")))
        if data.draw(st.integers(0, 3), "any") == 0:
            listed = ("*",)
        return Condition(match=listed) if kind < 2 else Condition(none_match=listed)

    def _put(self, data: Given, name: str, content: bytes, media_type: str, tag: str, condition: Condition) -> None:
        """By tag, by digest, or by digest with tags."""
        self.pushed.append((content, media_type))
        reference, also = tag, list[str]()
        if data.draw(st.integers(0, 2), "by digest") == 0:
            algorithm = data.draw(algorithms, "algorithm")
            wrong = data.draw(st.integers(0, 9), "wrong digest") == 0
            reference = ABSENT if wrong else digest_of(content, algorithm)
            more = data.draw(st.lists(st.sampled_from(TAGS), max_size=2), "tags")
            also = [tag, *more] if tag not in TAGS else more
        expected = self.model.put_manifest(name, reference, content, media_type, also, condition)
        query = "?" + "&".join(f"tag={each}" for each in also) if also else ""
        headers = [("Content-Type", media_type), *condition.headers]
        self.compare(expected, "PUT", f"/v2/{name}/manifests/{reference}{query}", headers, content)
        self.settle()

    @rule(data=st.data(), name=names, tag=st.sampled_from(TAGS))
    def put_image(self, data: Given, name: str, tag: str) -> None:
        self._put(data, name, *self._image(data, name), tag, self._condition(data, name))

    @rule(data=st.data(), name=names, tag=st.sampled_from(TAGS))
    def put_index(self, data: Given, name: str, tag: str) -> None:
        self._put(data, name, *self._index(data, name), tag, self._condition(data, name))

    @precondition(lambda self: self.pushed)
    @rule(data=st.data(), name=names, tag=st.sampled_from(TAGS), other_type=st.booleans())
    def put_again(self, data: Given, name: str, tag: str, other_type: bool) -> None:
        content, media_type = data.draw(st.sampled_from(self.pushed), "manifest")
        if other_type:
            others = {OCI_MANIFEST: DOCKER_MANIFEST, OCI_INDEX: DOCKER_LIST}
            media_type = (others | {other: own for own, other in others.items()})[media_type]
        self._put(data, name, content, media_type, tag, self._condition(data, name))

    @rule(data=st.data(), name=names, count=st.integers(0, 3))
    def put_referrers_list(self, data: Given, name: str, count: int) -> None:
        "As a client without the referrers API does; its own annotation keeps it apart from every other index."
        subject, _ = self._manifest(data, name)
        listed = [self._manifest(data, name) for _ in range(count)]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [self._descriptor(media_type, digest) for digest, media_type in dict(listed).items()],
            "annotations": {"list of": subject},
        }
        content, tag, condition = json.dumps(document).encode(), fallback_tag(subject), self._condition(data, name)
        expected = self.model.put_manifest(name, tag, content, OCI_INDEX, [], condition)
        headers = [("Content-Type", OCI_INDEX), *condition.headers]
        self.compare(expected, "PUT", f"/v2/{name}/manifests/{tag}", headers, content)
        self.settle()

    def _reference(self, data: Given, name: str) -> str:
        """A tag or a digest, most often one that is there."""
        repository = self.model.repositories.get(name)
        held = [*sorted(repository.tags), *sorted(repository.manifests)] if repository else []
        return data.draw(st.sampled_from(held * 3 + [*TAGS, ABSENT, "-no tag"]), "reference").replace(" ", "")

    @rule(data=st.data(), name=names, method=st.sampled_from(["GET", "HEAD"]), known=st.booleans())
    def get_manifest(self, data: Given, name: str, method: str, known: bool) -> None:
        reference = self._reference(data, name)
        digest = self._manifest(data, name)[0] if known else None
        headers = [("If-None-Match", f'"{digest}"')] if digest else []
        expected = self.model.get_manifest(name, reference, digest)
        self.compare(expected, method, f"/v2/{name}/manifests/{reference}", headers)

    @rule(data=st.data(), name=names)
    def delete_manifest(self, data: Given, name: str) -> None:
        reference, condition = self._reference(data, name), self._condition(data, name)
        expected = self.model.delete_manifest(name, reference, condition)
        self.compare(expected, "DELETE", f"/v2/{name}/manifests/{reference}", condition.headers)
        self.settle()

    # Listings

    @rule(name=names, n=sizes, last=st.sampled_from(["", "l", "latest", "v1", "~"]))
    def list_tags(self, name: str, n: int | None, last: str) -> None:
        self.compare(self.model.list_tags(name, n, last), "GET", f"/v2/{name}/tags/list{_query(n, last)}")

    @rule(n=sizes, last=st.sampled_from(["", "a", "a/", "b", "~"]))
    def list_repositories(self, n: int | None, last: str) -> None:
        self.compare(self.model.list_repositories(n, last), "GET", f"/v2/_catalog{_query(n, last)}")

    @rule(data=st.data(), name=names, wanted=st.sampled_from(TYPES), n=sizes)
    def list_referrers(self, data: Given, name: str, wanted: str | None, n: int | None) -> None:
        subject, _ = self._manifest(data, name)
        last = self._manifest(data, name)[0] if data.draw(st.booleans(), "not from the start") else ""
        query = _query(n, last) + (f"&artifactType={wanted}" if wanted else "")
        expected = self.model.list_referrers(name, subject, wanted, n, last)
        self.compare(expected, "GET", f"/v2/{name}/referrers/{subject}{query}")

    @invariant()
    def the_lists_agree(self) -> None:
        self.compare(self.model.list_repositories(None, ""), "GET", "/v2/_catalog")
        for name in NAMES:
            self.compare(self.model.list_tags(name, None, ""), "GET", f"/v2/{name}/tags/list")

    def look_at_everything(self) -> None:
        """Every tag, manifest, blob, session and list of referrers, there and not there."""
        digests = {digest for each in self.model.repositories.values() for digest in each.manifests}
        for name in NAMES:
            for digest in sorted(digests | {ABSENT}):
                self.compare(self.model.get_manifest(name, digest), "GET", f"/v2/{name}/manifests/{digest}")
                listed = self.model.list_referrers(name, digest, None, None, "")
                self.compare(listed, "GET", f"/v2/{name}/referrers/{digest}")
            for tag in (*TAGS, *map(fallback_tag, sorted(digests))):
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


def _query(n: int | None, last: str) -> str:
    return f"?last={last}" + ("" if n is None else f"&n={n}")


TestProtocol = Protocol.TestCase
TestProtocol.settings = bounded(60, steps=50)
