"""Manifests, tags and referrers, from many clients at once, with one worker and with four."""

import asyncio
import json
from typing import Any

from tests.fuzz.answer import Answer
from tests.fuzz.profile import FACTOR
from tests.races.client import Client, at_once, crowd, described, image
from tests.races.model import OCI_INDEX, digest_of, fallback_tag
from tests.server import Server


def index(*manifests: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests), **more}


def numbered(n: int) -> dict[str, Any]:
    return image(annotations={"n": str(n)})


async def test_the_same_tag(server: Server, repository: str) -> None:
    "Every push is taken; who reads meanwhile sees one of them, whole; the tag names one of them at the end."
    target = f"/v2/{repository}/manifests/latest"
    async with crowd(server.host, 10) as clients:
        assert (await clients[0].put(repository, "latest", numbered(0))).status == 201

        async def write(client: Client, first: int) -> None:
            for n in range(first, first + 15 * FACTOR):
                assert (await client.put(repository, "latest", numbered(n))).status == 201

        async def read(client: Client) -> None:
            for _ in range(40 * FACTOR):
                answer = await client.ask("GET", target)
                assert (answer.status, answer.header("docker-content-digest")) == (200, digest_of(answer.body))

        await asyncio.gather(
            *(write(client, 1000 * n) for n, client in enumerate(clients[:7])), *map(read, clients[7:])
        )
        ends = {digest_of(json.dumps(numbered(1000 * n + 15 * FACTOR - 1)).encode()) for n in range(7)}
        seen = {(await client.ask("HEAD", target)).header("docker-content-digest") for client in clients}
        assert len(seen) == 1
        assert seen <= ends
        for digest in ends:
            assert (await clients[0].ask("GET", f"/v2/{repository}/manifests/{digest}")).status == 200
        assert (await clients[0].ask("GET", f"/v2/{repository}/tags/list")).json["tags"] == ["latest"]


async def test_many_tags_are_moved_together(server: Server, repository: str) -> None:
    "Pushes of several tags at once leave all of them on one manifest, whichever it is."
    async with crowd(server.host, 8) as clients:

        async def push(client: Client, n: int) -> None:
            digest = described(numbered(n))["digest"]
            tags = "&".join(f"tag={tag}" for tag in (("a", "b", "c") if n % 2 else ("c", "b", "a")))
            assert (await client.put(repository, f"{digest}?{tags}", numbered(n))).status == 201

        for _ in range(8 * FACTOR):
            await asyncio.gather(*(push(client, n) for n, client in enumerate(clients)))
            named = {
                (await clients[0].ask("HEAD", f"/v2/{repository}/manifests/{tag}")).header("etag")
                for tag in ("a", "b", "c")
            }
            assert len(named) == 1


async def test_a_counter_loses_no_increment(server: Server, repository: str) -> None:
    "Compare-and-swap by If-Match: as many increments as were answered 201, and one creation."
    target = f"/v2/{repository}/manifests/counter"
    async with crowd(server.host, 8) as clients:
        created = await asyncio.gather(
            *(client.put(repository, "counter", numbered(0), headers=[("If-None-Match", "*")]) for client in clients)
        )
        assert sorted(answer.status for answer in created) == [201] + [412] * 7
        assert all(answer.codes == ["DENIED"] for answer in created if answer.status == 412)

        async def increment(client: Client) -> int:
            swaps = 0
            while True:
                current = await client.ask("GET", target)
                n = int(current.json["annotations"]["n"])
                condition = [("If-Match", current.header("etag") or "")]
                answer = await client.put(repository, "counter", numbered(n + 1), headers=condition)
                swaps += 1
                if answer.status == 201:
                    return swaps
                assert (answer.status, answer.codes) == (412, ["DENIED"])

        async def work(client: Client) -> None:
            for _ in range(10 * FACTOR):
                await increment(client)

        await asyncio.gather(*map(work, clients))
        end = await clients[0].ask("GET", target)
        assert int(end.json["annotations"]["n"]) == 8 * 10 * FACTOR


async def test_one_conditional_change_wins(server: Server, repository: str) -> None:
    "Of changes and deletions that expect the same digest one is made."
    target = f"/v2/{repository}/manifests/latest"
    async with crowd(server.host, 8) as clients:
        for n in range(15 * FACTOR):
            pushed = await clients[0].put(repository, "latest", numbered(n))
            condition = [("If-Match", f'"{pushed.header("docker-content-digest")}"')]
            answers = await at_once(
                *(
                    client.put(repository, "latest", numbered(-1 - m), headers=condition)
                    for m, client in enumerate(clients[:4])
                ),
                *(client.ask("DELETE", target, condition) for client in clients[4:]),
            )
            made = [answer.status for answer in answers if answer.status < 400]
            assert len(made) == 1
            assert {answer.status for answer in answers} - {made[0]} == {412}
            left = await clients[0].ask("HEAD", target)
            assert left.status == (200 if made[0] == 201 else 404)


async def test_delete_of_a_blob_against_push_of_a_manifest(server: Server, repository: str) -> None:
    "The push is refused or the deletion is: never a manifest whose blob is gone."
    async with crowd(server.host, 4) as clients:
        for n in range(25 * FACTOR):
            blob = await clients[0].push_blob(repository, f"layer {n}".encode())
            manifest = image(blob, annotations={"n": str(n)})
            delete, *pushes = await at_once(
                clients[0].ask("DELETE", f"/v2/{repository}/blobs/{blob}"),
                *(client.put(repository, f"t{m}", manifest) for m, client in enumerate(clients[1:])),
            )
            await _one_side_won(clients[0], repository, f"/v2/{repository}/blobs/{blob}", delete, pushes)


async def test_delete_of_a_child_against_push_of_an_index(server: Server, repository: str) -> None:
    "The push is refused or the deletion is: never an index whose manifest is gone."
    async with crowd(server.host, 4) as clients:
        for n in range(25 * FACTOR):
            child = image(annotations={"child": str(n)})
            assert (await clients[0].put(repository, "child", child)).status == 201
            target = f"/v2/{repository}/manifests/{described(child)['digest']}"
            delete, *pushes = await at_once(
                clients[0].ask("DELETE", target),
                *(
                    client.put(repository, f"t{m}", index(described(child)), OCI_INDEX)
                    for m, client in enumerate(clients[1:])
                ),
            )
            await _one_side_won(clients[0], repository, target, delete, pushes)


async def _one_side_won(client: Client, repository: str, target: str, delete: Answer, pushes: list[Answer]) -> None:
    statuses = {answer.status for answer in pushes}
    if delete.status == 202:
        assert statuses == {404}
        assert all(answer.codes == ["MANIFEST_BLOB_UNKNOWN"] for answer in pushes)
    else:
        assert (delete.status, delete.codes) == (405, ["DENIED"])
        assert 201 in statuses
    assert (await client.ask("HEAD", target)).status == (404 if delete.status == 202 else 200)
    pushed = [answer.header("location") or "" for answer in pushes if answer.status == 201]
    for location in pushed:
        assert (await client.ask("GET", location)).status == 200


async def test_delete_against_the_same_push(server: Server, repository: str) -> None:
    "A manifest that is deleted and pushed again at once is there with its tag, or not and neither is its tag."
    async with crowd(server.host, 3) as (one, other, third):
        for n in range(25 * FACTOR):
            manifest = numbered(n)
            assert (await one.put(repository, "latest", manifest)).status == 201
            target = f"/v2/{repository}/manifests/{described(manifest)['digest']}"
            delete, push = await at_once(one.ask("DELETE", target), other.put(repository, "latest", manifest))
            assert (delete.status, push.status) == (202, 201)
            by_digest = await third.ask("GET", target)
            by_tag = await third.ask("GET", f"/v2/{repository}/manifests/latest")
            assert by_digest.status == by_tag.status
            assert by_digest.status in (200, 404)


async def test_referrers_lose_nothing(server: Server, repository: str) -> None:
    "Clients that keep a list of referrers by read, change, write at once: the list has all, and so has the API."
    subject = described(image(annotations={"subject": "yes"}))
    tag = fallback_tag(str(subject["digest"]))
    each_makes = 8 * min(FACTOR, 2)  # each push makes a list of all before it
    async with crowd(server.host, 8) as clients:

        async def refer(client: Client, name: str) -> str:
            referrer = image(subject=subject, artifactType="application/x-test", annotations={"by": name})
            pushed = await client.put(repository, described(referrer)["digest"], referrer)
            assert (pushed.status, pushed.header("oci-subject")) == (201, subject["digest"])
            current = await client.ask("GET", f"/v2/{repository}/manifests/{tag}")
            listed = current.json["manifests"] if current.status == 200 else []
            entry = described(referrer) | {"artifactType": "application/x-test", "annotations": {"by": name}}
            kept = [each for each in listed if each["digest"] != entry["digest"]]
            assert (await client.put(repository, tag, index(*kept, entry), OCI_INDEX)).status == 201
            return str(entry["digest"])

        async def work(client: Client, n: int) -> set[str]:
            return {await refer(client, f"{n}.{m}") for m in range(each_makes)}

        made = set().union(*await asyncio.gather(*(work(client, n) for n, client in enumerate(clients))))
        assert len(made) == 8 * each_makes
        listed = (await clients[0].ask("GET", f"/v2/{repository}/manifests/{tag}")).json["manifests"]
        assert sorted(each["digest"] for each in listed) == sorted(made)
        known = (await clients[1].ask("GET", f"/v2/{repository}/referrers/{subject['digest']}")).json["manifests"]
        assert [each["digest"] for each in known] == sorted(made)
        assert sorted(listed, key=lambda each: each["digest"]) == known


async def test_referrers_come_and_go(server: Server, repository: str) -> None:
    "Those that were deleted are in neither list, those that were not are in both, whatever ran beside it."
    subject = described(image(annotations={"subject": "of some"}))
    tag = fallback_tag(str(subject["digest"]))
    made = [image(subject=subject, annotations={"n": str(n)}) for n in range(12)]
    async with crowd(server.host, 12) as clients:
        assert (await clients[0].put(repository, tag, index(), OCI_INDEX)).status == 201
        await asyncio.gather(
            *(
                client.put(repository, described(each)["digest"], each)
                for client, each in zip(clients, made, strict=True)
            )
        )
        new = [image(subject=subject, annotations={"new": str(n)}) for n in range(6)]
        answers = await asyncio.gather(
            *(
                client.ask("DELETE", f"/v2/{repository}/manifests/{described(each)['digest']}")
                for client, each in zip(clients[:6], made[:6], strict=True)
            ),
            *(
                client.put(repository, described(each)["digest"], each)
                for client, each in zip(clients[6:], new, strict=True)
            ),
        )
        assert [answer.status for answer in answers] == [202] * 6 + [201] * 6
        left = sorted(described(each)["digest"] for each in made[6:] + new)
        listed = (await clients[0].ask("GET", f"/v2/{repository}/manifests/{tag}")).json["manifests"]
        known = (await clients[0].ask("GET", f"/v2/{repository}/referrers/{subject['digest']}")).json["manifests"]
        assert sorted(each["digest"] for each in listed) == left
        assert [each["digest"] for each in known] == left


async def test_pages_while_tags_come_and_go(server: Server, repository: str) -> None:
    "Whoever follows Link sees each tag that was there all the time once, and in order."
    kept = [f"k{n:02}" for n in range(0, 60, 3)]
    async with crowd(server.host, 6) as clients:
        await asyncio.gather(*(clients[n % 6].put(repository, tag, numbered(0)) for n, tag in enumerate(kept[:6])))
        for tag in kept[6:]:
            assert (await clients[0].put(repository, tag, numbered(0))).status == 201
        done = asyncio.Event()

        async def change(client: Client, start: int) -> None:
            for n in range(start, 60, 3):
                assert (await client.put(repository, f"k{n:02}", numbered(0))).status == 201
                if n % 2:
                    assert (await client.ask("DELETE", f"/v2/{repository}/manifests/k{n:02}")).status == 202

        async def walk(client: Client) -> None:
            while not done.is_set():
                target, seen = f"/v2/{repository}/tags/list?n=4", list[str]()
                while target:
                    answer = await client.ask("GET", target)
                    seen += answer.json["tags"]
                    target = (answer.header("link") or "").partition(">")[0].removeprefix("<")
                assert seen == sorted(set(seen))
                assert set(kept) <= set(seen)

        walkers = [asyncio.create_task(walk(client)) for client in clients[2:]]
        await asyncio.gather(change(clients[0], 1), change(clients[1], 2))
        done.set()
        await asyncio.gather(*walkers)
