"""Every change is an event: who, what, when, before, after."""

from dataclasses import dataclass

from moorage.metadata.base import Unit, later


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes something, and when (seconds since 1970); whether he may make a new repository of it.

    ``reason`` is for what nobody asked for.
    """

    at: float
    actor: str = "anonymous"
    creates: bool = True
    reason: str | None = None

    def record(
        self,
        action: str,
        repository: str,
        *,
        digest: str | None = None,
        tag: str | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> Unit[None]:
        """Write the event in the transaction that makes the change."""
        yield from later(
            "add_event", self.at, self.actor, action, repository, digest, tag, before, after, self.reason
        )
