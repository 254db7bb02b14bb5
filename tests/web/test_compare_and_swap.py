"""Changes that hold only if nobody was quicker: ``If-Match`` and ``If-None-Match`` on PUT and DELETE."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from moorage import open_registry
from tests.support import Json, Repository, detail, digest_of, door_to, encode, errors, image, index

NOWHERE = digest_of(b"nowhere")
CREATE = {"if-none-match": "*"}


def quoted(digest: str) -> dict[str, str]:
    return {"if-match": f'"{digest}"'}


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[list[Repository]]:
    """The same repository through three registries over one root, as three processes would open it."""
    async with AsyncExitStack() as stack:
        doors = []
        for _ in range(3):
            registry = await stack.enter_async_context(open_registry(tmp_path))
            doors.append(Repository(await stack.enter_async_context(door_to(registry))))
        yield doors


async def test_create_only(repository: Repository) -> None:
    """If-None-Match: * sets a tag that is not there; one that is there is 412 telling what it names."""
    found = await repository.push_image()
    assert (await repository.put(image(), "latest", headers=CREATE)).status_code == 201
    response = await repository.put(index(), "latest", headers=CREATE)
    assert detail(response, 412, "DENIED") == {
        "reference": "latest",
        "If-None-Match": "*",
        "current": found["digest"],
    }
    assert response.headers["etag"] == f'"{found["digest"]}"'
    assert (await repository.head("manifests/latest")).headers["docker-content-digest"] == found["digest"]


async def test_replace_only_what_is_known(repository: Repository) -> None:
    """If-Match moves a tag from the digest that the client saw; from any other it is 412, and nothing changes."""
    old = await repository.push_image("latest")
    for headers in (quoted(NOWHERE), {"if-match": f'W/"{old["digest"]}"'}, {"if-match": old["digest"]}):
        response = await repository.put(index(), "latest", headers=headers)
        found = detail(response, 412, "DENIED")
        assert (found["current"], found["If-Match"]) == (old["digest"], headers["if-match"])
        assert (await repository.head("manifests/latest")).headers["docker-content-digest"] == old["digest"]
        assert (await repository.head(f"manifests/{digest_of(encode(index()))}")).status_code == 404
    response = await repository.put(index(), "latest", headers=quoted(old["digest"]))
    assert response.status_code == 201
    errors(await repository.put(image(), "latest", headers=quoted(old["digest"])), 412, "DENIED")


async def test_if_match_of_several_and_any(repository: Repository) -> None:
    """If-Match may list several digests; ``*`` is whatever is there, but something must be."""
    old = await repository.push_image("latest")
    several = {"if-match": f'"{NOWHERE}", "{old["digest"]}"'}
    assert (await repository.put(image(), "latest", headers=several)).status_code == 201
    assert (await repository.put(image(), "latest", headers={"if-match": "*"})).status_code == 201
    response = await repository.put(image(), "new", headers={"if-match": "*"})
    assert detail(response, 412, "DENIED")["current"] is None
    assert "etag" not in response.headers
    errors(await repository.put(image(), "new", headers=quoted(old["digest"])), 412, "DENIED")
    assert await repository.tags() == ["latest"]


async def test_if_none_match_of_a_digest(repository: Repository) -> None:
    """If-None-Match with digests refuses just those."""
    old = await repository.push_image("latest")
    refused = {"if-none-match": f'"{old["digest"]}"'}
    errors(await repository.put(index(), "latest", headers=refused), 412, "DENIED")
    allowed = {"if-none-match": f'"{NOWHERE}"'}
    assert (await repository.put(index(), "latest", headers=allowed)).status_code == 201


async def test_by_digest(repository: Repository) -> None:
    """On a digest the condition asks whether the manifest is there."""
    found = await repository.push_image()
    errors(await repository.put(image(), headers=CREATE), 412, "DENIED")
    assert (await repository.put(image(), headers=quoted(found["digest"]))).status_code == 201
    assert (await repository.put(index(), headers=CREATE)).status_code == 201
    errors(await repository.put(index(annotations={"a": "b"}), headers={"if-match": "*"}), 412, "DENIED")


async def test_with_tag_parameters(repository: Repository) -> None:
    """With tag parameters the condition holds for each tag, or nothing happens."""
    old = await repository.push_image("one")
    both = [("tag", "one"), ("tag", "two")]
    response = await repository.put(index(), params=both, headers=CREATE)
    assert detail(response, 412, "DENIED")["reference"] == "one"
    response = await repository.put(index(), params=both, headers=quoted(old["digest"]))
    assert detail(response, 412, "DENIED")["reference"] == "two"
    assert await repository.tags() == ["one"]
    await repository.push(image(), "two")
    assert (await repository.put(index(), params=both, headers=quoted(old["digest"]))).status_code == 201


async def test_delete_tag(repository: Repository) -> None:
    """A tag is deleted only while it names the digest that the client saw."""
    found = await repository.push_image("latest")
    for headers in (quoted(NOWHERE), {"if-none-match": "*"}, {"if-none-match": f'"{found["digest"]}"'}):
        response = await repository.delete("manifests/latest", headers=headers)
        assert detail(response, 412, "DENIED")["current"] == found["digest"]
    assert await repository.tags() == ["latest"]
    assert (await repository.delete("manifests/latest", headers=quoted(found["digest"]))).status_code == 202
    errors(await repository.delete("manifests/latest", headers=quoted(found["digest"])), 412, "DENIED")


async def test_delete_manifest(repository: Repository) -> None:
    """A manifest is deleted by digest under a condition on itself."""
    found = await repository.push_image("latest")
    path = f"manifests/{found['digest']}"
    errors(await repository.delete(path, headers=quoted(NOWHERE)), 412, "DENIED")
    assert (await repository.delete(path, headers=quoted(found["digest"]))).status_code == 202


async def test_condition_is_looked_at_before_content(repository: Repository) -> None:
    """A push under a condition that does not hold is 412, though its blobs are missing."""
    await repository.push_image("latest")
    errors(await repository.put(image(layers=[b"missing"]), "latest", headers=CREATE), 412, "DENIED")


def candidates(n: int) -> list[Json]:
    return [index(annotations={"candidate": str(number)}) for number in range(n)]


def winners(answers: list[httpx.Response]) -> list[str]:
    """The digests of those that were taken; the others must be 412."""
    for each in answers:
        if each.status_code != 201:
            errors(each, 412, "DENIED")
    return [each.headers["docker-content-digest"] for each in answers if each.status_code == 201]


async def test_one_of_fifty_creates(repository: Repository) -> None:
    """Of fifty clients that create a tag at once, exactly one does."""
    answers = await asyncio.gather(*(repository.put(each, "latest", headers=CREATE) for each in candidates(50)))
    (winner,) = winners(answers)
    assert (await repository.head("manifests/latest")).headers["docker-content-digest"] == winner


async def test_one_of_fifty_at_several_workers(workers: list[Repository]) -> None:
    """Of fifty clients at three workers that move a tag from one digest, exactly one does; likewise for deleting."""
    start = await workers[0].push(index(), "latest")
    answers = await asyncio.gather(
        *(workers[n % 3].put(each, "latest", headers=quoted(start)) for n, each in enumerate(candidates(50)))
    )
    (winner,) = winners(answers)
    for worker in workers:
        assert (await worker.head("manifests/latest")).headers["docker-content-digest"] == winner
    deletions = await asyncio.gather(
        *(workers[n % 3].delete("manifests/latest", headers=quoted(winner)) for n in range(50))
    )
    assert sorted(each.status_code for each in deletions) == [202] + [412] * 49


async def test_nothing_is_lost(workers: list[Repository]) -> None:
    """Clients that count in an annotation by read, change, write under If-Match, at three workers, miss no count."""
    await workers[0].push(index(annotations={"count": "0"}), "counter")

    async def add_one(repository: Repository) -> None:
        while True:
            seen = await repository.get("manifests/counter")
            count = int(seen.json()["annotations"]["count"])
            document = index(annotations={"count": str(count + 1)})
            headers = {"if-match": seen.headers["etag"]}
            if (await repository.put(document, "counter", headers=headers)).status_code == 201:
                return

    await asyncio.gather(*(add_one(workers[n % 3]) for n in range(30)))
    final = (await workers[1].get("manifests/counter")).json()
    assert final["annotations"]["count"] == "30"
