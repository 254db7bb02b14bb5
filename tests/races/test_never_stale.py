"""What was acknowledged is seen at once by every worker, however many ask for the same in the meantime."""

import asyncio
from typing import Any

from tests.races.client import Client, crowd, image
from tests.server import Server

READERS = 16
ROUNDS = 60


async def test_a_moved_or_deleted_tag(server: Server, repository: str) -> None:
    """Connections to all workers ask all the time for a tag that one client moves, deletes and brings back."""
    documents = [image(annotations={"n": str(n)}) for n in range(3)]
    target = f"/v2/{repository}/manifests/tag"
    truth: dict[str, Any] = {"acknowledged": 0, "begun": 0, "names": {0: None}}
    done = asyncio.Event()

    async def read(client: Client) -> int:
        """Ask until the end: never for something older than what was acknowledged before the question."""
        asked = 0
        while not done.is_set():
            least = truth["acknowledged"]
            answer = await client.ask("HEAD", target)
            possible = {truth["names"][n] for n in range(least, truth["begun"] + 1)}
            assert answer.header("docker-content-digest") in possible, (answer, least, truth["begun"])
            asked += 1
        return asked

    async def change(client: Client) -> None:
        try:
            for n in range(1, ROUNDS + 1):
                deleted = n % 4 == 0
                truth["names"][n] = None if deleted else digests[n % 3]
                truth["begun"] = n
                answer = await (
                    client.ask("DELETE", target) if deleted else client.put(repository, "tag", documents[n % 3])
                )
                assert answer.status == (202 if deleted else 201), answer
                truth["acknowledged"] = n
                for other in others:
                    seen = await other.ask("HEAD", target)
                    assert seen.header("docker-content-digest") == truth["names"][n], (n, seen)
        finally:
            done.set()

    async with crowd(server.host, READERS + 9) as (changer, *rest):
        others, readers = rest[:8], rest[8:]
        digests = []
        for document in documents:
            pushed = await changer.put(repository, "kept", document)
            digests.append(pushed.header("docker-content-digest"))
        assert len(set(digests)) == 3
        asked = await asyncio.gather(change(changer), *map(read, readers))
    assert sum(each or 0 for each in asked) > READERS
