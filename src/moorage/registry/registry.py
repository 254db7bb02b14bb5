"""The registry: every verb of the specification, without HTTP."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Self

from moorage.metadata import blobs
from moorage.metadata.base import Metadata
from moorage.metadata.blobs import Quarantined
from moorage.registry import collection
from moorage.registry.access import Access
from moorage.registry.blobs import Blobs
from moorage.registry.collection import Collectable, Swept
from moorage.registry.explain import Explain
from moorage.registry.history import History
from moorage.registry.housekeeping import clean, keep_house, note_pulls
from moorage.registry.listings import Referrers, Repositories, Tags
from moorage.registry.manifests import Manifests
from moorage.registry.nothing import Nothing
from moorage.registry.parts import Parts
from moorage.registry.past import Past
from moorage.registry.policy import Policy
from moorage.registry.quotas import Quotas
from moorage.registry.releases import Releases
from moorage.registry.retention import Retention
from moorage.registry.scrub import Scrubbed, scrub, scrub_forever
from moorage.registry.taking_in import TakenIn, require_tree, take_in
from moorage.registry.tasks import end
from moorage.registry.uploads import Uploads
from moorage.spec import moments
from moorage.spec.errors import NameUnknown, RegistryError, ServiceUnavailable
from moorage.storage.base import BlobStore, new_key

_READY: Final = 1.0  # seconds that an answer is good for: who asks more often costs nothing
_PATIENCE: Final = 2.5  # seconds for each of the two
_log = logging.getLogger("moorage.registry")


class Registry:
    """An OCI registry over a place for bytes and a place for facts, which it opens and closes.

    Use it as an async context manager; its verbs are methods of ``blobs``, ``uploads``, ``manifests``, ``tags``,
    ``referrers``, ``repositories``, ``access``, ``explain``, ``history``, ``retention``, ``quotas`` and ``releases``,
    which raise the errors of ``moorage.errors``.
    ``clock`` gives seconds since 1970. Without ``housekeeping`` it does nothing by itself: for a look at a root that
    another process serves.
    """

    def __init__(
        self,
        store: BlobStore,
        metadata: Metadata,
        policy: Policy | None = None,
        *,
        clock: Callable[[], float] = time.time,
        housekeeping: bool = True,
    ) -> None:
        self._housekeeping = housekeeping
        self._clock = clock
        self._parts = Parts(store, metadata, policy or Policy(), self._now)
        self._stack = contextlib.AsyncExitStack()
        self._asking = asyncio.Lock()
        self._ready_until = 0.0
        self.blobs = Blobs(self._parts)
        self.uploads = Uploads(self._parts)
        self.manifests = Manifests(self._parts)
        self.tags = Tags(self._parts)
        self.referrers = Referrers(self._parts)
        self.repositories = Repositories(self._parts)
        self.explain = Explain(self._parts)
        self.access = Access(self._parts)
        self.history = History(self._parts)
        self.retention = Retention(self._parts)
        self.quotas = Quotas(self._parts)
        self.releases = Releases(self._parts)

    @property
    def metadata(self) -> Metadata:
        """Its facts."""
        return self._parts.metadata

    @property
    def clock(self) -> Callable[[], float]:
        """What it takes the time from, in seconds since 1970."""
        return self._parts.clock

    def _now(self) -> float:
        """The time on which all nodes agree, whatever their own clocks show."""
        return self._clock() + self._parts.ahead

    @property
    def policy(self) -> Policy:
        return self._parts.policy

    def emptied(self) -> "Registry":
        """A registry of the same rules in which nothing is; it need not be opened, and cannot be changed."""
        return Registry(self._parts.store, Nothing(), self._parts.policy, clock=self._parts.clock)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._parts.store)
            await stack.enter_async_context(self._parts.metadata)
            await require_tree(self._parts.store, self._parts.metadata, serving=self._housekeeping)
            self._parts.ahead = await self._parts.metadata.ahead()
            if self._housekeeping:
                if self.policy.quotas:
                    await self.quotas.apply()
                stack.push_async_callback(_last_pulls, self._parts)
                keeper = asyncio.create_task(keep_house(self._parts), name="moorage-housekeeping")
                stack.push_async_callback(end, keeper)
                if self.policy.scrub_rate:
                    scrubber = asyncio.create_task(scrub_forever(self._parts), name="moorage-scrub")
                    stack.push_async_callback(end, scrubber)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def ready(self) -> None:
        """Return when the facts and the place for bytes both answer, now or a second ago.

        Raises ``ServiceUnavailable`` that names what does not, at the latest after five seconds.
        """
        async with self._asking:
            if asyncio.get_running_loop().time() < self._ready_until:
                return
            await _answers("facts", self._parts.metadata.fetch("lease", ""))
            await _answers("bytes", self._parts.store.size(new_key()))
            self._ready_until = asyncio.get_running_loop().time() + _READY

    async def clean(self) -> None:
        """Do now what the registry does by itself: end sessions, collect, delete bytes that nothing needs."""
        await clean(self._parts)

    async def collect(
        self, policy: Policy | None = None, *, progress: Callable[[str], None] = lambda _: None
    ) -> Swept:
        """Look at everything once, then take away all whose time is over, by another ``policy`` if one is given.

        ``progress`` hears how far the look is: ``repositories …``, ``blobs …``, ``keys …``.
        """
        return await collection.run(self._parts, policy, progress)

    def collectable(self, policy: Policy | None = None) -> AsyncIterator[Collectable]:
        """What ``collect`` with that ``policy`` would take away of what is known to be held by nothing."""
        return collection.due(self._parts, policy)

    async def scrub(self, rate: float | None = None) -> Scrubbed:
        """Read every blob now and quarantine those whose bytes are damaged; ``rate`` is bytes a second at most."""
        return await scrub(self._parts, Scrubbed(), rate=rate)

    async def take_in(
        self, rate: float | None = None, *, jobs: int = 4, told: Callable[[TakenIn], None] = lambda _: None
    ) -> TakenIn:
        """Copy what an adopted tree holds of the blobs, verified, so that the tree is not needed any more."""
        return await take_in(self._parts, rate=rate, jobs=jobs, told=told)

    async def quarantined(self, last: str = "") -> list[Quarantined]:
        """Some of what is quarantined, by digest, after ``last``; empty if there is no more."""
        return await blobs.quarantined(self._parts.metadata, last)

    def at(self, moment: float) -> "Registry":
        """The registry as it stood at ``moment`` (seconds since 1970), for reading; it need not be opened.

        Its tags name what they named then; what was deleted since is there. Raises ``NameUnknown`` where the history
        does not reach.
        """
        parts = self._parts
        now = parts.clock()
        if not now - parts.policy.history <= moment <= now:
            reaches = {"from": moments.text(now - parts.policy.history), "to": moments.text(now)}
            raise NameUnknown("the history does not reach there", detail={"at": moments.text(moment), **reaches})
        return Registry(parts.store, Past(parts.metadata, moment), parts.policy, clock=parts.clock)


async def _answers(what: str, asking: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await asking
    except FileNotFoundError:  # that is an answer, too
        pass
    except Exception as error:
        _log.warning("the %s do not answer: %r", what, error)
        raise ServiceUnavailable(f"the registry's {what} do not answer") from error


async def _last_pulls(parts: Parts) -> None:
    with contextlib.suppress(RegistryError):
        await note_pulls(parts)
