"""Moments as they stand in names and in answers: always UTC.

A repository name whose first component is ``at-`` and a moment asks for what stood then in the repository of the rest
of the name. The form is one that every client takes as a component of a name.
"""

import re
from datetime import UTC, datetime
from typing import Final

from moorage.spec.errors import NameInvalid

_PREFIX: Final = "at-"
_AS_OF: Final = re.compile(r"at-(\d{4}-\d{2}-\d{2}(?:t\d{4}(?:\d{2})?z)?)/(.+)")
_FORMS: Final = {10: "%Y-%m-%d", 16: "%Y-%m-%dt%H%Mz", 18: "%Y-%m-%dt%H%M%Sz"}


def as_of(name: str) -> tuple[float, str] | None:
    """``(seconds since 1970, repository)`` of a name like ``at-2026-08-01t0930z/app``, None for any other.

    Without a time of day it is the day's first moment. Raises ``NameInvalid`` for a day that the calendar lacks.
    """
    if not name.startswith(_PREFIX) or not (found := _AS_OF.fullmatch(name)):
        return None
    try:
        moment = datetime.strptime(found[1], _FORMS[len(found[1])]).replace(tzinfo=UTC)
    except ValueError as error:
        raise NameInvalid(detail={"name": name, "reason": f"{found[1]} is no moment: {error}"}) from error
    return moment.timestamp(), found[2]


def parse(text: str) -> float:
    """Seconds since 1970 of a moment in ISO 8601, UTC unless it says otherwise; raises ``ValueError``."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def text(moment: float) -> str:
    """A moment in ISO 8601 with milliseconds: ``2026-08-01T09:30:00.000Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
