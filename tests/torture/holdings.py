"""What a repository must hold, while whatever nothing holds may be collected at any moment."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, and what it needs; ``subject`` is what it refers to."""

    content: bytes
    media_type: str
    blobs: frozenset[str] = frozenset()
    children: frozenset[str] = frozenset()
    subject: str | None = None


@dataclass
class Repository:
    """What its tenant knows of it.

    ``orphans`` are manifests whose index or subject was deleted. ``unclear`` are those that were pushed or lost a tag
    while that may have been gone already: if it was, they hold themselves, else they go when it goes.
    """

    name: str
    manifests: dict[str, Document] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    unclear: set[str] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)  # what was unclear, and turned out to stay
    pushed: dict[str, Document] = field(default_factory=dict)  # ever
    named: dict[str, list[str]] = field(default_factory=dict)  # by each tag, ever
    story: list[str] = field(default_factory=list)

    def doubtful(self) -> set[str]:
        """What collection may take at any moment, and may have taken."""
        gone: set[str] = set()
        while True:
            candidates = self.orphans | {each for digest in gone for each in self.dependent(digest)}
            more = {each for each in candidates - gone - self.settled if not self.held(each, gone)}
            if not more:
                return gone
            gone |= more

    def sure(self) -> dict[str, Document]:
        """What must be there."""
        doubtful = self.doubtful()
        return {digest: each for digest, each in self.manifests.items() if digest not in doubtful}

    def held(self, digest: str, gone: set[str]) -> bool:
        """Whether a tag, an index or a subject that is not ``gone`` holds a manifest."""
        return (
            digest in self.tags.values()
            or any(digest in each.children for parent, each in self.manifests.items() if parent not in gone)
            or self.manifests[digest].subject in self.manifests.keys() - gone
        )

    def dependent(self, digest: str) -> set[str]:
        """The manifests here that are there for the sake of another: its children and its referrers."""
        children = self.pushed[digest].children & self.manifests.keys()
        return set(children) | {each for each, known in self.manifests.items() if known.subject == digest}

    def touch(self, digest: str) -> None:
        """A manifest was pushed, or is about to lose a tag."""
        doubtful = self.doubtful()
        if any(digest in self.dependent(each) for each in doubtful):
            self.unclear.add(digest)

    def remove(self, digest: str) -> None:
        """A manifest is gone with its tags; what was there for its sake may follow."""
        dependent = self.dependent(digest)
        del self.manifests[digest]
        self.orphans.discard(digest)
        self.tags = {tag: each for tag, each in self.tags.items() if each != digest}
        self.orphans |= {each for each in dependent if not self.held(each, set())}

    def needed(self) -> set[str]:
        """The blobs that must be there."""
        return {blob for each in self.sure().values() for blob in each.blobs}
