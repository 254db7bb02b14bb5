"""The OpenAPI description that the project ships, and how answers are held to it."""

import json
from functools import cache
from importlib import resources
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

from moorage.spec.errors import RegistryError
from moorage.spec.routes import match
from tests.fuzz.answer import Answer

METHODS: Final = ("get", "head", "put", "post", "patch", "delete", "options", "trace")
DOCUMENT: Final[dict[str, Any]] = json.loads(resources.files("moorage.web").joinpath("openapi.json").read_bytes())


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Each operation by method (upper case) and path."""
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference inside the document names; any other node is itself."""
    while "$ref" in node:
        found: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        node = found
    return node


def operation_of(method: str, target: str) -> dict[str, Any] | None:
    """The operation that a request asks for; None where there is none."""
    path = unquote(target.partition("?")[0])
    if path in ("/healthz", "/readyz", "/openapi.json"):
        return operations().get((method, path))
    try:
        endpoint, _, _ = match(method, path)
    except RegistryError:
        return None
    return operations()[method, endpoint.path]


def check_described(method: str, target: str, answer: Answer) -> None:
    """Hold an answer to its operation: a status that is listed, the headers it must have, its schema."""
    operation = operation_of(method, target)
    if operation is None:
        assert answer.status in (400, 403, 404, 405), answer  # 403: a page of another site asks
        return
    responses = operation["responses"]
    assert str(answer.status) in responses, (operation["operationId"], answer)
    response = resolve(responses[str(answer.status)])
    for name, header in response.get("headers", {}).items():
        _check_header(name, resolve(header), answer)
    if "content" not in response:
        assert not answer.body, answer
        return
    media_type = (answer.header("content-type") or "").partition(";")[0]
    assert media_type in response["content"], (operation["operationId"], answer)
    schema = response["content"][media_type].get("schema")
    if schema and schema.get("format") != "binary" and media_type.endswith("json"):
        _validator(json.dumps(schema)).validate(answer.json)


def _check_header(name: str, header: dict[str, Any], answer: Answer) -> None:
    value = answer.header(name) if name != "Warning" else None
    if value is None:
        assert not header.get("required"), (name, answer)
        return
    schema = resolve(header["schema"])
    number = schema.get("type") == "integer" or isinstance(schema.get("const"), int)
    _validator(json.dumps(header["schema"])).validate(int(value) if number else value)


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"components": DOCUMENT["components"], "allOf": [json.loads(schema)]})


def schema_validator(name: str) -> jsonschema_rs.Draft202012Validator:
    """A validator of ``components/schemas/<name>``."""
    return _validator(json.dumps({"$ref": f"#/components/schemas/{name}"}))
