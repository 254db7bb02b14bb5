"""Questions of one request that are asked together before they come up: one round trip in place of several.

Some are known beforehand; others the last request with the same credentials asked. Each answer is read after the
request came, is given once, and none outlives the request. So nobody is let in by what was true before.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final

from moorage.metadata.base import Query, Row, SeveralMetadata

_MOST: Final = 10_000


class Foreseen:
    """The questions of one request to ``metadata``: answers to some, and what is asked until ``learned``."""

    def __init__(self, metadata: SeveralMetadata) -> None:
        self.metadata = metadata
        self._answers: dict[Query, Sequence[Row]] = {}
        self._asked: list[Query] | None = []

    async def ask(self, queries: Sequence[Query]) -> None:
        """Ask what will be asked."""
        self._answers = dict(zip(queries, await self.metadata.fetch_several(queries), strict=True))

    def take(self, question: Query) -> Sequence[Row] | None:
        """The answer, where it was foreseen; it can be had once."""
        if self._asked is not None:
            self._asked.append(question)
        return self._answers.pop(question, None)

    def learned(self) -> list[Query]:
        """What was asked until now; from here on nobody listens."""
        asked, self._asked = self._asked or [], None
        return asked

    def forget(self) -> None:
        """Answer nothing any more: a task that the request left behind asks for itself."""
        self._answers.clear()


_CURRENT: ContextVar[Foreseen | None] = ContextVar("moorage_foreseen", default=None)


def foreseen(metadata: SeveralMetadata, question: Query) -> Sequence[Row] | None:
    """The answer of ``metadata`` where this request has it already."""
    current = _CURRENT.get()
    return current.take(question) if current is not None and current.metadata is metadata else None


class Foresight:
    """What requests ask ``metadata`` about their senders, told by what they asked before."""

    def __init__(self, metadata: SeveralMetadata) -> None:
        self._metadata = metadata
        self._before: dict[bytes, list[Query]] = {}

    @asynccontextmanager
    async def of(self, sender: bytes, known: Sequence[Query]) -> AsyncIterator[Foreseen]:
        """Ask now what ``sender`` asked the last time and what is ``known`` to come, for the length of the block."""
        current = Foreseen(self._metadata)
        queries = dict.fromkeys([*self._before.get(sender, ()), *known])
        if len(queries) > 1:
            await current.ask(list(queries))
        token = _CURRENT.set(current)
        try:
            yield current
        finally:
            _CURRENT.reset(token)
            current.forget()

    def learn(self, sender: bytes, current: Foreseen) -> None:
        """Remember what was asked about a sender who was let in."""
        if sender not in self._before and len(self._before) >= _MOST:
            del self._before[next(iter(self._before))]
        self._before[sender] = current.learned()
