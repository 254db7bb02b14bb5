"""Manifests that are refused, through the door: MANIFEST_INVALID with the JSON path."""

import pytest

from tests.spec.test_manifest import SHAPES, TEXTS
from tests.support import (
    CONFIG,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Json,
    Repository,
    detail,
    image,
    index,
)

# A lone half of a surrogate pair: JSON can spell it, UTF-8 cannot.
LONE = "\\ud800"


@pytest.mark.parametrize(("document", "path"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
async def test_invalid_field(repository: Repository, document: Json, path: str) -> None:
    """A known field of the wrong shape is 400 MANIFEST_INVALID by its JSON path, and nothing is stored."""
    response = await repository.put(document, "latest", None)
    found = detail(response, 400, "MANIFEST_INVALID")
    assert found["path"] == path
    assert found["reason"]
    assert (await repository.head("manifests/latest")).status_code == 404


@pytest.mark.parametrize(("content", "path"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
async def test_invalid_text(repository: Repository, content: bytes, path: str) -> None:
    """What is not one JSON object in UTF-8 is 400 MANIFEST_INVALID."""
    assert detail(await repository.put(content, "latest"), 400, "MANIFEST_INVALID")["path"] == path


@pytest.mark.parametrize(
    ("document", "content_type"),
    [(image(), OCI_INDEX), (index(), OCI_MANIFEST), (image(), DOCKER_MANIFEST), (image(), "application/json")],
)
async def test_contradiction(repository: Repository, document: Json, content_type: str) -> None:
    """A mediaType that contradicts the Content-Type is 400 MANIFEST_INVALID at ``$.mediaType``, telling both."""
    found = detail(await repository.put(document, "latest", content_type), 400, "MANIFEST_INVALID")
    assert (found["path"], found["content_type"]) == ("$.mediaType", content_type)


async def test_refused_before_its_content_is_looked_for(repository: Repository) -> None:
    """An invalid manifest is invalid, whether its content is there or not."""
    document = image()
    document["layers"][0]["size"] = -1
    assert detail(await repository.put(document, "latest"), 400, "MANIFEST_INVALID")["path"] == "$.layers[0].size"


@pytest.mark.parametrize(
    "place",
    [
        '"annotations": {"a": "LONE"}',
        '"annotations": {"LONE": "a"}',
        '"x": {"LONE": 1, "LONE": 2}',
        '"annotations": {"LONE": 1}',
        '"mediaType": "LONE"',
        '"artifactType": "LONE"',
        '"future": "LONE"',
    ],
)
async def test_lone_surrogate(repository: Repository, place: str) -> None:
    """Text that is no Unicode is taken as it is or refused as MANIFEST_INVALID; it never breaks the server."""
    await repository.push_blob(CONFIG)
    content = '{"schemaVersion": 2, "layers": [], ' + place.replace("LONE", LONE) + "}"
    response = await repository.client.put(
        repository.at("manifests/latest"), content=content.encode(), headers={"content-type": OCI_MANIFEST}
    )
    if response.status_code != 201:
        detail(response, 400, "MANIFEST_INVALID")
