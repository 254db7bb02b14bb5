"""Loads that list: tags, repositories, referrers; a list longer than a page is followed to its end by ``Link``."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from benchmarks.client import LoadError, Wire
from benchmarks.loads import Load
from benchmarks.scale import Scale
from benchmarks.seeds import Seeds, numbered_manifest
from benchmarks.verbs import digest_of

REPOSITORY = "bench/list"
REGISTRIES = frozenset({"registry"})


def tag_names(count: int, first: int = 0) -> list[str]:
    return [f"v{number:07}" for number in range(first, first + count)]


class Listing(Load):
    """Asks for a list, page by page."""

    kinds = REGISTRIES
    clients = 8
    seeded = True
    key: ClassVar[str]  # of the list in the answer
    follows: ClassVar[bool] = False  # to the last page

    async def prepare(self) -> None:
        self.requests = [self.target.server.request("GET", self.first())]

    def first(self) -> str:
        """The path and query of the first request."""
        raise NotImplementedError

    def expected(self) -> list[str]:
        """All that is listed."""
        raise NotImplementedError

    def names(self, found: Iterable[object]) -> list[str]:
        return [str(one) for one in found]

    async def check(self, wires: list[Wire]) -> None:
        found: list[str] = []
        self.lengths: list[int] = []
        for request in self.requests:  # which grows
            answer = await wires[0].ask(request, 200, keep=True)
            found += self.names(json.loads(answer.body)[self.key])
            self.lengths.append(answer.length)
            if self.follows and (link := wires[0].link):
                self.requests.append(self.target.server.request("GET", link))
        expected = self.expected()
        if sorted(found) != sorted(expected):
            raise LoadError(f"{len(found)} entries from {found[:1]} instead of {len(expected)} from {expected[:1]}")

    async def operate(self, wires: list[Wire]) -> None:
        for request, length in zip(self.requests, self.lengths, strict=True):
            await wires[0].ask(request, 200, length=length)


class TagList(Listing):
    key = "tags"
    after: ClassVar[float] = 0.0  # how far into the list the page starts

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:
        seeds.manifests(REPOSITORY, [(tag_names(scale.tags), numbered_manifest(0))])

    def first(self) -> str:
        start = int(self.scale.tags * self.after)
        last = f"&last={tag_names(start)[-1]}" if start else ""
        return f"/v2/{REPOSITORY}/tags/list?n={self.scale.page}{last}"

    def expected(self) -> list[str]:
        start = int(self.scale.tags * self.after)
        return tag_names(self.scale.tags)[start : start + self.scale.page]


class TagsFirst(TagList):
    name, what = "tags-first", "the first page of 100 of 100,000 tags"


class TagsMiddle(TagList):
    name, what, after = "tags-middle", "a page of 100 in the middle of 100,000 tags", 0.5


class TagsAll(TagList):
    name, what = "tags-all", "all of 100,000 tags, in pages of 10,000 where there are pages"
    apart = True
    clients, follows = 1, True

    def first(self) -> str:
        return f"/v2/{REPOSITORY}/tags/list?n={max(self.scale.page, self.scale.tags // 10)}"

    def expected(self) -> list[str]:
        return tag_names(self.scale.tags)


class Catalog(Listing):
    name, what = "catalog", "a page of 100 in the middle of 10,000 repositories"
    key = "repositories"

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:
        seeds.repositories(cls._names(scale))

    @staticmethod
    def _names(scale: Scale) -> list[str]:
        return [f"catalog/r{number:05}" for number in range(scale.catalog)]

    def first(self) -> str:
        last = self._names(self.scale)[self.scale.catalog // 2 - 1]
        return f"/v2/_catalog?n={self.scale.page}&last={last}"

    def expected(self) -> list[str]:
        start = self.scale.catalog // 2
        return self._names(self.scale)[start : start + self.scale.page]


class Referrers(Listing):
    name, what = "referrers", "all of the 10,000 referrers of a subject, page by page"
    apart = True
    key, clients, follows = "manifests", 1, True

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:
        subject = numbered_manifest(0)
        referring: Iterator[tuple[list[str], bytes]] = (
            ([], numbered_manifest(number, subject)) for number in range(scale.referrers)
        )
        seeds.manifests(REPOSITORY, itertools.chain([(["v1"], subject)], referring))

    def first(self) -> str:
        return f"/v2/{REPOSITORY}/referrers/{digest_of(numbered_manifest(0))}"

    def names(self, found: Iterable[object]) -> list[str]:
        return [str(one["digest"]) for one in found if isinstance(one, dict)]

    def expected(self) -> list[str]:
        subject = numbered_manifest(0)
        return [digest_of(numbered_manifest(number, subject)) for number in range(self.scale.referrers)]


LOADS: Sequence[type[Load]] = (TagsFirst, TagsMiddle, TagsAll, Catalog, Referrers)
