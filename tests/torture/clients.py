"""What a client does: one operation after another, chosen by its seed, until the server is killed."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.torture.model import Fact, Pushed, Violation, digest_of
from tests.torture.pushes import Pusher, Refused, image, index
from tests.torture.verify import verify_fact
from tests.torture.wire import Unanswered, Unsent

CLIENTS = 8
TURNS_PER_REPOSITORY = 4  # then a client takes the next, so that no listing grows without bound
_T = TypeVar("_T")


class Client(Pusher):
    """It owns its repositories, and pushes blobs, never to be deleted, to one that all clients share."""

    def set_up(self, number: int, turn: int) -> None:
        self.number, self.turn = number, turn
        generation = turn // TURNS_PER_REPOSITORY
        self.own = f"torture/client-{number}/{generation}"
        self.shared = f"torture/shared/{generation}"
        self.count = 0

    async def operate(self) -> None:
        """One operation."""
        verbs: dict[Callable[[], Awaitable[object]], int] = {
            self.new_blob: 30,
            self.new_image: 14,
            self.many_tags: 8,
            self.new_index: 5,
            self.referrer: 9,
            self.mounted: 8,
            self.retag: 6,
            self.deletion: 10,
            self.cancelled: 2,
            self.left_behind: 5,
            self.pull: 12,
        }
        with contextlib.suppress(Refused):
            await self.random.choices(list(verbs), list(verbs.values()))[0]()

    async def work(self) -> None:
        """Until the server is gone; raises ``Violation`` if that was not our doing."""
        try:
            while not self.dying():
                await self.operate()
        except (Unsent, Unanswered, TimeoutError) as error:
            if not self.dying():
                unknown = [operation.text for operation in self.model.unknown]
                raise Violation(
                    f"the server hung up on client {self.number}: {error!r}; unanswered: {unknown}"
                ) from error

    async def new_blob(self) -> tuple[str, int]:
        """Push something new, or what others may be pushing at this very moment."""
        repository = self.shared if self.random.random() < 0.25 else self.own
        content = self.content()
        algorithm = self.random.choices(("sha256", "sha512", "blake3"), (8, 1, 1))[0]
        return await self.push_blob(repository, content, algorithm), len(content)

    async def new_image(self) -> None:
        await self.put_manifest(self.own, await self.an_image(), [self.tag()])

    async def many_tags(self) -> None:
        """By digest, with several tags at once: old ones that move and new ones."""
        tags = list(dict.fromkeys(self.tag() for _ in range(self.random.randint(0, 6))))
        algorithm = self.random.choices(("sha256", "sha512", "blake3"), (6, 1, 1))[0]
        await self.put_manifest(self.own, await self.an_image(), tags, algorithm)

    async def new_index(self) -> None:
        manifests = self.manifests()
        chosen = dict(self.random.sample(manifests, min(len(manifests), self.random.randint(0, 3))))
        await self.put_manifest(self.own, index(chosen, annotations=self.annotation()), [self.tag()])

    async def referrer(self) -> None:
        """Of a manifest that is there, or of one that may come later."""
        layer = self.any(self.loose()) or await self.own_layer()
        digest, known = self.any(self.manifests()) or (f"sha256:{self.random.randbytes(32).hex()}", None)
        size = len(known.content) if known else 1000
        media_type = "application/vnd.oci.image.manifest.v1+json"
        subject = {"mediaType": media_type, "digest": digest, "size": size}
        kind = f"application/vnd.example.kind-{self.random.randrange(3)}"
        pushed = image(dict([layer]), None, artifactType=kind, subject=subject, annotations=self.annotation())
        await self.put_manifest(self.own, pushed, [], "sha256")

    async def mounted(self) -> None:
        if source := self.any(self.model.of(self.shared, "blob")):
            await self.mount(source[0], self.own)

    async def retag(self) -> None:
        """Push a manifest that is there under a tag that may name another."""
        choice = self.any([each for each in self.manifests() if each[0].startswith("sha256:")])
        if choice:
            await self.put_manifest(self.own, choice[1], [self.tag()], self.random.choice(("", "sha256")))

    async def deletion(self) -> None:
        """Of a tag, of a manifest that no index needs, or of a blob that no manifest needs."""
        needed = self.needed()
        choices = (
            [fact for fact, _ in self.model.of(self.own, "tag")],
            [Fact("manifest", self.own, digest) for digest, _ in self.manifests() if digest not in needed],
            [Fact("blob", self.own, digest) for digest, _ in self.loose()],
        )
        if fact := self.any(self.random.choice(choices)):
            await self.delete(fact)

    async def cancelled(self) -> None:
        content = self.content()
        upload = await self.start(self.own, content, digest_of(content))
        if content:
            await self.patch(upload, len(content))
        await self.cancel(upload)

    async def left_behind(self) -> None:
        """Go on with an upload that a kill left unfinished."""
        if upload := self.any(self.model.of(self.own, "upload")):
            await self.resume(upload[0])

    async def pull(self) -> None:
        if fact := self.any(list(self.model.facts[self.own])):
            try:
                await verify_fact(self.connection, self.model, fact)
            except Violation:
                if not self.broken():
                    raise

    def any(self, choices: Sequence[_T]) -> _T | None:
        return self.random.choice(choices) if choices else None

    def manifests(self) -> list[tuple[str, Pushed]]:
        return [(fact.name, each) for fact, each in self.model.of(self.own, "manifest") if isinstance(each, Pushed)]

    def needed(self) -> frozenset[str]:
        return frozenset().union(*(each.needs for _, each in self.manifests()))

    def loose(self) -> list[tuple[str, int]]:
        """Blobs that no manifest needs."""
        needed = self.needed()
        blobs = [(fact.name, size) for fact, size in self.model.of(self.own, "blob") if isinstance(size, int)]
        return [each for each in blobs if each[0] not in needed]

    async def own_layer(self) -> tuple[str, int]:
        content = self.content()
        return await self.push_blob(self.own, content), len(content)

    async def an_image(self) -> Pushed:
        """A config and layers, some of them there before."""
        layers = dict([await self.own_layer() for _ in range(self.random.randint(0, 2))])
        if spare := self.any(self.loose()):
            layers |= dict([spare])
        config = self.random.randbytes(200).hex().encode()
        return image(layers, (await self.push_blob(self.own, config), len(config)))

    def tag(self) -> str:
        """One of a few that move, or a new one."""
        self.count += 1
        new = f"v{self.turn}.{self.count}"
        return self.random.choice((new, f"moving-{self.random.randrange(6)}"))

    def annotation(self) -> dict[str, str]:
        self.count += 1
        return {"org.example.n": f"{self.number} {self.turn} {self.count}"}

    def content(self) -> bytes:
        """Mostly small; a fifth of it is the same for all clients of this turn."""
        random = self.random
        if random.random() < 0.2:
            random = type(random)(f"content {self.turn} {random.randrange(12)}")
        most = random.choices((0, 4_000, 64_000, 600_000, 12_000_000), (1, 60, 29, 8, 2))[0]
        return random.randbytes(random.randint(2, most) if most else 0)
