"""The description is valid OpenAPI, and it is of this API: no endpoint more, none less."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis

from moorage.spec.digest import ALGORITHMS, ENCODED_LENGTH
from moorage.spec.errors import RegistryError
from moorage.spec.names import REPOSITORY_LONGEST, TAG, check_repository
from moorage.spec.routes import ENDPOINTS
from tests.fuzz.answer import CODES
from tests.fuzz.description import DOCUMENT, operations, resolve, schema_validator
from tests.fuzz.door import Door

SERVICE = {(method, path) for path in ("/healthz", "/readyz", "/openapi.json") for method in ("GET", "HEAD")}


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document."""
    if isinstance(node, dict):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(each)


def test_it_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_each_schema_in_it_is_valid() -> None:
    found = [node["schema"] for node in nodes(DOCUMENT) if "schema" in node]
    for schema in [*found, *DOCUMENT["components"]["schemas"].values()]:
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_each_reference_leads_somewhere_and_each_component_is_used() -> None:
    references = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    for reference in references:
        assert resolve({"$ref": reference})
    components = {
        f"#/components/{kind}/{name}" for kind, members in DOCUMENT["components"].items() for name in members
    }
    assert references == components


def test_it_has_exactly_the_endpoints_of_the_table() -> None:
    table = {(endpoint.method, endpoint.path): endpoint.end for endpoint in ENDPOINTS}
    described = {key: operation.get("x-oci-endpoint") for key, operation in operations().items()}
    assert {key: end for key, end in described.items() if key not in SERVICE} == table
    assert set(described) > SERVICE


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for operation in operations().values()]
    assert len(names) == len(set(names))


def test_a_path_has_its_parameters() -> None:
    for path, item in DOCUMENT["paths"].items():
        named = {part.strip("{}") for part in path.split("/") if part.startswith("{")}
        assert {resolve(each)["name"] for each in item.get("parameters", [])} == named, path


def test_the_codes_are_those_of_the_specification() -> None:
    assert set(DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"]) == CODES


def _subclasses(kind: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def test_every_error_that_the_registry_raises_is_described() -> None:
    described = {status for operation in operations().values() for status in operation["responses"]}
    raised = {str(each.status) for each in _subclasses(RegistryError)}
    unreachable = {"401", "403", "429"}  # there is nobody to authorize and nothing is limited yet
    connection = {"408", "431"}  # said of a connection, whatever was asked for
    assert raised - unreachable - connection <= described


@pytest.mark.parametrize("name", ["a", "a/b", "library/busy-box", "a__b", "a--b/c.d", "a" * 255, "0/1/2"])
def test_repository_names_of_the_specification_fit(name: str) -> None:
    check_repository(name)
    assert schema_validator("Repository").is_valid(name)


@pytest.mark.parametrize(
    "name", ["", "A", "a/", "/a", "a//b", "a___b", "a..b", "-a", "a-", "a/../b", "é", "a\n", "a" * 256, "_catalog"]
)
def test_other_names_do_not_fit(name: str) -> None:
    with pytest.raises(RegistryError):
        check_repository(name)
    assert not schema_validator("Repository").is_valid(name)


def test_tags_and_digests_are_those_of_the_specification() -> None:
    assert DOCUMENT["components"]["schemas"]["Tag"]["pattern"] == f"^{TAG.pattern}$"
    assert DOCUMENT["components"]["schemas"]["Repository"]["maxLength"] == REPOSITORY_LONGEST
    for algorithm in ALGORITHMS:
        digest = f"{algorithm}:" + "0a" * (ENCODED_LENGTH[algorithm] // 2)
        assert schema_validator("Digest").is_valid(digest)
        assert not schema_validator("Digest").is_valid(digest[:-1])
        assert not schema_validator("Digest").is_valid(digest.upper())


def test_the_description_is_served_and_is_the_one_in_docs() -> None:
    with Door() as door:
        answer = door.ask("GET", "/openapi.json")
        head = door.ask("HEAD", "/openapi.json")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert json.loads(answer.body) == DOCUMENT
    assert (head.status, head.body, head.header("content-length")) == (200, b"", str(len(answer.body)))
    docs = Path(__file__).parents[2] / "docs" / "openapi.json"
    assert docs.is_symlink()
    assert docs.read_bytes() == answer.body
