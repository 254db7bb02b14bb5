"""What must be true of the registry: the facts that it acknowledged, and the operations nobody knows the end of."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from blake3 import blake3

Kind = Literal["blob", "manifest", "tag", "upload"]


class Fact(NamedTuple):
    """Something a repository may hold: ``name`` is its digest, its tag, or the upload session's identifier."""

    kind: Kind
    repository: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.repository} {self.name}"


@dataclass(frozen=True, slots=True)
class Pushed:
    """A manifest as it was pushed; ``needs`` are the digests without which it would be broken."""

    media_type: str
    content: bytes
    subject: str | None = None
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Session:
    """An upload session for ``content``, of which ``received`` bytes were acknowledged."""

    content: bytes
    digest: str
    received: int = 0


# A blob's size, a manifest, a tag's digest, a session; None for what is not there.
Value = int | Pushed | str | Session | None


@dataclass(frozen=True, slots=True, eq=False)  # each is itself: two clients open sessions alike
class Operation:
    """A request that changes facts; ``effects`` are their values once it is done, all of them or none."""

    text: str
    effects: Mapping[Fact, Value]


class Violation(Exception):
    """The registry broke its word; the text is the whole story."""


@dataclass
class Model:
    """Everything that was acknowledged by any server over this root."""

    facts: dict[str, dict[Fact, Value]] = field(default_factory=lambda: defaultdict(dict))
    unknown: list[Operation] = field(default_factory=list)
    fresh: set[Fact] = field(default_factory=set)  # what changed since it was last verified
    verified: list[Fact] = field(default_factory=list)
    known: set[Fact] = field(default_factory=set)
    acknowledged: int = 0
    moment: str = "before the first kill"
    _history: dict[Fact, list[str]] = field(default_factory=lambda: defaultdict(list))

    def value(self, fact: Fact) -> Value:
        return self.facts[fact.repository].get(fact)

    def of(self, repository: str, kind: Kind) -> list[tuple[Fact, Value]]:
        """What is there of a kind, in the order in which it came."""
        return [
            (fact, value) for fact, value in self.facts[repository].items() if fact.kind == kind and value is not None
        ]

    def begin(self, operation: Operation) -> None:
        """It is about to be sent: from now on it may have happened."""
        self.unknown.append(operation)

    def acknowledge(self, operation: Operation, how: str = "acknowledged") -> None:
        """It happened."""
        self.unknown.remove(operation)
        self.acknowledged += 1
        for fact, value in operation.effects.items():
            self.facts[fact.repository][fact] = value
            self.fresh.add(fact)
            self.note(fact, f"{how}: {operation.text}")

    def drop(self, operation: Operation, why: str) -> None:
        """It did not happen."""
        self.unknown.remove(operation)
        for fact in operation.effects:
            self.fresh.add(fact)
            self.note(fact, f"{why}: {operation.text}")

    def note(self, fact: Fact, text: str) -> None:
        """Remember something for the story of ``fact``."""
        self._history[fact].append(f"{self.moment}: {text}")

    def settle(self, facts: Sequence[Fact]) -> None:
        """They were just verified."""
        for fact in facts:
            self.fresh.discard(fact)
            if fact not in self.known:
                self.known.add(fact)
                self.verified.append(fact)

    def story(self, fact: Fact) -> Iterator[str]:
        """All that was ever done to ``fact`` and how it ended."""
        yield f"  {fact}"
        for line in self._history.get(fact, ["nothing was ever sent about it"]):
            yield f"    {line}"

    def violated(self, what: str, *facts: Fact) -> Violation:
        """The error that says what was expected and seen, with the story of each fact that it concerns."""
        return Violation("\n".join([what, *(line for fact in facts for line in self.story(fact))]))


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of ``content``, computed here and not by the registry's own code."""
    hasher = blake3(content) if algorithm == "blake3" else hashlib.new(algorithm, content)
    return f"{algorithm}:{hasher.hexdigest()}"
