"""Conditional pulls; RFC 9110 section 13."""

import pytest

from tests.support import LAYER, Repository, detail, digest_of


@pytest.fixture(params=["blob", "manifest"])
async def path(repository: Repository, request: pytest.FixtureRequest) -> str:
    await repository.push_image("latest")
    return f"blobs/{digest_of(LAYER)}" if request.param == "blob" else "manifests/latest"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_not_modified(repository: Repository, path: str, method: str) -> None:
    """If-None-Match with the entity tag (strong, weak, one of many, or ``*``) is 304 without content."""
    etag = (await repository.head(path)).headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = await repository.client.request(method, repository.at(path), headers={"if-none-match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
        assert response.headers["docker-content-digest"] == etag.strip('"')


@pytest.mark.parametrize("known", ['"other"', 'W/"other"', "unquoted", ""])
async def test_modified(repository: Repository, path: str, known: str) -> None:
    """If-None-Match with other entity tags, or none that can be read, gives the content."""
    response = await repository.get(path, headers={"if-none-match": known})
    assert response.status_code == 200
    assert response.content


async def test_if_match_holds(repository: Repository, path: str) -> None:
    """If-Match with the entity tag, or ``*``, gives the content."""
    etag = (await repository.head(path)).headers["etag"]
    for wanted in (etag, f'"other", {etag}', "*"):
        assert (await repository.get(path, headers={"if-match": wanted})).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_if_match_fails(repository: Repository, path: str, method: str) -> None:
    """If-Match with another entity tag (or only a weak one) is 412 that tells the current one."""
    etag = (await repository.head(path)).headers["etag"]
    for wanted in ('"other"', f"W/{etag}"):
        response = await repository.client.request(method, repository.at(path), headers={"if-match": wanted})
        assert response.status_code == 412
        assert response.headers["etag"] == etag
        if method == "GET":
            assert detail(response, 412, "DENIED")["current"] == etag.strip('"')


async def test_a_moved_tag_is_modified(repository: Repository) -> None:
    """A client that polls a tag gets 304 until the tag moves, then the new manifest."""
    first = await repository.push_image("latest")
    known = {"if-none-match": f'"{first["digest"]}"'}
    assert (await repository.get("manifests/latest", headers=known)).status_code == 304
    second = await repository.push_image("latest", annotations={"a": "new one"})
    response = await repository.get("manifests/latest", headers=known)
    assert response.status_code == 200
    assert response.headers["docker-content-digest"] == second["digest"]


async def test_missing_content_is_404_under_any_condition(repository: Repository) -> None:
    """A condition does not turn 404 into anything else on a pull."""
    for headers in ({"if-none-match": "*"}, {"if-match": "*"}, {"range": "bytes=0-"}):
        assert (await repository.get("manifests/none", headers=headers)).status_code == 404
        assert (await repository.get(f"blobs/{digest_of(b'none')}", headers=headers)).status_code == 404
