"""The requests that change a registry, each told to the model before it is sent and once it is answered."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tests.torture.model import Fact, Model, Operation, Pushed, Session, Value, digest_of
from tests.torture.wire import Answer, Connection, Unanswered, Unsent

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"

Body = bytes | Sequence[bytes]


class Refused(Exception):
    """The registry said 507, and so that nothing of the request was kept."""


@dataclass
class Pusher:
    """One client.

    ``dying`` tells whether the server may be gone, ``broken`` whether its disk goes with it, ``full`` whether that
    disk may have no room.
    """

    connection: Connection
    model: Model
    random: Random
    dying: Callable[[], bool] = lambda: False
    broken: Callable[[], bool] = lambda: False
    full: bool = False

    async def change(
        self,
        text: str,
        effects: Mapping[Fact, Value],
        expected: int,
        method: str,
        path: str,
        body: Body = b"",
        headers: Mapping[str, str] | None = None,
        **answered: str,
    ) -> Answer:
        """Send it; its ``effects`` are facts if the answer is ``expected``, with the headers ``answered``."""
        operation = Operation(text, effects)
        self.model.begin(operation)
        try:
            answer = await self.connection.request(method, path, body, headers)
        except Unsent:
            self.model.drop(operation, "never sent")
            raise
        except TimeoutError:
            raise self.model.violated(f"{text}: {method} {path} was never answered", *effects) from None
        if answer.status >= 500 and self.broken():
            raise Unanswered
        if answer.status == 507 and self.full:
            self.model.drop(operation, "refused for want of room")
            raise Refused
        wanted = {name.replace("_", "-"): value for name, value in answered.items()}
        seen = {name: answer.headers.get(name) for name in wanted}
        if answer.status != expected or seen != wanted:
            raise self.model.violated(
                f"{text}: {method} {path} should be answered with {expected} {wanted or ''}, but was with"
                f" {answer.status} {dict(answer.headers)} {answer.body[:1000]!r}",
                *effects,
            )
        self.model.acknowledge(operation)
        return answer

    async def push_blob(self, repository: str, content: bytes, algorithm: str = "sha256") -> str:
        """Push in one of the ways that the specification knows; the digest."""
        digest = digest_of(content, algorithm)
        ways = [self.post_and_put, self.single_post]
        if len(content) >= 100:
            ways += [self.streamed, self.chunked]
        await self.random.choices(ways, (3, 2, 3, 2)[: len(ways)])[0](repository, content, digest)
        return digest

    async def single_post(self, repository: str, content: bytes, digest: str) -> None:
        blob = Fact("blob", repository, digest)
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        body, headers = self._body(content)
        await self.change(
            "a single POST", {blob: len(content)}, 201, "POST", path, body, headers, docker_content_digest=digest
        )

    async def post_and_put(self, repository: str, content: bytes, digest: str) -> None:
        await self.finish(await self.start(repository, content, digest))

    async def streamed(self, repository: str, content: bytes, digest: str) -> None:
        upload = await self.start(repository, content, digest)
        await self.patch(upload, len(content), pieces=self.random.randint(2, 12))
        await self.finish(upload)

    async def chunked(self, repository: str, content: bytes, digest: str) -> None:
        """Five chunks, the last of them sometimes in the closing PUT."""
        upload = await self.start(repository, content, digest)
        for _ in range(4):
            await self.patch(upload, len(content) // 5)
        if self.random.random() < 0.6:
            await self.patch(upload, self.session(upload)[1])
        await self.finish(upload)

    async def resume(self, upload: Fact) -> str:
        """Bring an unfinished upload to its end; the digest of the blob."""
        session, left = self.session(upload)
        if left > 3 and self.random.random() < 0.6:
            await self.patch(upload, left // 2, pieces=self.random.choice((0, 0, 3)))
        if self.random.random() < 0.5 and (left := self.session(upload)[1]):
            await self.patch(upload, left)
        await self.finish(upload)
        return session.digest

    def session(self, upload: Fact) -> tuple[Session, int]:
        """A session and how many bytes it lacks."""
        session = self.model.value(upload)
        assert isinstance(session, Session)
        return session, len(session.content) - session.received

    async def start(self, repository: str, content: bytes, digest: str) -> Fact:
        algorithm = digest.partition(":")[0]
        query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
        path = f"/v2/{repository}/blobs/uploads/{query}"
        answer = await self.change("an upload session is opened", {}, 202, "POST", path)
        upload = Fact("upload", repository, answer.headers["location"].rpartition("/")[2])
        opened = Operation("an upload session is opened", {upload: Session(content, digest)})
        self.model.begin(opened)
        self.model.acknowledge(opened)
        return upload

    async def patch(self, upload: Fact, count: int, pieces: int = 0) -> None:
        """Send the next ``count`` bytes: as a chunk with its range, or streamed in ``pieces``."""
        session, _ = self.session(upload)
        end = session.received + count
        body: Body = session.content[session.received : end]
        headers = {} if pieces else {"Content-Range": f"{session.received}-{end - 1}"}
        if pieces:
            body = split(session.content[session.received : end], pieces)
        await self.change(
            f"PATCH of the bytes {session.received} to {end} of {len(session.content)} ({pieces or 'no'} pieces)",
            {upload: Session(session.content, session.digest, end)},
            202,
            "PATCH",
            path_of(upload),
            body,
            headers,
            range=f"0-{end - 1}",
        )

    async def finish(self, upload: Fact) -> None:
        """Close a session with what it lacks."""
        session, left = self.session(upload)
        blob = Fact("blob", upload.repository, session.digest)
        body, headers = self._body(session.content[session.received :])
        if left:
            headers |= {"Content-Range": f"{session.received}-{len(session.content) - 1}"} if session.received else {}
        await self.change(
            f"the closing PUT of {session.digest} with the last {left} of {len(session.content)} bytes",
            {upload: None, blob: len(session.content)},
            201,
            "PUT",
            f"{path_of(upload)}?digest={session.digest}",
            body,
            headers,
            docker_content_digest=session.digest,
        )

    async def cancel(self, upload: Fact) -> None:
        await self.change("an upload session is cancelled", {upload: None}, 204, "DELETE", path_of(upload))

    async def mount(self, source: Fact, repository: str) -> None:
        blob = Fact("blob", repository, source.name)
        origin = f"&from={source.repository}" if self.random.random() < 0.7 else ""
        path = f"/v2/{repository}/blobs/uploads/?mount={source.name}{origin}"
        effects = {blob: self.model.value(source)}
        await self.change(f"mount{origin}", effects, 201, "POST", path, docker_content_digest=source.name)

    async def put_manifest(self, repository: str, pushed: Pushed, tags: Sequence[str], algorithm: str = "") -> str:
        """Push by tag, or by digest with all its ``tags`` where an ``algorithm`` is given; the digest."""
        digest = digest_of(pushed.content, algorithm or "sha256")
        effects: dict[Fact, Value] = {Fact("manifest", repository, digest): pushed}
        effects |= {Fact("tag", repository, tag): digest for tag in tags}
        answered = {"docker_content_digest": digest}
        if pushed.subject:
            answered["oci_subject"] = pushed.subject
        path = f"/v2/{repository}/manifests/{tags[0] if tags else ''}"
        if algorithm:
            path = f"/v2/{repository}/manifests/{digest}" + "".join(
                f"{'&' if n else '?'}tag={tag}" for n, tag in enumerate(tags)
            )
            if tags:
                answered["oci_tag"] = ", ".join(tags)
        text = f"PUT of the manifest {digest} with the tags {list(tags)}"
        headers = {"Content-Type": pushed.media_type}
        await self.change(text, effects, 201, "PUT", path, pushed.content, headers, **answered)
        return digest

    async def delete(self, fact: Fact) -> None:
        """Delete a tag, a blob, or a manifest, which takes its tags with it."""
        effects: dict[Fact, Value] = {fact: None}
        if fact.kind == "manifest":
            effects |= {tag: None for tag, digest in self.model.of(fact.repository, "tag") if digest == fact.name}
        collection = "blobs" if fact.kind == "blob" else "manifests"
        path = f"/v2/{fact.repository}/{collection}/{fact.name}"
        await self.change(f"DELETE of the {fact.kind} {fact.name}", effects, 202, "DELETE", path)

    def _body(self, content: bytes) -> tuple[Body, dict[str, str]]:
        """``content`` in one go, or paced with its length announced."""
        if len(content) > 4096 and self.random.random() < 0.3:
            return split(content, 4), {"Content-Length": str(len(content))}
        return content, {}


def path_of(upload: Fact) -> str:
    return f"/v2/{upload.repository}/blobs/uploads/{upload.name}"


def split(content: bytes, pieces: int) -> list[bytes]:
    """``content`` in about as many ``pieces``, none of them empty."""
    step = max(1, -(-len(content) // pieces))
    return [content[at : at + step] for at in range(0, len(content), step)]


def image(layers: Mapping[str, int], config: tuple[str, int] | None, **more: object) -> Pushed:
    """An image manifest over blobs of the given sizes; ``more`` are its other fields."""
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    if config is not None:
        document["config"] = {"mediaType": CONFIG, "digest": config[0], "size": config[1]}
    document["layers"] = [{"mediaType": LAYER, "digest": digest, "size": size} for digest, size in layers.items()]
    subject = more.get("subject")
    needs = frozenset(layers) | ({config[0]} if config else frozenset())
    return Pushed(
        OCI_MANIFEST,
        json.dumps(document | more).encode(),
        str(subject["digest"]) if isinstance(subject, dict) else None,
        needs,
    )


def index(manifests: Mapping[str, Pushed], **more: object) -> Pushed:
    """An image index over manifests; ``more`` are its other fields."""
    entries = [
        {"mediaType": each.media_type, "digest": digest, "size": len(each.content)}
        for digest, each in manifests.items()
    ]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}
    return Pushed(OCI_INDEX, json.dumps(document).encode(), needs=frozenset(manifests))
