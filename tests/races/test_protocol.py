"""The whole protocol, in any order of requests, against the model."""

import json

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tests.fuzz.answer import Answer
from tests.fuzz.profile import bounded
from tests.races.machine import ABSENT, CONTENTS, SUBJECT, TAGS, TYPES, Given, Machine, mostly
from tests.races.model import (
    ALGORITHMS,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Condition,
    Upload,
    digest_of,
    fallback_tag,
)

names = st.sampled_from(("a", "a", "a", "a", "a/b", "c"))
algorithms = st.sampled_from(("sha256", "sha256", *ALGORITHMS))
contents = st.sampled_from(CONTENTS)
offsets = st.one_of(st.none(), st.none(), st.integers(0, 12))
sizes = st.one_of(st.none(), st.integers(0, 4))


class Protocol(Machine):
    """Each rule asks the registry and the model, and compares the answers."""

    # Blobs

    @initialize()
    def push_the_first(self) -> None:
        for content in CONTENTS[:3]:
            self.push_blob("a", content, "sha256", right=True)

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

    @precondition(lambda self: self.model.uploads)
    @rule(data=st.data(), content=contents, offset=offsets)
    def append(self, data: Given, content: bytes, offset: int | None) -> None:
        name, upload = self.session(data)
        first, headers, body = self.chunk(data, upload, content, offset)
        expected = self.model.append(name, upload, content, first)
        self.compare(expected, "PATCH", f"/v2/{name}/blobs/uploads/{upload}", headers, body)

    @precondition(lambda self: self.model.uploads)
    @rule(data=st.data(), content=contents, offset=offsets, algorithm=algorithms, right=st.integers(0, 5))
    def finish(self, data: Given, content: bytes, offset: int | None, algorithm: str, right: int) -> None:
        name, upload = self.session(data)
        first, headers, body = self.chunk(data, upload, content, offset)
        received = self.model.uploads[upload].received if upload in self.model.uploads else b""
        digest = digest_of(received + content if right else b"something else", algorithm)
        expected = self.model.finish(name, upload, digest, content, first)
        self.compare(expected, "PUT", f"/v2/{name}/blobs/uploads/{upload}?digest={digest}", headers, body)
        if expected.status == 201:
            self.closed.append((name, upload))

    @precondition(lambda self: self.model.uploads)
    @rule(data=st.data(), method=st.sampled_from(["GET", "HEAD"]))
    def session_status(self, data: Given, method: str) -> None:
        name, upload = self.session(data)
        self.compare(self.model.status(name, upload), method, f"/v2/{name}/blobs/uploads/{upload}")

    @precondition(lambda self: self.model.uploads)
    @rule(data=st.data())
    def cancel(self, data: Given) -> None:
        name, upload = self.session(data)
        expected = self.model.cancel(name, upload)
        self.compare(expected, "DELETE", f"/v2/{name}/blobs/uploads/{upload}")
        if expected.status == 204:
            self.closed.append((name, upload))

    @rule(data=st.data(), name=names, method=st.sampled_from(["GET", "HEAD"]))
    def get_blob(self, data: Given, name: str, method: str) -> None:
        digest = self.blob(data, name)
        self.compare(self.model.get_blob(name, digest), method, f"/v2/{name}/blobs/{digest}")

    @rule(
        data=st.data(),
        name=names,
        asked=st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["{0}-{1}", "{0}-", "-{1}"])),
    )
    def get_part_of_blob(self, data: Given, name: str, asked: tuple[int, int, str]) -> None:
        first, more, form = asked
        digest, span = self.blob(data, name), "bytes=" + form.format(first, first + more)
        expected = self.model.get_blob(name, digest, span)
        self.compare(expected, "GET", f"/v2/{name}/blobs/{digest}", [("Range", span)])

    @rule(data=st.data(), name=names)
    def delete_blob(self, data: Given, name: str) -> None:
        digest = self.blob(data, name)
        self.compare(self.model.delete_blob(name, digest), "DELETE", f"/v2/{name}/blobs/{digest}")

    # Manifests

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
        self._put(data, name, *self.image(data, name), tag, self.condition(data, name, tag))

    @rule(data=st.data(), name=names, tag=st.sampled_from(TAGS))
    def put_index(self, data: Given, name: str, tag: str) -> None:
        self._put(data, name, *self.index(data, name), tag, self.condition(data, name, tag))

    @precondition(lambda self: self.pushed)
    @rule(data=st.data(), name=names, tag=st.sampled_from((*TAGS, fallback_tag(SUBJECT))), other_type=st.booleans())
    def put_again(self, data: Given, name: str, tag: str, other_type: bool) -> None:
        content, media_type = data.draw(st.sampled_from(self.pushed), "manifest")
        if other_type:
            others = {OCI_MANIFEST: DOCKER_MANIFEST, OCI_INDEX: DOCKER_LIST}
            media_type = (others | {other: own for own, other in others.items()})[media_type]
        self._put(data, name, content, media_type, tag, self.condition(data, name, tag))

    @rule(data=st.data(), name=names, count=st.integers(0, 3))
    def put_referrers_list(self, data: Given, name: str, count: int) -> None:
        "As a client without the referrers API does."
        subject = self.subject(data, name)
        listed = [self.manifest(data, name) for _ in range(count)]
        document = {
            "schemaVersion": 2,
            "manifests": [self.descriptor(media_type, digest) for digest, media_type in dict(listed).items()],
        }
        content, tag = json.dumps(document).encode(), fallback_tag(subject)
        self.pushed.append((content, OCI_INDEX))
        condition = self.condition(data, name, tag)
        expected = self.model.put_manifest(name, tag, content, OCI_INDEX, [], condition)
        headers = [("Content-Type", OCI_INDEX), *condition.headers]
        self.compare(expected, "PUT", f"/v2/{name}/manifests/{tag}", headers, content)
        self.settle()

    @rule(data=st.data(), name=names, method=st.sampled_from(["GET", "HEAD"]), known=st.booleans())
    def get_manifest(self, data: Given, name: str, method: str, known: bool) -> None:
        reference = self.reference(data, name)
        digest = self.manifest(data, name)[0] if known else None
        headers = [("If-None-Match", f'"{digest}"')] if digest else []
        expected = self.model.get_manifest(name, reference, digest)
        self.compare(expected, method, f"/v2/{name}/manifests/{reference}", headers)

    @rule(data=st.data(), name=names, tag=st.sampled_from(TAGS), annotation=st.integers(0, 9))
    def put_referrer(self, data: Given, name: str, tag: str, annotation: int) -> None:
        subject = self.descriptor(OCI_MANIFEST, self.subject(data, name))
        document = {"schemaVersion": 2, "subject": subject, "layers": [], "annotations": {"n": str(annotation)}}
        self._put(data, name, json.dumps(document).encode(), OCI_MANIFEST, tag, Condition())

    @rule(data=st.data(), name=names)
    def delete_manifest(self, data: Given, name: str) -> None:
        reference = self.reference(data, name)
        condition = self.condition(data, name, reference)
        expected = self.model.delete_manifest(name, reference, condition)
        self.compare(expected, "DELETE", f"/v2/{name}/manifests/{reference}", condition.headers)
        self.settle()

    @rule(data=st.data(), name=names)
    def delete_referrer(self, data: Given, name: str) -> None:
        "It goes from the list of referrers too."
        held = self.model.repositories[name].manifests if name in self.model.repositories else {}
        referrers = [digest for digest in held if held[digest].subject]
        digest = str(mostly(data, referrers, [ABSENT], "referrer"))
        expected = self.model.delete_manifest(name, digest, Condition())
        self.compare(expected, "DELETE", f"/v2/{name}/manifests/{digest}")
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
        subject = self.subject(data, name)
        last = self.manifest(data, name)[0] if data.draw(st.booleans(), "not from the start") else ""
        query = _query(n, last) + (f"&artifactType={wanted}" if wanted else "")
        expected = self.model.list_referrers(name, subject, wanted, n, last)
        self.compare(expected, "GET", f"/v2/{name}/referrers/{subject}{query}")

    @invariant()
    def the_lists_agree(self) -> None:
        self.compare(self.model.list_repositories(None, ""), "GET", "/v2/_catalog")
        self.compare(self.model.list_tags(self.touched, None, ""), "GET", f"/v2/{self.touched}/tags/list")


def _query(n: int | None, last: str) -> str:
    return f"?last={last}" + ("" if n is None else f"&n={n}")


TestProtocol = Protocol.TestCase
TestProtocol.settings = bounded(50, steps=50)
