"""Listing tags; spec "Listing Tags", end-8a, end-8b."""

import random

import pytest

from tests.support import LAYER, Repository, detail, encode, errors, image, next_url
from tests.web.conftest import Opener

# Bytewise: digits, capitals, the underscore, small letters; a prefix before what goes on from it.
ORDERED = ["0", "1.0", "1.0-rc", "1.0.0", "10", "9", "A", "B-1", "Z", "_", "_a", "a", "a-b", "a.b", "aB", "aa", "b"]


@pytest.fixture
async def tagged(repository: Repository) -> Repository:
    """A repository with tags that were pushed in no order."""
    await repository.push_image()
    shuffled = random.Random(5).sample(ORDERED, len(ORDERED))
    await repository.push(image(), params=[("tag", tag) for tag in shuffled])
    return repository


async def test_list(tagged: Repository) -> None:
    """The list is 200 JSON with the name and all tags, in bytewise order, and no Link."""
    response = await tagged.get("tags/list")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"name": tagged.name, "tags": ORDERED}
    assert sorted(ORDERED) == ORDERED
    assert "link" not in response.headers


async def test_head(tagged: Repository) -> None:
    """A HEAD has the headers and no body."""
    got, head = await tagged.get("tags/list?n=2"), await tagged.head("tags/list?n=2")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers


async def test_unknown_repository(repository: Repository) -> None:
    """A repository that was never pushed to is 404 NAME_UNKNOWN, for any page of it."""
    for query in ("", "?n=5", "?n=0", "?last=a"):
        response = await repository.get(f"tags/list{query}")
        assert detail(response, 404, "NAME_UNKNOWN") == {"name": repository.name}


async def test_no_tags(repository: Repository) -> None:
    """A repository without tags has an empty list, whether it holds blobs, manifests, or had a tag once."""
    await repository.push_blob(LAYER)
    assert (await repository.get("tags/list")).json() == {"name": repository.name, "tags": []}
    await repository.push_image("gone")
    await repository.delete("manifests/gone")
    assert (await repository.get("tags/list")).json() == {"name": repository.name, "tags": []}


@pytest.mark.parametrize("n", [1, 2, 5, len(ORDERED) - 1, len(ORDERED), 1000])
async def test_pages_through_link(tagged: Repository, n: int) -> None:
    """Pages walked through Link have n tags each (the last may have fewer) and give all exactly once."""
    url, found = tagged.at(f"tags/list?n={n}"), []
    while url:
        response = await tagged.client.get(url)
        page, following = response.json()["tags"], next_url(response)
        assert len(page) == n or not following
        assert page
        found += page
        url = following or ""
    assert found == ORDERED


@pytest.mark.parametrize("n", ["", "?n=5", "?n=1000"])
async def test_pages_of_the_registry(opened: Opener, n: str) -> None:
    """A registry's own page size limits what is asked for, and Link leads on."""
    repository = await opened(tags_page=4)
    await repository.push_image()
    await repository.push(image(), params=[("tag", tag) for tag in ORDERED])
    url, found, pages = repository.at(f"tags/list{n}"), [], 0
    while url:
        response = await repository.client.get(url)
        found += response.json()["tags"]
        url, pages = next_url(response) or "", pages + 1
    assert (found, pages) == (ORDERED, 5)


async def test_zero(tagged: Repository) -> None:
    """n=0 is an empty list without Link."""
    response = await tagged.get("tags/list?n=0")
    assert response.json() == {"name": tagged.name, "tags": []}
    assert "link" not in response.headers


@pytest.mark.parametrize("last", ["", "0", "1.0", "A", "B", "_", "a", "ab", "b", "zzz", "~", "ä", "%00", "a b"])
@pytest.mark.parametrize("n", [None, 3])
async def test_last(tagged: Repository, last: str, n: int | None) -> None:
    """``last`` starts after that tag, which need not be there; n is optional with it."""
    query = f"?last={last}" + (f"&n={n}" if n else "")
    expected = [tag for tag in ORDERED if not last or tag > last.replace("%00", "\0")]
    response = await tagged.get(f"tags/list{query}")
    assert response.json()["tags"] == (expected[:n] if n else expected)
    assert ("link" in response.headers) == (n is not None and len(expected) > n)


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "", "1e3", "+1", " 1", "0x10", "9" * 30, "%D9%A1"])
async def test_malformed_n(tagged: Repository, n: str) -> None:
    """n that is no whole number is 400 UNSUPPORTED naming the parameter."""
    assert detail(await tagged.get(f"tags/list?n={n.replace('+', '%2B')}"), 400, "UNSUPPORTED")["parameter"] == "n"


async def test_every_tag_once(repository: Repository) -> None:
    """A thousand tags, many to a manifest, are each listed once."""
    await repository.push_image()
    for ten in range(32):
        document = image(annotations={"n": str(ten)})
        await repository.push(document, params=[("tag", f"t{ten}-{n}") for n in range(32)])
    found = await repository.tags()
    assert len(found) == len(set(found)) == 1024
    assert found == sorted(found)


async def test_tags_of_others_are_not_listed(tagged: Repository) -> None:
    """The list is of that repository alone, whatever names begin alike."""
    other = Repository(tagged.client, f"{tagged.name}/deeper")
    await other.push_image("other")
    assert await other.tags() == ["other"]
    assert await tagged.tags() == ORDERED


async def test_names_like_endpoints(repository: Repository) -> None:
    """Repositories that are called like parts of a path work as all others."""
    for name in ("tags/list", "blobs/uploads", "manifests", "a/manifests/b", "referrers", "v2"):
        each = Repository(repository.client, name)
        found = await each.push_image("list")
        assert await each.tags() == ["list"]
        assert (await each.get("manifests/list")).content == encode(image())
        location = await each.start()
        assert location.startswith(f"/v2/{name}/blobs/uploads/")
        assert (await each.client.patch(location, content=LAYER)).status_code == 202
        assert await each.referrers(found["digest"]) == []
        assert (await each.delete("manifests/list")).status_code == 202
        errors(await each.get("manifests/list"), 404, "MANIFEST_UNKNOWN")


async def test_catalog(repository: Repository, opened: Opener) -> None:
    """_catalog lists the repositories in bytewise order, in pages with Link."""
    names = ["a", "a-b", "a/b", "a0", "b", "z/y/x"]
    assert (await repository.client.get("/v2/_catalog")).json() == {"repositories": []}
    limited = await opened(repositories_page=4)
    for client in (repository.client, limited.client):
        for name in reversed(names):
            await Repository(client, name).push_blob(LAYER)
    response = await repository.client.get("/v2/_catalog")
    assert (response.json(), "link" in response.headers) == ({"repositories": names}, False)
    assert (await repository.client.get("/v2/_catalog?n=0")).json() == {"repositories": []}
    assert (await repository.client.get("/v2/_catalog?last=a/b")).json() == {"repositories": names[3:]}
    errors(await repository.client.get("/v2/_catalog?n=-1"), 400, "UNSUPPORTED")
    for client, query in ((repository.client, "?n=1"), (repository.client, "?n=4"), (limited.client, "")):
        url, found = f"/v2/_catalog{query}", []
        while url:
            response = await client.get(url)
            found += response.json()["repositories"]
            url = next_url(response) or ""
        assert found == names
