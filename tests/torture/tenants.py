"""Clients whose repositories are known in spite of everything that goes on beside them.

A tenant alone changes its repositories; blobs are shared with all tenants, and mounted from them. Only what nothing
holds may go meanwhile, at whatever time: the grace may be zero.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.torture.holdings import Document, Repository
from tests.torture.model import Violation, digest_of
from tests.torture.pushes import CONFIG, LAYER, OCI_INDEX, OCI_MANIFEST
from tests.torture.wire import Answer, Connection

REPOSITORIES = 2  # of each tenant
TAGS = ("v1", "v2", "latest")
SHARED = 40  # contents that all tenants push
RARE = 8  # contents that all tenants push, and few manifests need
ATTEMPTS = 200  # pushes of one manifest whose blobs are collected again and again
MOST = 30  # manifests in a repository, until many are deleted at once


@dataclass
class Done:
    """What was done, and how often collection was in the way of a push."""

    operations: int = 0
    refused: int = 0
    pulled: int = 0


@dataclass
class Tenant:
    """One client of several nodes. With ``history`` whatever was deleted must be restorable."""

    number: int
    tenants: int
    connections: Sequence[Connection]
    random: Random
    history: bool
    done: Done = field(default_factory=Done)
    repositories: list[Repository] = field(init=False)
    resting: asyncio.Event = field(default_factory=asyncio.Event)
    _count: int = 0

    def __post_init__(self) -> None:
        self.repositories = [Repository(name_of(self.number, n)) for n in range(REPOSITORIES)]
        self._contents: dict[str, bytes] = {}

    async def work(self, over: Callable[[], bool], gate: asyncio.Event | None = None) -> None:
        """One operation after another until it is ``over``; none begins while the ``gate`` is closed."""
        while not over():
            if gate is not None and not gate.is_set():
                self.resting.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await gate.wait()
                continue
            self.resting.clear()
            await self.operate()
        self.resting.set()

    async def operate(self) -> None:
        """One operation."""
        verbs = {
            self.push_image: 30,
            self.push_index: 10,
            self.push_referrer: 10,
            self.retag: 6,
            self.delete_tag: 6,
            self.delete_manifest: 14,
            self.delete_blob: 4,
            self.restore: 8,
            self.mount: 12,
            self.pull: 10,
        }
        repository = self.random.choice(self.repositories)
        verb = self.random.choices(list(verbs), list(verbs.values()))[0]
        if len(repository.manifests) > MOST:
            verb = self.delete_manifest
        before = repository.doubtful()
        await verb(repository)
        await self._settle(repository, before)
        self.done.operations += 1

    async def _settle(self, repository: Repository, before: set[str]) -> None:
        """What nothing held and something holds now is there from now on, unless it went before that."""
        for digest in before - repository.doubtful():
            if digest in repository.manifests and not await self.there(repository, digest):
                repository.remove(digest)

    # Pushing

    async def push_image(self, repository: Repository) -> None:
        blobs = [self.content() for _ in range(self.random.randint(1, 4))]
        await self._push(repository, self.image(blobs), blobs, self.tag())

    async def push_referrer(self, repository: Repository) -> None:
        """Of a manifest that is there."""
        if sure := repository.sure():
            subject = self.random.choice(list(sure))
            blobs = [self.content()]
            described = {"mediaType": sure[subject].media_type, "digest": subject, "size": len(sure[subject].content)}
            await self._push(repository, self.image(blobs, subject=described), blobs, None)

    async def push_index(self, repository: Repository) -> None:
        sure = repository.sure()
        chosen = self.random.sample(list(sure), min(len(sure), self.random.randint(0, 3)))
        listed = [
            {"mediaType": sure[each].media_type, "digest": each, "size": len(sure[each].content)} for each in chosen
        ]
        content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed, **self.annotations()}
        await self._push(
            repository,
            Document(json.dumps(content).encode(), OCI_INDEX, children=frozenset(chosen)),
            [],
            self.tag(),
        )

    async def retag(self, repository: Repository) -> None:
        """Push what was pushed before, whether it is there or not."""
        choices = [each for each in repository.pushed.values() if each.children <= repository.sure().keys()]
        if choices:
            document = self.random.choice(choices)
            await self._push(repository, document, [self._contents[each] for each in document.blobs], self.tag())

    async def _push(
        self, repository: Repository, document: Document, blobs: Sequence[bytes], tag: str | None
    ) -> None:
        """Blobs that need it, then the manifest; what was collected in between is pushed again."""
        digest = digest_of(document.content)
        for content in blobs:
            await self.bring_blob(repository, content)
        missing = await self._put(repository, digest, document, tag)
        attempts = 0
        while missing:
            self.done.refused += 1
            if missed := missing & (repository.needed() | repository.sure().keys()):
                raise self.violated(repository, f"a push of {digest} misses {missed}, which others here need")
            attempts += 1
            if attempts > ATTEMPTS:
                raise self.violated(repository, f"{digest} was refused {ATTEMPTS} times")
            for each in missing:
                await self.push_blob(repository, self._contents[each])
            missing = await self._put(repository, digest, document, tag)
        repository.manifests[digest] = repository.pushed[digest] = document
        repository.orphans.discard(digest)
        repository.touch(digest)
        if tag:
            self._name(repository, tag, digest)
        if self.random.random() < 0.4:
            await self.pull_manifest(repository, digest)

    def _name(self, repository: Repository, tag: str, digest: str) -> None:
        if tag in repository.tags:
            repository.touch(repository.tags[tag])
        repository.tags[tag] = digest
        repository.named.setdefault(tag, []).append(digest)

    async def _put(self, repository: Repository, digest: str, document: Document, tag: str | None) -> set[str]:
        """Put a manifest; what the registry misses of its content."""
        path = f"/v2/{repository.name}/manifests/{tag or digest}"
        answer = await self.ask(
            repository, "PUT", path, document.content, {"Content-Type": document.media_type}, among=(201, 404)
        )
        if answer.status == 201:
            return set()
        return {each["detail"]["digest"] for each in json.loads(answer.body)["errors"]}

    async def bring_blob(self, repository: Repository, content: bytes) -> None:
        """As clients do: ask whether it is there, or mount it, or push it at once."""
        digest = digest_of(content)
        self._contents[digest] = content
        way = self.random.random()
        if way < 0.4:
            answer = await self.ask(repository, "HEAD", f"/v2/{repository.name}/blobs/{digest}", among=(200, 404))
            if answer.status == 200:
                return
            if digest in repository.needed():
                raise self.violated(repository, f"{digest} is gone, which a manifest here needs")
        elif way < 0.8 and await self._mount(repository, digest):
            return
        await self.push_blob(repository, content)

    async def mount(self, repository: Repository) -> None:
        """Link what hardly anybody has, so that it may be collected just now; sometimes a manifest needs it then."""
        content = Random(f"rare {self.random.randrange(RARE)}").randbytes(2000)
        digest = digest_of(content)
        self._contents[digest] = content
        if self.random.random() < 0.5:
            await self.push_blob(self.random.choice(self.repositories), content)
        if await self._mount(repository, digest) and self.random.random() < 0.5:
            await self._push(repository, self.image([content]), [], None)

    async def _mount(self, repository: Repository, digest: str) -> bool:
        """From another repository of one's own, of somebody else, or from wherever it is."""
        path = f"/v2/{repository.name}/blobs/uploads/?mount={digest}"
        own = self.random.choice(self.repositories)
        source = self.random.choice((own.name, name_of(self.random.randrange(self.tenants), 0), ""))
        path += f"&from={source}" if source else ""
        answer = await self.ask(repository, "POST", path, among=(201, 202))
        if answer.status == 201:
            return True
        if digest in own.needed() and source in (own.name, ""):
            raise self.violated(own, f"{digest} was not mounted, which a manifest of {own.name} needs")
        await self.ask(repository, "DELETE", answer.headers["location"], among=(204,))
        return False

    async def push_blob(self, repository: Repository, content: bytes) -> None:
        """In one of three ways."""
        digest, uploads = digest_of(content), f"/v2/{repository.name}/blobs/uploads/"
        way = self.random.randrange(3)
        if way == 0:
            await self.ask(repository, "POST", f"{uploads}?digest={digest}", content, among=(201,))
            return
        session = (await self.ask(repository, "POST", uploads, among=(202,))).headers["location"]
        rest = content
        if way == 2:
            half = len(content) // 2
            await self.ask(repository, "PATCH", session, content[:half], among=(202,))
            rest = content[half:]
        await self.ask(repository, "PUT", f"{session}?digest={digest}", rest, among=(201,))

    # Taking away and bringing back

    async def delete_tag(self, repository: Repository) -> None:
        if repository.tags:
            tag = self.random.choice(list(repository.tags))
            await self.ask(repository, "DELETE", f"/v2/{repository.name}/manifests/{tag}", among=(202,))
            repository.touch(repository.tags.pop(tag))

    async def delete_manifest(self, repository: Repository) -> None:
        """Some that no index lists."""
        listed = {child for each in repository.manifests.values() for child in each.children}
        choices = [each for each in repository.manifests if each not in listed]
        count = len(choices) // 2 if len(repository.manifests) > MOST else 1
        for digest in self.random.sample(choices, min(count, len(choices))):
            if digest not in repository.manifests:
                continue
            among = (202, 404) if digest in repository.doubtful() else (202,)
            await self.ask(repository, "DELETE", f"/v2/{repository.name}/manifests/{digest}", among=among)
            repository.remove(digest)

    async def delete_blob(self, repository: Repository) -> None:
        """One that no manifest needs, nor any that the history has."""
        documents = repository.pushed if self.history else repository.manifests
        needed = {blob for each in documents.values() for blob in each.blobs}
        choices = [each for each in self._contents if each not in needed]
        if choices:
            path = f"/v2/{repository.name}/blobs/{self.random.choice(choices)}"
            await self.ask(repository, "DELETE", path, among=(202, 404))

    async def restore(self, repository: Repository) -> None:
        """Let a tag name again what it named once."""
        if not repository.named:
            return
        tag = self.random.choice(list(repository.named))
        digest = self.random.choice(repository.named[tag])
        must = self.history or digest in repository.sure()
        path = f"/v2/{repository.name}/_moorage/restore/{tag}?to={digest}"
        if (await self.ask(repository, "POST", path, among=(201,) if must else (201, 404))).status != 201:
            return
        self._name(repository, tag, digest)
        waiting, seen = [digest], set[str]()
        while waiting:
            each = waiting.pop()
            if each in seen or not await self.there(repository, each):
                continue
            seen.add(each)
            document = repository.manifests[each] = repository.pushed[each]
            repository.touch(each)
            waiting += document.children
            waiting += [other for other, known in repository.pushed.items() if known.subject == each]
        repository.orphans = {each for each in repository.orphans if not repository.held(each, set())}
        await self.pull_manifest(repository, digest)

    # Looking

    async def pull(self, repository: Repository) -> None:
        """A tag, or whatever must be there."""
        if tags := list(repository.tags):
            tag = self.random.choice(tags)
            await self.pull_manifest(repository, repository.tags[tag], tag)
        if sure := list(repository.sure()):
            await self.pull_manifest(repository, self.random.choice(sure))

    async def pull_manifest(self, repository: Repository, digest: str, tag: str | None = None) -> None:
        """A manifest that must be there, with everything that it needs."""
        document = repository.pushed[digest]
        answer = await self.ask(repository, "GET", f"/v2/{repository.name}/manifests/{tag or digest}", among=(200,))
        if answer.body != document.content or answer.headers["docker-content-digest"] != digest:
            raise self.violated(repository, f"{tag or digest} should be {digest}, but is {answer.headers}")
        for blob in sorted(document.blobs):
            answer = await self.ask(repository, "GET", f"/v2/{repository.name}/blobs/{blob}", among=(200,))
            if digest_of(answer.body) != blob:
                raise self.violated(repository, f"{blob} is served with the bytes of {digest_of(answer.body)}")
            self.done.pulled += 1
        for child in sorted(document.children):
            await self.pull_manifest(repository, child)

    async def verify(self, *, exactly: bool = False) -> None:
        """All that must be there, and the tags; ``exactly``: what may be gone is."""
        for repository in self.repositories:
            for digest in repository.unclear if exactly else ():
                if digest in repository.doubtful() and await self.there(repository, digest):
                    repository.settled.add(digest)
            sure = repository.sure()
            for digest in sure:
                await self.pull_manifest(repository, digest)
            for tag, digest in repository.tags.items():
                await self.pull_manifest(repository, digest, tag)
            answer = await self.ask(repository, "GET", f"/v2/{repository.name}/tags/list", among=(200, 404))
            tags = json.loads(answer.body)["tags"] if answer.status == 200 else []
            if tags != sorted(repository.tags):
                raise self.violated(repository, f"the tags are {tags}, not {sorted(repository.tags)}")
            for digest in repository.pushed.keys() - sure.keys() if exactly else ():
                if await self.there(repository, digest):
                    raise self.violated(repository, f"{digest} is still there, and nothing holds it", digest)

    async def there(self, repository: Repository, digest: str) -> bool:
        answer = await self.ask(repository, "HEAD", f"/v2/{repository.name}/manifests/{digest}", among=(200, 404))
        return answer.status == 200

    async def ask(
        self,
        repository: Repository,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        among: tuple[int, ...],
    ) -> Answer:
        """The answer of any node, which must have one of these statuses."""
        node = self.random.randrange(len(self.connections))
        answer = await self.connections[node].request(method, path, body, headers)
        named = digest_of(body) if "/manifests/" in path and body else ""
        repository.story.append(f"node {node}: {method} {path}: {answer.status} {named}")
        if answer.status not in among:
            raise self.violated(
                repository, f"{method} {path} should be answered with {among}: {answer.status} {answer.body[:600]!r}"
            )
        return answer

    def violated(self, repository: Repository, what: str, about: str = "") -> Violation:
        """The error with what happened last, and with all that happened to a digest."""
        sure, doubtful = sorted(repository.sure()), sorted(repository.doubtful())
        related = [
            each for each, known in repository.pushed.items() if about in known.children | {known.subject, each}
        ]
        story = [line for line in repository.story[:-40] if about and any(each in line for each in related)]
        last = repository.story[-40:]
        return Violation("\n  ".join([what, f"must be there: {sure}", f"may be: {doubtful}", *story, "…", *last]))

    # Content

    def content(self) -> bytes:
        """Mostly what others push too."""
        if self.random.random() < 0.7:
            n = self.random.randrange(SHARED)
            return Random(f"shared {n}").randbytes(500 * (n + 1) if n % 8 else 200_000)
        return self.random.randbytes(self.random.choice((100, 3000, 30_000)))

    def image(self, blobs: Sequence[bytes], **more: Any) -> Document:
        """A manifest that is like no other."""
        kinds = (CONFIG, *[LAYER] * (len(blobs) - 1))
        config, *layers = (
            {"mediaType": kind, "digest": digest_of(each), "size": len(each)}
            for kind, each in zip(kinds, blobs, strict=True)
        )
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        content = json.dumps(document | self.annotations() | more).encode()
        subject = more.get("subject")
        return Document(
            content, OCI_MANIFEST, frozenset(map(digest_of, blobs)), subject=subject["digest"] if subject else None
        )

    def annotations(self) -> dict[str, Any]:
        self._count += 1
        return {"annotations": {"org.example.n": f"{self.number} {self._count}"}}

    def tag(self) -> str | None:
        return self.random.choice((*TAGS, None))


def name_of(tenant: int, number: int) -> str:
    return f"tenant-{tenant}/{'ab'[number]}"
