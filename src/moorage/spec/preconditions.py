"""Compare-and-swap by ``If-Match`` and ``If-None-Match``; RFC 9110 section 13.1."""

from dataclasses import dataclass

from moorage.spec.errors import PreconditionFailed
from moorage.spec.headers import entity_tags


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold of the digest that a tag (or a digest itself) names before it is changed.

    ``match``: the header as it came, or None; likewise ``none_match``.
    """

    match: str | None = None
    none_match: str | None = None

    def check(self, reference: str, current: str | None) -> None:
        """Raise ``PreconditionFailed`` unless the precondition holds; ``current`` is None for what is not there."""
        if self.match is not None:
            allowed = entity_tags(self.match)
            if current is None or (allowed is not None and current not in allowed):
                raise self._failed("If-Match", self.match, reference, current)
        if self.none_match is not None:
            refused = entity_tags(self.none_match)
            if current is not None and (refused is None or current in refused):
                raise self._failed("If-None-Match", self.none_match, reference, current)

    def _failed(self, header: str, value: str, reference: str, current: str | None) -> PreconditionFailed:
        return PreconditionFailed(
            detail={"reference": reference, header: value[:256], "current": current},
            headers={"ETag": f'"{current}"'} if current else None,
        )


ALWAYS = Precondition()
