"""What every verb works with: bytes, facts, rules, a clock; and pages of what is listed."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from moorage.metadata.base import Metadata
from moorage.metadata.events import Change
from moorage.registry.policy import Policy
from moorage.spec.digest import Digest
from moorage.spec.errors import MethodNotAllowed
from moorage.storage.base import BlobStore

ANONYMOUS = "anonymous"
_Item = TypeVar("_Item")


@dataclass(slots=True)
class Parts:
    """``doomed`` is set when there are bytes to delete; ``ahead`` is what the facts' clock shows more than ours.

    ``pulled`` is when manifests were, until that is stated.
    """

    store: BlobStore
    metadata: Metadata
    policy: Policy
    clock: Callable[[], float] = time.time
    doomed: asyncio.Event = field(default_factory=asyncio.Event)
    ahead: float = 0.0
    pulled: dict[tuple[str, str], float] = field(default_factory=dict)

    def change(self, actor: str, *, create: bool = True) -> Change:
        """A change made now by ``actor``, who may ``create`` repositories or not."""
        return Change(self.clock(), actor, create)

    def wanes(self, since: float) -> bool:
        """Whether a grace period that began then is over by a quarter: so much may be lacking where it is renewed."""
        return self.clock() - since > self.policy.collect_grace / 4

    def require_deletion(self) -> None:
        """Raise ``MethodNotAllowed`` where deletion is turned off; spec "Content Management"."""
        if not self.policy.deletion:
            raise MethodNotAllowed("deletion is turned off in this registry")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """Some of a list; ``last`` is where the next page starts, None at the end of the list."""

    items: list[_Item]
    last: str | None


def page_size(asked: int | None, most: int) -> int:
    """How many items a page holds when the client asked for ``asked`` of them (None: all)."""
    return most if asked is None else min(asked, most)


def as_digest(digest: Digest | str) -> Digest:
    """``digest``, checked if it was not yet; raises ``DigestInvalid``."""
    return digest if isinstance(digest, Digest) else Digest.parse(digest)
