"""The table of ``If-Match`` and ``If-None-Match``; RFC 9110 section 13.1."""

import pytest

from moorage.spec.errors import PreconditionFailed
from moorage.spec.preconditions import ALWAYS, Precondition

OLD, OTHER = "sha256:old", "sha256:other"


@pytest.mark.parametrize(
    ("precondition", "current"),
    [
        (ALWAYS, None),
        (ALWAYS, OLD),
        (Precondition(match=f'"{OLD}"'), OLD),
        (Precondition(match=f'"{OTHER}", "{OLD}"'), OLD),
        (Precondition(match="*"), OLD),
        (Precondition(none_match="*"), None),
        (Precondition(none_match=f'"{OTHER}"'), OLD),
        (Precondition(none_match=f'"{OTHER}"'), None),
        (Precondition(match=f'"{OLD}"', none_match=f'"{OTHER}"'), OLD),
    ],
)
def test_holds(precondition: Precondition, current: str | None) -> None:
    """A precondition that holds lets the change go on."""
    precondition.check("latest", current)


@pytest.mark.parametrize(
    ("precondition", "current", "header"),
    [
        (Precondition(match=f'"{OLD}"'), OTHER, "If-Match"),
        (Precondition(match=f'"{OLD}"'), None, "If-Match"),
        (Precondition(match="*"), None, "If-Match"),
        (Precondition(match=f'W/"{OLD}"'), OLD, "If-Match"),
        (Precondition(match=OLD), OLD, "If-Match"),
        (Precondition(none_match="*"), OLD, "If-None-Match"),
        (Precondition(none_match=f'"{OLD}"'), OLD, "If-None-Match"),
        (Precondition(match=f'"{OLD}"', none_match="*"), OLD, "If-None-Match"),
    ],
)
def test_fails(precondition: Precondition, current: str | None, header: str) -> None:
    """A precondition that does not hold is 412 DENIED; the answer tells what is there now."""
    with pytest.raises(PreconditionFailed) as caught:
        precondition.check("latest", current)
    assert (caught.value.code, caught.value.status) == ("DENIED", 412)
    (detail,) = caught.value.details
    assert detail["reference"] == "latest"
    assert detail["current"] == current
    assert header in detail
    assert caught.value.headers == ({"ETag": f'"{current}"'} if current else {})
