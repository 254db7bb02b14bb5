"""The errors of the specification."""

import inspect

import pytest

import moorage.errors
from moorage.spec import errors
from moorage.spec.errors import ManifestBlobUnknown, RegistryError
from tests.support import CODES

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, RegistryError) and each is not RegistryError
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_of_the_specification(kind: type[RegistryError]) -> None:
    """Each error has a code of the table, a 4xx status and a message; only failures of the server are UNKNOWN 5xx."""
    if kind.status >= 500:
        assert kind.code == "UNKNOWN"
    else:
        assert kind.code in CODES
        assert 400 <= kind.status < 500
    assert kind.message
    assert getattr(moorage.errors, kind.__name__) is kind


def test_every_code_of_the_specification_has_an_error() -> None:
    """No code of the table is missing."""
    assert {kind.code for kind in CLASSES} - {"UNKNOWN"} == CODES


def test_one_entry_for_each_detail() -> None:
    """Several things wrong make several entries of one code."""
    error = ManifestBlobUnknown(details=[{"digest": "a"}, {"digest": "b"}])
    assert [(each["code"], each["detail"]) for each in error.entries()] == [
        ("MANIFEST_BLOB_UNKNOWN", {"digest": "a"}),
        ("MANIFEST_BLOB_UNKNOWN", {"digest": "b"}),
    ]


def test_no_detail_is_left_out() -> None:
    """An error without a detail has no such key."""
    assert RegistryError("why").entries() == [{"code": "UNKNOWN", "message": "why"}]
    assert str(RegistryError("why")) == "why"
