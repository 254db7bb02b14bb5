"""What a registry accepts and allows; every value has a safe default."""

from dataclasses import dataclass
from typing import Literal

from moorage.spec.names import fallback_subject_prefix
from moorage.spec.patterns import matches

Sparse = Literal["none", "indexes", "all"]
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
DAY = 86400.0

_NOT_NEEDED: dict[Sparse, frozenset[str]] = {
    "none": frozenset(),
    "indexes": frozenset({"manifest", "content"}),
    "all": frozenset({"manifest", "content", "config", "layer"}),
}


@dataclass(frozen=True, slots=True)
class ImmutableTags:
    """Tags that match ``tag``, in repositories that match ``repository``; see ``moorage.spec.patterns``."""

    repository: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule:
    """Which tags of the matching repositories are kept; see docs/content.md. Without any condition all tags are."""

    repository: str
    tags: str = "*"
    keep_newest: int | None = None
    keep_pushed_days: float | None = None
    keep_pulled_days: float | None = None
    keep: tuple[str, ...] = ()
    order: Literal["pushed", "version"] = "pushed"
    untagged_days: float | None = None

    @property
    def removes_tags(self) -> bool:
        """Whether the rule has a condition for keeping tags, and so takes those away that do not meet it."""
        return bool(self.conditions)

    @property
    def conditions(self) -> list[str]:
        """The conditions of which a tag must meet one to be kept, in words."""
        return [
            words
            for words, there in (
                (f"among the {self.keep_newest} newest", self.keep_newest is not None),
                (f"pushed within {self.keep_pushed_days} days", self.keep_pushed_days is not None),
                (f"pulled within {self.keep_pulled_days} days", self.keep_pulled_days is not None),
                (f"like {', '.join(self.keep)}", bool(self.keep)),
            )
            if there
        ]

    @property
    def words(self) -> str:
        return "not " + ", not ".join(self.conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRule:
    """What the repositories that match ``repository`` may have together; None is without a limit."""

    repository: str
    bytes: int | None = None
    tags: int | None = None
    repositories: int | None = None

    @property
    def limits(self) -> list[int]:
        """Those that it has."""
        return [each for each in (self.bytes, self.tags, self.repositories) if each is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one registry. Sizes are bytes, times are seconds.

    ``sparse`` says what may be referenced without being there, and so also what may be deleted while referenced:
    nothing, the entries of indexes, or layers and configs too. ``immutable_tags`` are neither moved nor deleted once
    they name something, but for the fallback tags that the registry itself mends. ``cascade`` says whether untagged
    manifests go with the index or subject that they belong to. ``collect_grace`` is how long what nothing holds
    stays, and ``unnamed_grace`` how long bytes stay that no fact names; both are long enough for what is under way to
    be finished. ``scrub_rate`` is MiB a second, 0 for none; what was verified within ``scrub_days`` is not read
    again. For ``history_days`` what tags named can be pulled as of then, and restored; events are kept for
    ``events_days``, at least as long. ``delete_rate`` is objects a second, None without a limit. ``quotas``, if there
    are any, take the place of those that the facts hold.
    """

    deletion: bool = True
    immutable_tags: tuple[ImmutableTags, ...] = ()
    sparse: Sparse = "none"
    unknown_manifests: bool = False
    manifest_limit: int = 4 * MEBIBYTE
    blob_limit: int | None = None
    tags_per_push: int = 32
    upload_expiry: float = 86400.0
    chunk_minimum: int | None = None
    tags_page: int = 10_000
    repositories_page: int = 1_000
    referrers_page: int = 1_000
    housekeeping_interval: float = 60.0
    collection: bool = True
    collect_grace: float = 86400.0
    cascade: bool = True
    sweep_interval: float = 86400.0
    unnamed_grace: float = 7 * 86400.0
    delete_rate: float | None = None
    redirect_expiry: float = 1200.0
    retention: tuple[RetentionRule, ...] = ()
    retention_interval: float = 3600.0
    quotas: tuple[QuotaRule, ...] = ()
    scrub_rate: float = 4.0
    scrub_days: float = 30.0
    history_days: float = 7.0
    events_days: float = 365.0

    @property
    def history(self) -> float:
        """How far history reaches back, in seconds."""
        return self.history_days * DAY

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Whether ``tag`` stays as it is once it names something."""
        return fallback_subject_prefix(tag) is None and any(
            matches(repository, (each.repository,)) and matches(tag, (each.tag,)) for each in self.immutable_tags
        )

    def has_quota(self, repository: str) -> bool:
        """Whether any quota is for ``repository``."""
        return matches(repository, (each.repository for each in self.quotas))

    def not_needed(self) -> frozenset[str]:
        """The kinds of reference that need not be there."""
        return _NOT_NEEDED[self.sparse]
