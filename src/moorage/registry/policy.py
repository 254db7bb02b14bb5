"""What a registry accepts and allows; every value has a safe default."""

from dataclasses import dataclass
from typing import Literal

Sparse = Literal["none", "indexes", "all"]
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE

_NOT_NEEDED: dict[Sparse, frozenset[str]] = {
    "none": frozenset(),
    "indexes": frozenset({"manifest", "content"}),
    "all": frozenset({"manifest", "content", "config", "layer"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one registry. Sizes are bytes, times are seconds.

    ``sparse`` says what may be referenced without being there, and so also what may be deleted while referenced:
    nothing, the entries of indexes, or layers and configs too. ``cascade`` says whether untagged manifests go with
    the index or subject that they belong to. ``collect_grace`` is how long what nothing holds stays, and
    ``unnamed_grace`` how long bytes stay that no fact names; both are long enough for what is under way to be
    finished. ``delete_rate`` is objects a second, None without a limit.
    """

    deletion: bool = True
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

    def not_needed(self) -> frozenset[str]:
        """The kinds of reference that need not be there."""
        return _NOT_NEEDED[self.sparse]
