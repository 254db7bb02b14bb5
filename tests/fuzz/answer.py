"""Answers, and what every one of them must be."""

import json
from dataclasses import dataclass
from typing import Any, Final

# Spec "Error Codes".
CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "SIZE_INVALID",
        "UNAUTHORIZED",
        "DENIED",
        "UNSUPPORTED",
        "TOOMANYREQUESTS",
    }
)
_BODILESS: Final = (204, 304)


@dataclass(frozen=True)
class Answer:
    """A response: its headers in order, their names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The only value of a header, or None."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of an answer in the specification's error form."""
        return [each["code"] for each in self.json["errors"]]


def check(method: str, answer: Answer) -> None:
    """Hold an answer to what all of them keep: no failure of ours, the error form, a true length."""
    assert 200 <= answer.status < 500, answer
    for name, value in answer.headers:
        assert name
        assert not set(name) & set(" \t\r\n:"), name
        assert not set(value) & set("\r\n\0"), (name, value)
    length = answer.header("content-length")
    if method == "HEAD" or answer.status in _BODILESS:
        assert answer.body == b"", answer
    else:
        assert length is not None, answer
        assert len(answer.body) == int(length), answer
    if answer.status >= 400:
        assert answer.header("content-type") == "application/json", answer
        if method != "HEAD":
            check_error_form(answer)


def check_error_form(answer: Answer) -> None:
    """Spec "Error Codes": an array of objects with a code of the specification, a message, perhaps a detail."""
    document = answer.json
    assert set(document) == {"errors"}, document
    assert document["errors"], document
    for each in document["errors"]:
        assert {"code", "message"} <= set(each) <= {"code", "message", "detail"}, each
        assert each["code"] in CODES, each
        assert isinstance(each["message"], str), each
