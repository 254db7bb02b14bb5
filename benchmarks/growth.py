"""Does Moorage stay as it is while it grows? The same at a thousand to a million tags; a million requests."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from benchmarks.client import Wire
from benchmarks.lists import TagList, tag_names
from benchmarks.loads import Load, check_bytes
from benchmarks.peers import Moorage, Peer
from benchmarks.reads import ManifestGetTag
from benchmarks.scale import Scale
from benchmarks.seeds import Seeds, numbered_manifest
from benchmarks.verbs import digest_of

REPOSITORY = "bench/list"
ASKED = 1000  # different tags, spread over all
TAGS = 10  # of a manifest


class Grown(Moorage):
    """Moorage with so many tags, ten for each manifest, as releases have them."""

    kind = "grown"

    def __init__(self, count: int) -> None:
        self.count = count
        self.name = f"{count:,} tags"  # type: ignore[misc]

    def scale(self, scale: Scale) -> Scale:
        return dataclasses.replace(scale, tags=self.count)


class Growth(Load):
    kinds = frozenset({"grown"})
    seeded = True
    apart = True

    @classmethod
    def among(cls, peers: Sequence[Peer], scale: Scale) -> list[Peer]:
        return [Grown(count) for count in scale.growth] if any(isinstance(peer, Moorage) for peer in peers) else []

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:
        count = scale.tags // TAGS
        seeds.manifests(
            REPOSITORY, ((tag_names(TAGS, number * TAGS), numbered_manifest(number)) for number in range(count))
        )


class GrowthManifest(Growth):
    name, what = "growth-manifest", "GET of a manifest by tag, of 1,000 tags in turn"

    async def prepare(self) -> None:
        count = self.scale.tags
        numbers = range(0, count, max(1, count // ASKED))
        self.asked: Iterator[tuple[bytes, int]] = itertools.cycle(
            [(self._request(number), len(numbered_manifest(number // TAGS))) for number in numbers]
        )

    def _request(self, number: int) -> bytes:
        return self.verbs.get_manifest(REPOSITORY, f"v{number:07}")

    async def check(self, wires: list[Wire]) -> None:
        content = numbered_manifest(self.scale.tags // TAGS - 1)
        request = self._request(self.scale.tags - 1)
        await check_bytes(wires[0], request, digest_of(content), len(content))

    async def operate(self, wires: list[Wire]) -> None:
        request, length = next(self.asked)
        await wires[0].ask(request, 200, length=length)


class GrowthPage(Growth, TagList):
    name, what, after = "growth-page", "a page of 100 tags in the middle", 0.5


class GrowthPush(Growth):
    name, what = "growth-push", "PUT of a manifest with a new tag"

    async def prepare(self) -> None:
        self.numbers = itertools.count(10_000_000)

    async def check(self, wires: list[Wire]) -> None:
        number = await self._push(wires[0])
        content = numbered_manifest(number)
        request = self.verbs.get_manifest(REPOSITORY, f"v{number}")
        await check_bytes(wires[0], request, digest_of(content), len(content))

    async def operate(self, wires: list[Wire]) -> None:
        await self._push(wires[0])

    async def _push(self, wire: Wire) -> int:
        number = next(self.numbers)
        await self.verbs.put_manifest(wire, REPOSITORY, f"v{number}", numbered_manifest(number))
        return number


class Endurance(ManifestGetTag):
    name, what = "endurance", "1,000,000 GETs of a manifest by tag, in ten turns: does memory grow?"
    apart = True

    @classmethod
    def among(cls, peers: Sequence[Peer], scale: Scale) -> list[Peer]:
        return [peer for peer in super().among(peers, scale) if isinstance(peer, Moorage)]

    @classmethod
    def rounds(cls, scale: Scale) -> int:  # noqa: ARG003 always the same
        return 10

    @classmethod
    def operations(cls, scale: Scale) -> int:
        return scale.requests // cls.rounds(scale)


LOADS: Sequence[type[Load]] = (GrowthManifest, GrowthPage, GrowthPush, Endurance)
